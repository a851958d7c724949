"""Ledgers in a process of their own: `power_cut_workload.py FILE TURNS SEED SYNCHRONOUS`.

Each answer that a caller gets, and each event that a reader sees, is said on standard output, in a write of its own:
what was said was let out. Some turns are too large for the store, which refuses them.
"""

import logging
import os
import random
import sys
from contextlib import suppress

import attrs
import msgspec
import structlog
import trio
from ledgers import Ledger
from stored_ledgers import ALWAYS

from trio_swarm import open_swarm
from trio_swarm.errors import ObjectError, StorageError
from trio_swarm.settings import AlarmSettings, JournalSettings, ObjectSettings, Settings
from trio_swarm.storage.sqlite import SqliteStorage

OBJECTS = 8
KEEP = JournalSettings(events=20)  # so little that within the run some must go
OBJECT_BYTES = 30_000
LAST_S = 10.0  # for a reminder to ring after the last turn: it is due in a quarter of a second
SIZES = [0, 10, 10, 10, 3_000, 9_000, 40_000]  # the largest is refused


class Short(Ledger):
    """A ledger with a short history."""

    kind = "ledger"
    journal = KEEP


async def work(ledger, turns, rng):
    for number in range(1, turns + 1):
        size, done = rng.choice(SIZES), False
        while not done:
            with suppress(StorageError, ObjectError):
                done = await ledger.enter(number, size, rng.random() < 0.05)
            size = 0
        os.write(1, b"%s answer %d\n" % (ledger.id.encode(), number))
        await trio.sleep(rng.choice([0, 0, 0.01, 0.05]))


async def listen(ledger, reminded):
    async with ledger.watch(*ALWAYS, since="0-0") as events:
        async for event in events:
            [number] = msgspec.json.decode(event.data).values()
            said = f"{ledger.id} {event.topic} {number} {event.id}\n"
            os.write(1, said.encode())
            if event.topic == "reminded":
                reminded.set()


async def main(path, turns, seed, synchronous):
    store = await SqliteStorage.open(path, synchronous=synchronous, object_bytes=OBJECT_BYTES)
    # The writer waits for its first job. A small log is emptied into the file again and again.
    store._writer._connection.execute("PRAGMA wal_autocheckpoint=30")
    settings = Settings(
        alarms=AlarmSettings(retry_initial_s=0.02), objects=attrs.evolve(ObjectSettings(), backoff_initial_s=0.01)
    )
    async with open_swarm(objects=[Short], storage=store, settings=settings) as swarm, trio.open_nursery() as readers:
        reminded = trio.Event()
        async with trio.open_nursery() as nursery:
            for n in range(OBJECTS):
                ledger = swarm.get(Short, f"l{n}")
                readers.start_soon(listen, ledger, reminded)
                nursery.start_soon(work, ledger, turns, random.Random(seed * 100 + n))
        # Every turn puts the reminder off; on a busy machine all have ended before the first one rings.
        with trio.move_on_after(LAST_S):
            await reminded.wait()
        readers.cancel_scope.cancel()


if __name__ == "__main__":
    # Standard output is for what was let out; what raises here is meant to.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    trio.run(main, sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
