"""The parent's side of `watched_service.py`: its census, what differs between two of them, and readers that must miss
nothing meanwhile.
"""

import json
import tempfile
from contextlib import asynccontextmanager

import attrs
import trio
from edge_service import PATIENCE_S, Http
from test_edge_stalled_readers import Honest, service_process
from test_edge_websocket import masked, raw_websocket

JOURNAL_S = 1.2  # the age of what the service's journals keep, and a fifth
SETTLE_S = 15.0  # what ends by a clock of the service's: a closing handshake's 2 s, an object's grace, a journal's age
PAUSE_S = 0.02
BURST = 5
PING_S = 5.0  # a foreign host keeps pongs to itself, so a message it is
REQUESTS = 500  # on one connection: the host ends it after a thousand
EXACT = {
    "tasks",
    "tasks_living",
    "descriptors",
    "connections",
    "clients",
    "subscriptions",
    "objects",
    "live_streams",
    "journals",
    "full_sockets",
    "publishing",
}


@attrs.define
class WatchedService:
    """The process as its parent sees it."""

    process: trio.Process
    port: int = 0
    host: str = "127.0.0.1"
    rest: bytes = b""

    async def census(self, *, settled=False):
        """What it holds; `settled`: after it has freed what only waits to be freed."""
        await self.process.stdin.send_all(b"settled\n" if settled else b"now\n")
        return await self.answer()

    async def answer(self):
        """The next line it says."""
        while b"\n" not in self.rest:
            part = await self.process.stdout.receive_some(1 << 16)
            assert part, "the service has ended"
            self.rest += part
        line, _, self.rest = self.rest.partition(b"\n")
        return json.loads(line)

    async def settled(self, witnesses, base=None, patience_s=SETTLE_S):
        """The census when it is what it was, as far as that is exact, or when all that ends by a clock has had time to.

        Nothing is published meanwhile, so that the journals run empty: what they hold is memory too.
        """
        async with witnesses.silence:
            await trio.sleep(JOURNAL_S)
            patience = trio.current_time() + patience_s
            while True:
                now = await self.census(settled=True)
                if not difference(base or {}, now) or trio.current_time() > patience:
                    return now
                await trio.sleep(0.2)


def difference(base, now):
    """What is not as it was, a line each; nothing where all is."""
    lines = []
    for name in sorted(base.keys() & EXACT):
        was, now_is = (each[name] if isinstance(each[name], dict) else {"": each[name]} for each in (base, now))
        parts = sorted(was.keys() | now_is.keys())
        lines += [
            f"{name} {part}: {was.get(part, 0)} -> {now_is.get(part, 0)}"
            for part in parts
            if was.get(part, 0) != now_is.get(part, 0)
        ]
    return "\n".join(lines)


@asynccontextmanager
async def watched_service(**options):
    """Run it. It must end in order when it is told to, and have nothing to say on standard error."""
    with tempfile.TemporaryFile() as errors:
        async with service_process(json.dumps(options), program="watched_service.py", stderr=errors) as process:
            service = WatchedService(process)
            service.port = await service.answer()
            yield service
        errors.seek(0)
        said = errors.read(4_000).decode().replace("\\n", "\n")
        assert (0, "") == (process.returncode, said), said


class Witnesses:
    """A stream of each kind that must never break, and who publishes to them."""

    def __init__(self, service):
        self.service = service
        self.readers = []
        self.published = 0
        self.silence = trio.Lock()  # whoever has it, has it quiet: nothing is published
        self._stop = trio.Event()

    async def run(self, task_status=trio.TASK_STATUS_IGNORED):
        """Publish and read until `finish`."""
        async with await trio.open_tcp_stream(self.service.host, self.service.port) as sse:
            await sse.send_all(b"GET /v1/room/witness/events HTTP/1.1\r\nhost: x\r\n\r\n")
            async with await raw_websocket(self.service) as ws, trio.open_nursery() as nursery:
                await ws.send_all(masked(1, b'{"type":"subscribe","data":{"stream":"room/witness"}}'))
                for stream, word in ((sse, b"hello"), (ws, b'"subscribed"')):
                    greeted = b""
                    while word not in greeted:
                        greeted += await stream.receive_some()
                    self.readers.append(Honest(stream))
                for reader in self.readers:
                    nursery.start_soon(self._read, reader)
                nursery.start_soon(self._ping, ws)
                await self._publish(task_status)
                nursery.cancel_scope.cancel()

    def finish(self):
        """Publish no more; `run` returns when the readers have had everything, or it is too late."""
        self._stop.set()

    @property
    def faults(self):
        """What went wrong: numbers out of order, and what each has had when it should have had everything."""
        return [
            (name, reader.wrong[:5], reader.expected)
            for name, reader in zip(("sse", "websocket"), self.readers, strict=True)
            if reader.wrong or reader.expected != self.published
        ]

    async def _publish(self, task_status):
        while not self._stop.is_set():
            async with await trio.open_tcp_stream(self.service.host, self.service.port) as stream:
                http = Http(stream, self.service.host)
                for _ in range(REQUESTS):
                    async with self.silence:
                        await self._publish_burst(http)
                    if self.published == BURST:
                        task_status.started()
                    await trio.sleep(PAUSE_S)
                    if self._stop.is_set():
                        break
        with trio.move_on_after(PATIENCE_S):
            while True:
                if all(reader.expected == self.published for reader in self.readers):
                    return
                await trio.sleep(PAUSE_S)

    async def _publish_burst(self, http):
        call = b"[%d,%d]" % (self.published, BURST)
        await http.request("POST", "/v1/room/witness/call/burst", call, content_type="application/json")
        answer = await http.response()
        assert answer.status_code == 200, await http.body()
        await http.body()
        http.h11.start_next_cycle()
        self.published += BURST

    async def _read(self, reader):
        await reader.run()
        raise AssertionError(f"a witness's stream ended before event {reader.expected} of {self.published}")

    async def _ping(self, ws):
        while True:
            await trio.sleep(PING_S)
            await ws.send_all(masked(1, b'{"type":"ping"}'))
