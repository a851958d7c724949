"""What durability costs: `.venv/bin/python benchmarks/storage.py [FOLDER]` prints one JSON object.

Durable turns a second for 1 to 1,000 objects that store at once, beside the disk's own rate of small synced writes in
the same run: each measurement of turns stands between two of the disk. The store is a file in FOLDER (by default in
the working directory: a temporary directory may be memory). Wall clock, because the disk is what is waited for; the
values differ from turn to turn, for SQLite writes no page that did not change.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import attrs
import trio

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.objects import CALLS, bare
from trio_swarm import DurableObject, exposed, open_swarm
from trio_swarm.settings import Limits, Settings
from trio_swarm.storage.sqlite import SqliteStorage

SECONDS = 2.0
ROUNDS = 3
MANY = 10_000
BLOCK = 4_096


class Meter(DurableObject):
    """Counts, and keeps the count."""

    async def start(self) -> None:
        """Go on where it was."""
        self.total: int = await self.storage.get("total", 0)

    @exposed
    async def keep(self) -> int:
        """Count in a durable turn."""
        self.storage.put("total", self.total + 1)
        self.total += 1
        return self.total

    @exposed
    async def look(self) -> int:
        """Answer without a write."""
        return self.total


def syncs_a_second(folder: Path, seconds: float = SECONDS / 4) -> float:
    """How often a second this disk takes a block, appended and synced."""
    block, count = os.urandom(BLOCK), 0
    with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
        begin = time.perf_counter()
        while (passed := time.perf_counter() - begin) < seconds:
            file.write(block)
            os.fdatasync(file.fileno())
            count += 1
    return count / passed


async def turns(path: Path, objects: int) -> tuple[float, float]:
    """Durable turns a second of so many objects at once, and how many of them one sync served."""
    store = await SqliteStorage.open(path)
    count = 0

    async def go_on(meter: object, until: float) -> None:
        nonlocal count
        while trio.current_time() < until:
            await meter.keep()  # type: ignore[attr-defined]  # a method of the author's
            count += 1

    async with open_swarm(
        objects=[Meter], settings=Settings(limits=Limits(objects_per_kind=MANY)), storage=store
    ) as swarm:
        meters = [swarm.get(Meter, str(n)) for n in range(objects)]
        for meter in meters:
            await meter.look()
        batches = store.statistics().writer.batches
        begin = trio.current_time()
        async with trio.open_nursery() as nursery:
            for meter in meters:
                nursery.start_soon(go_on, meter, begin + SECONDS)
        passed = trio.current_time() - begin
        batches = store.statistics().writer.batches - batches
    return count / passed, count / batches


async def calls(path: Path) -> float:
    """A call that writes nothing, on this store, by a bare request and answer: of CPU time."""
    ratios = []
    async with open_swarm(objects=[Meter], storage=await SqliteStorage.open(path)) as swarm:
        meter = swarm.get(Meter, "one")
        for _ in range(5):
            begin = time.process_time()
            await bare()
            between = time.process_time()
            for _ in range(CALLS):
                await meter.look()
            ratios.append((time.process_time() - between) / (between - begin))
    return statistics.median(ratios)


async def come_back(path: Path) -> float:
    """Seconds until so many objects that kept something have started and answered."""
    settings = Settings(limits=Limits(objects_per_kind=MANY))
    store = await SqliteStorage.open(path)
    async with open_swarm(objects=[Meter], settings=settings, storage=store) as swarm, trio.open_nursery() as nursery:
        for n in range(MANY):
            nursery.start_soon(swarm.get(Meter, str(n)).keep)
    async with open_swarm(objects=[Meter], settings=settings, storage=await SqliteStorage.open(path)) as swarm:
        begin = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for n in range(MANY):
                nursery.start_soon(swarm.get(Meter, str(n)).look)
        return time.perf_counter() - begin


@attrs.frozen
class Figures:
    """Of one number of objects."""

    turns_a_second: int
    turns_a_sync: float
    by_syncs: float


async def main(folder: Path) -> None:
    """Measure, print."""
    found: dict[str, object] = {}
    disk: list[float] = []
    for objects in (1, 10, 100, 1_000):
        rounds = []
        for number in range(ROUNDS):
            before = syncs_a_second(folder)
            rate, a_sync = await turns(folder / f"{objects}-{number}.db", objects)
            between = statistics.mean((before, syncs_a_second(folder)))
            disk.append(between)
            rounds.append((rate / between, rate, a_sync))
        by_syncs, rate, a_sync = sorted(rounds)[ROUNDS // 2]
        found[f"objects_{objects}"] = attrs.asdict(Figures(round(rate), round(a_sync, 1), round(by_syncs, 2)))
    found["syncs_a_second"] = round(statistics.median(disk))
    found["call_by_bare"] = round(await calls(folder / "calls.db"), 2)
    found[f"seconds_to_bring_{MANY}_back"] = round(await come_back(folder / "back.db"), 2)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else ".") as place:
        trio.run(main, Path(place))
