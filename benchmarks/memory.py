"""What one of each thing costs in memory, beside the figure that `trio-swarm budget` multiplies with.

Each is measured in a process of its own, by the growth of what is this process's alone (`Private_Dirty`), garbage
given back before both readings. `.venv/bin/python benchmarks/memory.py [NAME …]`
"""

import ctypes
import gc
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import trio
from cachetools import TTLCache

from trio_swarm.bounded.recent import Recent
from trio_swarm.fanout.encoding import WS_FRAMES
from trio_swarm.fanout.streams import Streams
from trio_swarm.health import budget
from trio_swarm.journal import journal
from trio_swarm.journal.clock import IdClock
from trio_swarm.journal.event import Draft, EventId
from trio_swarm.journal.journal import Journal
from trio_swarm.objects.items import Message, Published
from trio_swarm.runtime import open_swarm
from trio_swarm.settings import KIB, JournalSettings, Limits, Settings
from trio_swarm.upstream.protocols import FeedEvent

ROOT: Final = Path(__file__).resolve().parent.parent
_HUGE: Final = 10**12
_DATA: Final = 100

Measure = Callable[[], float]


def private_bytes() -> int:
    """Memory that is this process's alone, after what is garbage has gone back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * KIB
    raise OSError("the kernel tells no Private_Dirty")


def _each(count: int, fill: Callable[[], Any]) -> float:
    before = private_bytes()
    kept = fill()
    size = (private_bytes() - before) / count
    del kept
    return size


def _journal(**limits: int) -> Journal:
    settings = JournalSettings(events=limits.pop("events", _HUGE), bytes=_HUGE, age_s=1e9)
    return Journal(start=EventId(1, 0), settings=settings, latest=lambda topic: topic == "latest", **limits)


def event() -> float:
    """An event beside its data and what the journal counts for it."""
    count, kept = 200_000, _journal()

    def fill() -> Journal:
        for n in range(count):
            draft = Draft(b"%0100d" % n, f"topic-{n % 50:014}", f"type-{n % 50:015}")
            kept.append(EventId(1_700_000_000_000 + n, 300), draft, 1_000.0 + n)
        return kept

    return _each(count, fill) - _DATA - journal.OVERHEAD_BYTES


def topic() -> float:
    """A topic of which nothing is kept."""
    count, kept = 100_000, _journal(events=1, topics_limit=_HUGE)

    def fill() -> Journal:
        for n in range(count):
            kept.append(EventId(1_700_000_000_000 + n, 300), Draft(b"", f"topic-{n:014}"), 1_000.0 + n)
        return kept

    return _each(count, fill)


def key() -> float:
    """A key, beside its event."""
    count, kept = 100_000, _journal(keys_limit=_HUGE)

    def fill() -> Journal:
        for n in range(count):
            draft = Draft(b"", "latest", "message", f"key-{n:016}")
            kept.append(EventId(1_700_000_000_000 + n, 300), draft, 1_000.0 + n)
        return kept

    return _each(count, fill) - journal.OVERHEAD_BYTES - journal.EVENT_BYTES


def answer() -> float:
    """An answer that is kept for a repeat, beside its bytes."""
    count = 20_000
    kept: Recent[tuple[int, str], bytes] = Recent(count, 1e9, time.monotonic)

    def fill() -> Any:
        for n in range(count):
            kept.put((n, f"{n:020}"), b"%04000d" % n)
        return kept

    return _each(count, fill) - 4_000


def publication() -> float:
    """A publication that is kept for a repeat."""
    count = 50_000
    kept: TTLCache[Any, Published] = TTLCache(count, 1e9, timer=time.monotonic)

    def fill() -> Any:
        for n in range(count):
            kept["channel", f"channel-{n:012}", f"{n:0200}"] = Published(EventId(1_700_000_000_000 + n, 300 + n), 300)
        return kept

    return _each(count, fill)


def _streams() -> Streams:
    clock = IdClock(lambda: 10**9)
    clock.reserved(_HUGE)
    return Streams(clock, Limits(subscribed_topics=_HUGE), now=lambda: 1.0)


def stream() -> float:
    """A stream with an empty journal."""
    count, streams = 10_000, _streams()

    def fill() -> Streams:
        for n in range(count):
            streams.open(f"channel/name-{n:015}", journal=JournalSettings(), latest=lambda _: False)
        return streams

    return _each(count, fill)


class _Sink:
    ready = True
    on_ready: Any = None

    def write(self, payload: Any) -> None:
        """Take it."""

    def abort(self, reason: str) -> None:
        """End."""


def topic_named() -> float:
    """A topic that one reader names and no other."""
    count, each, streams = 200_000, 100, _streams()
    names_of = (f"channel/name-{n}" for n in range(count // each))
    read = [streams.open(name, journal=JournalSettings(), latest=lambda _: False) for name in names_of]

    def fill() -> Any:
        readers = []
        for n, one in enumerate(read):
            names = frozenset(f"topic-{n:05}-{k:08}" for k in range(each))
            reader = one.subscribe(_Sink(), encoding=WS_FRAMES, topics=names)
            reader.start()
            readers.append(reader)
        streams.broadcaster._visits.clear()  # noqa: SLF001 - the next pass would
        return readers

    async def run() -> float:
        return _each(count, fill)

    return trio.run(run)


def live_object() -> float:
    """A live object of a class without anything."""
    count = 3_000

    async def run() -> float:
        async with open_swarm(settings=Settings(limits=Limits(objects_per_kind=count))) as swarm:
            before = private_bytes()
            for n in range(count):
                await swarm.get("channel", f"name-{n:015}").publish([Draft(b"")])
            return (private_bytes() - before) / count

    return trio.run(run)


def message() -> float:
    """A feed's message in its lane, beside its frame."""
    count = 100_000

    def fill() -> Any:
        return [Message("feed", FeedEvent(f"topic-{n:014}", b"%0100d" % n)) for n in range(count)]

    return _each(count, fill) - _DATA


MEASURES: Final[dict[str, tuple[Measure, str, int]]] = {
    "event": (event, "journal.EVENT_BYTES", journal.EVENT_BYTES),
    "topic": (topic, "journal.TOPIC_BYTES", journal.TOPIC_BYTES),
    "key": (key, "journal.KEY_BYTES", journal.KEY_BYTES),
    "answer": (answer, "budget.ANSWER_ENTRY_BYTES", budget.ANSWER_ENTRY_BYTES),
    "publication": (publication, "budget.PUBLISHED_BYTES", budget.PUBLISHED_BYTES),
    "stream": (stream, "budget.STREAM_BYTES", budget.STREAM_BYTES),
    "topic_named": (topic_named, "budget.TOPIC_NAMED_BYTES", budget.TOPIC_NAMED_BYTES),
    "live_object": (live_object, "budget.OBJECT_BYTES", budget.OBJECT_BYTES),
    "message": (message, "budget.MESSAGE_BYTES", budget.MESSAGE_BYTES),
}


def main() -> None:
    """Measure those that are named, or all; the one after `--here` in this process."""
    if sys.argv[1:2] == ["--here"]:
        print(MEASURES[sys.argv[2]][0]())
        return
    print(f"{'':14} {'measured':>9} {'in use':>9} {'ratio':>6}")
    for name in sys.argv[1:] or MEASURES:
        _, constant, used = MEASURES[name]
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", "--here", name],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        size = float(done.stdout.splitlines()[-1])
        print(f"{name:14} {size:9,.0f} {used:9,} {used / size:6.2f}  {constant}")


if __name__ == "__main__":
    main()
