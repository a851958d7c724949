"""Objects that store, in a process of their own: `power_cut_workload.py FILE TURNS SEED SYNCHRONOUS`.

Each answer that a caller gets is said on standard output, in a write of its own: what was said was acknowledged.
"""

import os
import random
import sys

import trio

from trio_swarm import DurableObject, exposed, open_swarm
from trio_swarm.storage.sqlite import SqliteStorage

OBJECTS = 8


class Ledger(DurableObject):
    """Each turn changes several keys, which belong together."""

    @exposed
    async def enter(self, number: int, size: int, cleared: bool) -> int:  # noqa: FBT001
        if cleared:
            self.storage.delete_all()
        self.storage.put_many({"left": number, "right": number, f"page:{number % 7}": [number, "x" * size]})
        if number % 5 == 0:
            self.storage.delete(f"page:{(number + 1) % 7}")
        return number


async def work(ledger, name, turns, rng):
    for number in range(1, turns + 1):
        await ledger.enter(number, rng.choice([0, 10, 3_000, 9_000]), rng.random() < 0.05)
        os.write(1, b"%s %d\n" % (name.encode(), number))


async def main(path, turns, seed, synchronous):
    store = await SqliteStorage.open(path, synchronous=synchronous)
    # The writer waits for its first job. A small log is emptied into the file again and again.
    store._writer._connection.execute("PRAGMA wal_autocheckpoint=30")
    async with open_swarm(objects=[Ledger], storage=store) as swarm, trio.open_nursery() as nursery:
        for n in range(OBJECTS):
            nursery.start_soon(work, swarm.get(Ledger, f"l{n}"), f"l{n}", turns, random.Random(seed * 100 + n))


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
