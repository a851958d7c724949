"""The service under measurement: the real one, with one object that publishes when the benchmark says so.

`BenchGame` publishes each burst in one turn. The driver is a task beside the server that calls it, then waits until
the broadcaster has made as many writes as there are readers of that burst (a counter: asking it costs nothing), and,
where all read everything, until no reader is behind. What that second look costs is measured and taken off.

The same publishes are measured on an object that nobody reads: what remains is the price of delivering.
"""

import contextlib
import cProfile
import functools
import io
import json
import pstats
import sys
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import attrs
import msgspec
import trio

from benchmarks.children import inherited_line, raise_file_limit
from benchmarks.payload import STREAM, payload, readers, topic_names
from trio_swarm.asgi import App, create_app
from trio_swarm.edge.worker import serve
from trio_swarm.health.collector import seldom_collected
from trio_swarm.objects.durable import DurableObject
from trio_swarm.objects.reference import Reference
from trio_swarm.settings import Limits, Settings

_SPINS = 64  # turns of the loop before the driver begins to sleep: a pass over 10,000 readers takes 40
_NAP_S = 0.001


class BenchGame(DurableObject):
    """Publishes numbered events, each to the next topic in turn."""

    kind = "bench"
    topics: ClassVar[list[str]] = [""]

    async def start(self) -> None:
        """Begin with number 1 in every topic."""
        self.counts = [0] * len(self.topics)
        self.at = 0

    async def burst(self, count: int, *, timed: bool) -> None:
        """Publish so many events at once; those that are not `timed` have no part in the latencies."""
        stamp = time.monotonic_ns() if timed else 0
        counts, names, at = self.counts, self.topics, self.at
        for _ in range(count):
            counts[at] += 1
            self.publish(names[at], msgspec.Raw(payload(stamp, counts[at], at)))
            at = (at + 1) % len(names)
        self.at = at

    async def published(self) -> list[int]:
        """How many events each topic has had."""
        return self.counts


class Driver:
    """Makes the object publish, and measures."""

    def __init__(self, app: App, clients: int) -> None:
        if app.swarm is None:
            raise RuntimeError("the service has not started")
        self._swarm = app.swarm
        self._clients = clients
        kind, _, name = STREAM.partition("/")
        self._game = self._swarm.get(kind, name)
        self._quiet = self._swarm.get(kind, "quiet")
        self._published = 0

    async def run(
        self,
        bursts: int,
        burst: int,
        warm: int,
        rate: float | None,
        timeout_s: float,
        *,
        profile: bool,
        delivered: bool,
    ) -> dict[str, Any]:
        """Publish what nobody reads, then (if `delivered`) `warm` bursts unmeasured, then those that count."""
        answer: dict[str, Any] = {"stuck": True, "profile": ""}
        with trio.move_on_after(timeout_s):
            cpu = time.process_time()
            await self._bursts(self._quiet, bursts, burst, rate)
            answer["alone_cpu_s"] = time.process_time() - cpu
            if delivered:
                await self._bursts(self._game, warm, len(BenchGame.topics), None, timed=False)
                broadcaster = self._swarm.streams.broadcaster
                before = broadcaster.statistics()
                with _profiled(on=profile) as text:
                    answer["began_ns"], cpu = time.monotonic_ns(), time.process_time()
                    looking = await self._bursts(self._game, bursts, burst, rate)
                    answer["cpu_s"] = time.process_time() - cpu - looking
                after = broadcaster.statistics()
                answer["looking_cpu_s"] = looking
                answer["writes"] = after.writes - before.writes
                answer["passes"] = after.passes - before.passes
                answer["profile"] = text.getvalue()
            answer["stuck"] = False
        answer["counts"] = await self._game.published()
        return answer

    async def _bursts(
        self, game: Reference, bursts: int, burst: int, rate: float | None, *, timed: bool = True
    ) -> float:
        """Publish, each burst when the one before is delivered, or at `rate` a second; return what looking took."""
        began = trio.current_time()
        writes = self._swarm.streams.broadcaster.statistics().writes
        looking = 0.0
        for index in range(bursts):
            await game.burst(burst, timed=timed)
            if game is self._game:
                writes += readers(self._clients, len(BenchGame.topics), self._published, burst)
                self._published += burst
                if rate is None or index + 1 == bursts:
                    looking += await self._delivered(writes)
            if rate is not None:
                await trio.sleep_until(began + (index + 1) / rate)
        return looking

    async def _delivered(self, writes: int) -> float:
        """Wait until all has been written; return the CPU seconds that looking at every reader took."""
        statistics = self._swarm.streams.broadcaster.statistics
        stream = self._swarm.streams.get(STREAM)
        everyone = len(BenchGame.topics) == 1
        spins, cost = 0, 0.0
        while True:
            if statistics().writes >= writes:
                if not everyone or stream is None:
                    return cost
                began = time.thread_time()
                behind = stream.behind()
                cost += time.thread_time() - began
                if not behind:
                    return cost
            spins += 1
            if spins <= _SPINS:
                await trio.lowlevel.checkpoint()
            else:
                await trio.sleep(_NAP_S)


@contextlib.contextmanager
def _profiled(*, on: bool) -> Iterator[io.StringIO]:
    text = io.StringIO()
    if not on:
        yield text
        return
    profiler = cProfile.Profile()
    profiler.enable()
    try:
        yield text
    finally:
        profiler.disable()
        pstats.Stats(profiler, stream=text).sort_stats("tottime").print_stats(35)


async def main() -> None:
    """Serve until the parent closes its line."""
    raise_file_limit()
    options = json.loads(sys.argv[2])
    if options["topics"]:
        BenchGame.topics = topic_names(options["topics"])
    limits = Limits(connections=max(Limits().connections, options["clients"] + 10))
    settings = attrs.evolve(Settings(), bind="127.0.0.1:0", limits=limits)
    app = create_app([BenchGame], settings=settings)
    over = trio.Event()
    line = trio.SocketStream(trio.socket.from_stdlib_socket(inherited_line().sock))

    async def tell(message: dict[str, Any]) -> None:
        await line.send_all(json.dumps(message).encode() + b"\n")

    async with trio.open_nursery() as nursery:
        urls = await nursery.start(functools.partial(serve, app, settings, shutdown_trigger=over.wait))
        await tell({"urls": list(urls)})
        driver = Driver(app, options["clients"])
        async for data in line:  # a question comes whole: the parent waits for each answer
            message = json.loads(data)
            await tell(await driver.run(**message))
        over.set()


if __name__ == "__main__":
    with seldom_collected():  # as `trio-swarm serve` does
        trio.run(main)
