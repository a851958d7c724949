"""Three hundred attackers of each slow kind beside fifty honest clients, in front of a service in a process of its own.

The attackers are cut off in time: each is timed, from being slow to its end. The honest, half of them over server-sent
events and half over WebSocket, get every event, in order and once. When it is over, the service holds what it held
before.
"""

import resource
from collections import Counter

import pytest
import trio
from edge_service import Http
from test_edge_stalled_readers import Honest
from test_edge_websocket import masked, raw_websocket
from watched_process import watched_service

from trio_swarm.testing.slow_peers import SLOW_PEERS, STAYING, be_slow

ATTACKERS = 300
HONEST = 50
ELSEWHERE = {  # rows of docs/deadlines.md that are not here; test_slow_peers.py has each of them once
    "handshake": "wants TLS",
    "pings unread": "each makes the service read thousands of pings before it is slow: minutes of CPU for 300",
}
HTTP_ALONE = {
    "silence",
    "head",
    "idle",
    "goodbye",
}  # over before the application, so that no transport has a part in it
UNCOUNTED = {"body", "half-close", "pong"}  # told so, or withdrawn: no connection is aborted for it
OPENING = 100  # handshakes under way at once
LIMIT_S = 2.0
BYTES_PER_S = 100_000
WALL_BYTES = 300_000  # its snapshot (watched_service.py)
EVENT_BYTES = 90_000
HISTORY = 4  # events of the wall: as an answer, more than a socket takes at once
DEAD_S = 15.0  # the honest say something on the loop that they share with all attackers
PING_S = 2.0
PAUSE_S = 1.0  # between two drips: half the shortest limit, and no more CPU than it takes
IDLE_S = 6.0  # the publisher keeps its connection, and shares a loop with all attackers
SETTINGS = {
    "stall": {"seconds": LIMIT_S, "bytes_per_s": BYTES_PER_S},
    "liveness": {
        "ping_s": 1.0, "dead_s": DEAD_S, "header_s": LIMIT_S, "body_s": LIMIT_S, "keep_alive_s": IDLE_S,
        "closing_s": LIMIT_S,
    },
    "journal": {"age_s": 600.0, "events": 20_000},  # or an honest client that a busy machine holds up is told a gap
    "limits": {"answers_bytes": 2**30},  # or some of those that stop are told `busy`, and have nothing to leave unread
}  # fmt: skip
# How long each kind may live: its limit by docs/deadlines.md. A kind that is not named has LIMIT_S.
OWED_S = {"dripping stream": WALL_BYTES / BYTES_PER_S, "dripping answer": HISTORY * EVENT_BYTES / BYTES_PER_S}
LIMITS = {"idle": IDLE_S, "pong": DEAD_S} | {kind: LIMIT_S + owed_s for kind, owed_s in OWED_S.items()}
OVERRUN = 1.25  # docs/deadlines.md: by two eighths at most
# Beyond that only the machine: the service's one core also opens 100 connections at once and serves the honest, on a
# machine that does other work. The half of a kind may be late by the one, all of it by the other.
HALF_LATE_S = 15.0
ALL_LATE_S = 40.0
GONE_S = 60.0  # after the last was opened: the longest limit here is DEAD_S, and ALL_LATE_S
CONNECTING_S = 240.0  # however busy the machine is: a hang is what it ends
BURST = 5
EVERY_S = 0.2  # what the honest read is most of the CPU time here


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
            with trio.move_on_after(GONE_S):
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

    async def ping():
        while True:
            await trio.sleep(PING_S)
            await stream.send_all(masked(1, b'{"type":"ping"}'))  # a foreign host keeps pongs to itself

    nursery.start_soon(run)
    if n % 2:
        nursery.start_soon(ping)
    return reader


async def paint(service):
    """Give the wall a history."""
    body = b'{"data":"%b"}' % (b"x" * EVENT_BYTES)
    async with await trio.open_tcp_stream(service.host, service.port) as stream:
        http = Http(stream, service.host)
        for _ in range(HISTORY):
            await http.request("POST", "/v1/wall/a/publish", body, content_type="application/json")
            assert 200 == (await http.response()).status_code
            await http.body()
            http.h11.start_next_cycle()


async def attack(service, crowd, ended, kind, gate, n):
    """Bring one attacker to where it is slow; `ended` is given how long it then lived."""
    stream = f"room/slow{n}" if kind == "half-close" else "wall/a"  # whose call is in its turn, and not in a queue

    async def run(task_status):
        await be_slow(kind, service.host, service.port, stream=stream, pause_s=PAUSE_S, task_status=task_status)
        ended.append((kind, peer.lived_s))

    async with gate:
        peer = await crowd.start(run)


async def all_cut_off(service, ended, kinds):
    """Wait until the service has only the honest, and every attacker that can has seen its end."""
    began = trio.current_time()
    while True:
        now = await service.census()
        if now["connections"] <= HONEST + 1 and len(ended) == ATTACKERS * len(kinds):
            return
        left = Counter(kind for kind, _ in ended)
        assert trio.current_time() - began < GONE_S, (now["connections"], now["aborted"], left)
        await trio.sleep(0.2)


def late(ended):
    """The kinds whose attackers lived too long: what was allowed, and what the half and all of them had."""
    found = {}
    for kind in {kind for kind, _ in ended}:
        lived = sorted(lived_s for each, lived_s in ended if each == kind)
        limit = LIMITS.get(kind, LIMIT_S) * OVERRUN
        half, whole = lived[len(lived) // 2], lived[-1]
        if half > limit + HALF_LATE_S or whole > limit + ALL_LATE_S:
            found[kind] = (limit, half, whole)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("foreign", [False, True], ids=["direct", "asgi"])
async def test_attackers_are_cut_off_and_the_honest_lose_nothing(foreign):
    """See the module."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8_192)), hard))
    kinds = [kind for kind in SLOW_PEERS if kind not in ELSEWHERE and not (foreign and kind in HTTP_ALONE)]
    ended = []
    seeing = [kind for kind in kinds if kind not in STAYING]
    async with watched_service(foreign=foreign, settings=SETTINGS) as service, trio.open_nursery() as nursery:
        honest = [await open_honest(service, nursery, n) for n in range(HONEST)]
        publisher = Publisher(service, honest)
        await nursery.start(publisher.run)
        await paint(service)
        base = await service.census()
        async with trio.open_nursery() as crowd:
            with trio.fail_after(CONNECTING_S):
                async with trio.open_nursery() as opening:
                    gate = trio.CapacityLimiter(OPENING)
                    for n, kind in enumerate(kinds * ATTACKERS):
                        opening.start_soon(attack, service, crowd, ended, kind, gate, n)
            await all_cut_off(service, ended, seeing)
            crowd.cancel_scope.cancel()
        await publisher.finish()
        after = await service.census()
        nursery.cancel_scope.cancel()
    assert [[]] * HONEST == [each.wrong[:3] for each in honest]
    assert [publisher.published] * HONEST == [each.expected for each in honest]
    assert dict.fromkeys(seeing, ATTACKERS) == dict(Counter(kind for kind, _ in ended))
    assert {} == late(ended)
    assert len(set(kinds) - UNCOUNTED) * ATTACKERS <= sum(after["aborted"].values())
    assert base["clients"] == after["clients"]
    assert base["descriptors"].get("socket", 0) >= after["descriptors"].get("socket", 0)
