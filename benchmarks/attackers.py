"""The attackers of a benchmark: slow peers by the hundred, each replaced as soon as it is cut off.

Questions, over the line to the parent:
    begin     so many of each kind, those that live longest first; answered when all have come to where they are slow
    end       let them go; answered with how long each that was cut off meanwhile had lived, by kind
"""

import json
from typing import Any

import trio

from benchmarks.children import inherited_line, raise_file_limit
from trio_swarm.testing.slow_peers import SlowPeer, be_slow

OPENING = 200  # handshakes under way at once; the service's backlog takes them
START_S = 150.0  # less than the parent's patience, so that it is told


class Attack:
    """One phase of them."""

    def __init__(self, address: list[Any], stream: str, crowd: trio.Nursery) -> None:
        self._host, self._port = address
        self._stream = stream
        self._crowd = crowd
        self._gate = trio.CapacityLimiter(OPENING)
        self._all_here = trio.Event()  # nobody is replaced before: the last would wait behind the first's successors
        self.lived_s: dict[str, list[float]] = {}

    async def begin(self, kinds: list[str], each: int) -> None:
        """Bring all of them to where they are slow."""
        with trio.fail_after(START_S):
            async with trio.open_nursery() as opening:
                for kind in kinds:
                    for _ in range(each):
                        opening.start_soon(self._open, kind)
        self._all_here.set()

    async def _open(self, kind: str) -> None:
        async with self._gate:
            await self._crowd.start(self._attack, kind)

    async def _attack(self, kind: str, task_status: trio.TaskStatus[SlowPeer]) -> None:
        """Be one of the kind, and then its successors."""
        seen = _Seen(task_status)
        while True:
            await be_slow(kind, self._host, self._port, stream=self._stream, task_status=seen)
            if seen.peer is not None and seen.peer.lived_s is not None:
                self.lived_s.setdefault(kind, []).append(seen.peer.lived_s)
            await self._all_here.wait()


class _Seen(trio.TaskStatus[SlowPeer]):
    """Passes on that the first one is slow, and keeps the last."""

    def __init__(self, first: trio.TaskStatus[SlowPeer]) -> None:
        self._first = first
        self.peer: SlowPeer | None = None

    def started(self, value: SlowPeer | None = None) -> None:
        """See the class."""
        if self.peer is None and value is not None:
            self._first.started(value)
        self.peer = value


async def main() -> None:
    """Serve the parent's line."""
    raise_file_limit()
    line = trio.SocketStream(trio.socket.from_stdlib_socket(inherited_line().sock))

    async def hear() -> dict[str, Any] | None:
        data = await line.receive_some()  # a question comes whole: the parent waits for each answer
        return json.loads(data) if data else None

    async def tell(**message: Any) -> None:
        await line.send_all(json.dumps(message).encode() + b"\n")

    while (question := await hear()) is not None:
        async with trio.open_nursery() as crowd:
            attack = Attack(question["address"], question["stream"], crowd)
            await attack.begin(question["kinds"], question["each"])
            await tell(attackers=len(question["kinds"]) * question["each"])
            await hear()
            crowd.cancel_scope.cancel()
        await tell(lived_s=attack.lived_s)


if __name__ == "__main__":
    trio.run(main)
