"""The attackers of a benchmark: slow peers by the hundred, each replaced as soon as it is cut off.

Questions, over the line to the parent:
    begin     so many of each kind; answered when all have come to where they are slow
    end       let them go; answered with how many were cut off meanwhile, by kind
"""

import json
from collections import Counter
from typing import Any

import trio

from benchmarks.children import inherited_line, raise_file_limit
from trio_swarm.testing.slow_peers import be_slow

OPENING = 50  # handshakes under way at once
START_S = 150.0


class Attack:
    """One phase of them."""

    def __init__(self, address: list[Any], stream: str, crowd: trio.Nursery) -> None:
        self._host, self._port = address
        self._stream = stream
        self._crowd = crowd
        self._gate = trio.CapacityLimiter(OPENING)
        self.cut: Counter[str] = Counter()

    async def begin(self, kinds: list[str], each: int) -> None:
        """Bring all of them to where they are slow."""
        with trio.fail_after(START_S):
            async with trio.open_nursery() as opening:
                for kind in kinds * each:
                    opening.start_soon(self._open, kind)

    async def _open(self, kind: str) -> None:
        async with self._gate:
            await self._crowd.start(self._attack, kind)

    async def _attack(self, kind: str, task_status: trio.TaskStatus[Any]) -> None:
        how = await be_slow(kind, self._host, self._port, stream=self._stream, task_status=task_status)
        if how:
            self.cut[kind] += 1
            self._crowd.start_soon(self._again, kind)

    async def _again(self, kind: str) -> None:
        while True:
            await be_slow(kind, self._host, self._port, stream=self._stream)
            self.cut[kind] += 1


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
        await tell(cut=dict(attack.cut))


if __name__ == "__main__":
    trio.run(main)
