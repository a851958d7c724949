"""Three hundred attackers of each slow kind beside fifty honest clients, in front of a service in a process of its own.

The attackers are cut off in time. The honest, half of them over server-sent events and half over WebSocket, get every
event, in order and once. When it is over, the service holds what it held before.
"""

import resource
from collections import Counter

import pytest
import trio
from edge_service import Http
from test_edge_stalled_readers import Honest
from test_edge_websocket import masked, raw_websocket
from watched_process import watched_service

from trio_swarm.testing.slow_peers import STAYING, be_slow

ATTACKERS = 300
HONEST = 50
KINDS = (
    "silence", "head", "body", "idle", "frame", "message", "stopped stream", "stopped websocket", "dripping stream",
    "black hole", "close", "goodbye",
)  # fmt: skip
INSIDE = ("body", "frame", "message", "stopped stream", "stopped websocket", "dripping stream")  # where ASGI matters
OPENING = 100  # handshakes under way at once
LIMIT_S = 2.0
IDLE_S = 6.0  # the publisher keeps its connection, and shares a loop with all attackers
SETTINGS = {
    "stall": {"seconds": LIMIT_S, "bytes_per_s": 100_000},
    "liveness": {
        "ping_s": 1.0, "dead_s": 300.0, "header_s": LIMIT_S, "body_s": LIMIT_S, "keep_alive_s": IDLE_S,
        "closing_s": LIMIT_S,
    },
    "journal": {"age_s": 60.0, "events": 20_000},  # or an honest client that a busy machine holds up is told a gap
    "limits": {"answers_bytes": 2**30},  # or some of those that stop are told `busy`, and have nothing to leave unread
}  # fmt: skip
IN_TIME_S = 120.0  # the longest limit here is 5 s: a dripping reader's; the rest is for a machine that is busy
CONNECTING_S = 240.0  # however busy the machine is: a hang is what it ends
BURST = 5
EVERY_S = 0.05


class Publisher:
    """Publishes what the honest count. The attackers' stream begins with a snapshot that no socket takes at once."""

    def __init__(self, service, honest):
        self.service = service
        self.honest = honest
        self.published = 0
        self._over = trio.Event()
        self._done = trio.Event()

    async def run(self, task_status):
        async with await trio.open_tcp_stream(self.service.host, self.service.port) as stream:
            http = Http(stream, self.service.host)
            while not self._over.is_set():
                await self._call(http, "honest/call/burst", b"[%d,%d]" % (self.published, BURST))
                self.published += BURST
                if self.published == BURST:
                    task_status.started()
                await trio.sleep(EVERY_S)
            with trio.move_on_after(IN_TIME_S):
                while True:
                    if all(each.expected == self.published for each in self.honest):
                        break
                    await trio.sleep(EVERY_S)
        self._done.set()

    async def finish(self):
        """Publish no more; returns when the honest have had everything, or it is too late."""
        self._over.set()
        await self._done.wait()

    async def _call(self, http, path, arguments):
        await http.request("POST", f"/v1/room/{path}", arguments, content_type="application/json")
        answer = await http.response()
        assert answer.status_code == 200, await http.body()
        await http.body()
        http.h11.start_next_cycle()


async def open_honest(service, nursery, n):
    """A client that reads as fast as it can."""
    if n % 2:
        stream = await raw_websocket(service)
        await stream.send_all(masked(1, b'{"type":"subscribe","data":{"stream":"room/honest"}}'))
    else:
        stream = await trio.open_tcp_stream(service.host, service.port)
        await stream.send_all(b"GET /v1/room/honest/events HTTP/1.1\r\nhost: x\r\n\r\n")
    greeted = b""
    while b'"subscribed"' not in greeted and b"hello" not in greeted:
        greeted += await stream.receive_some()
    reader = Honest(stream)

    async def run():
        async with stream:
            await reader.run()
        raise AssertionError(f"an honest client's stream ended before event {reader.expected}")

    nursery.start_soon(run)
    return reader


async def attack(service, crowd, ended, kind, gate):
    """Bring one attacker to where it is slow; how it ends goes to `ended`."""

    async def run(task_status):
        how = await be_slow(kind, service.host, service.port, stream="wall/a", task_status=task_status)
        ended.append((kind, how))

    async with gate:
        await crowd.start(run)


async def all_cut_off(service, ended, kinds):
    """Wait until the service has only the honest, and every attacker that can has seen its end."""
    began = trio.current_time()
    while True:
        now = await service.census()
        if now["connections"] <= HONEST + 1 and len(ended) == ATTACKERS * len(kinds):
            return
        assert trio.current_time() - began < IN_TIME_S, (now["connections"], now["aborted"], Counter(ended))
        await trio.sleep(0.2)


@pytest.mark.slow
@pytest.mark.parametrize("foreign", [False, True], ids=["direct", "asgi"])
async def test_attackers_are_cut_off_and_the_honest_lose_nothing(foreign):
    """See the module."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8_192)), hard))
    kinds, ended = INSIDE if foreign else KINDS, []
    seeing = [kind for kind in kinds if kind not in STAYING]
    async with watched_service(foreign=foreign, settings=SETTINGS) as service, trio.open_nursery() as nursery:
        honest = [await open_honest(service, nursery, n) for n in range(HONEST)]
        publisher = Publisher(service, honest)
        await nursery.start(publisher.run)
        base = await service.census()
        async with trio.open_nursery() as crowd:
            with trio.fail_after(CONNECTING_S):
                async with trio.open_nursery() as opening:
                    gate = trio.CapacityLimiter(OPENING)
                    for kind in kinds * ATTACKERS:
                        opening.start_soon(attack, service, crowd, ended, kind, gate)
            await all_cut_off(service, ended, seeing)
            crowd.cancel_scope.cancel()
        await publisher.finish()
        after = await service.census()
        nursery.cancel_scope.cancel()
    assert [[]] * HONEST == [each.wrong[:3] for each in honest]
    assert [publisher.published] * HONEST == [each.expected for each in honest]
    assert dict.fromkeys(seeing, ATTACKERS) == dict(Counter(kind for kind, _ in ended))
    answered = ATTACKERS  # a body that drips is told so, and leaves
    assert len(kinds) * ATTACKERS - answered <= sum(after["aborted"].values())
    assert base["clients"] == after["clients"]
    assert base["descriptors"].get("socket", 0) >= after["descriptors"].get("socket", 0)
