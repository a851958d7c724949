"""Fan-out by itself: the broadcaster over sinks that swallow everything, in this process, without a socket.

    .venv/bin/python benchmarks/inprocess.py --clients 1000 --bursts 500 --burst 1 [--topics T] [--profile]

What is left of a delivery when the kernel and the edge are taken away; where to look when `fanout.py` has become
slower.
"""

import argparse
import cProfile
import json
import pstats
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio
import trio.testing

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.payload import STREAM, payload, readers, topic_names
from trio_swarm.fanout.encoding import SSE_CHUNKED, WS_FRAMES
from trio_swarm.fanout.streams import Streams
from trio_swarm.journal.clock import IdClock
from trio_swarm.journal.event import Draft
from trio_swarm.settings import JournalSettings, Limits

_MOST = 50_000_000  # writes of one run


class Swallow:
    """A sink that is always ready and counts."""

    __slots__ = ("on_ready", "ready", "taken")

    def __init__(self) -> None:
        self.ready = True
        self.on_ready: Callable[[], None] | None = None
        self.taken = 0

    def write(self, payload: Any) -> None:  # noqa: ARG002 - swallowed
        """Count."""
        self.taken += 1

    def abort(self, reason: str) -> None:  # noqa: ARG002 - there is no peer
        """Count no more."""
        self.ready = False


async def run(given: argparse.Namespace) -> dict[str, Any]:
    """Publish and wait for the passes; return the CPU microseconds of each write and of each publish."""
    clock = IdClock(lambda: time.time_ns() // 1_000_000)
    clock.reserved(time.time_ns() // 1_000_000 + 600_000)
    streams = Streams(clock, Limits())
    names = topic_names(given.topics) or [""]
    encoding = SSE_CHUNKED if given.transport == "sse" else WS_FRAMES
    async with trio.open_nursery() as nursery:
        await nursery.start(streams.run)
        stream = streams.open(STREAM, journal=JournalSettings(), latest=lambda _: False)
        sinks = [Swallow() for _ in range(given.clients)]
        for index, sink in enumerate(sinks):
            topics = frozenset({names[index % len(names)]}) if given.topics else None
            stream.subscribe(sink, encoding=encoding, topics=topics).start()
        await trio.testing.wait_all_tasks_blocked()
        publishing = number = due = 0
        profiler = cProfile.Profile()
        if given.profile:
            profiler.enable()
        cpu = time.process_time_ns()
        for _ in range(given.bursts):
            began = time.process_time_ns()
            stamped = []
            for _ in range(given.burst):
                data = payload(time.monotonic_ns(), number, 0)
                stamped.append((clock.next(), Draft(data, names[number % len(names)])))
                number += 1
            stream.publish(stamped)
            publishing += time.process_time_ns() - began
            due += readers(given.clients, len(names), number - given.burst, given.burst)
            while True:
                await trio.lowlevel.checkpoint()
                if streams.broadcaster.statistics().writes >= due:
                    break
        cpu = time.process_time_ns() - cpu
        if given.profile:
            profiler.disable()
            pstats.Stats(profiler, stream=sys.stderr).sort_stats("tottime").print_stats(25)
        nursery.cancel_scope.cancel()
    writes = sum(sink.taken for sink in sinks)
    return {
        "writes": writes,
        "us_per_write": round((cpu - publishing) / max(1, writes) / 1e3, 4),
        "us_per_publish": round(publishing / number / 1e3, 3),
    }


def main() -> None:
    """Read the command line, run, print one JSON object."""
    parser = argparse.ArgumentParser(description="The broadcaster without sockets.")
    parser.add_argument("--transport", choices=["sse", "ws"], default="sse")
    parser.add_argument("--clients", type=int, default=1_000)
    parser.add_argument("--bursts", type=int, default=500)
    parser.add_argument("--burst", type=int, default=1)
    parser.add_argument("--topics", type=int, default=0)
    parser.add_argument("--profile", action="store_true")
    given = parser.parse_args()
    if not 0 < given.clients * given.bursts * given.burst <= _MOST:
        parser.error(f"clients x bursts x burst lies between 1 and {_MOST}")
    print(json.dumps(trio.run(run, given)))


if __name__ == "__main__":
    main()
