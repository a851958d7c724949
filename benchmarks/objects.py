"""What a turn costs: `.venv/bin/python benchmarks/objects.py` prints one JSON object.

Each figure is the median of rounds that take turns with a bare request and answer over two memory channels between two
tasks, which is the least that anything of this kind can cost on Trio. CPU time, not wall clock.
"""

import json
import statistics
import time
from collections.abc import Awaitable, Callable

import trio

from trio_swarm import DurableObject, exposed, open_swarm
from trio_swarm.journal.event import Draft, EventId
from trio_swarm.journal.journal import Journal
from trio_swarm.objects.durable import Deliver, Status
from trio_swarm.settings import JournalSettings

ROUNDS = 15
CALLS = 2_000  # a round: some 50 ms, long beside the clock's grain
MESSAGE = b'{"price":"29145.21","size":"0.0125","side":"buy"}'


class Counter(DurableObject):
    """Answers, stores, and publishes."""

    async def start(self) -> None:
        """Begin at nothing."""
        self.total = 0

    @exposed
    async def add(self, amount: int) -> int:
        """Change an attribute."""
        self.total += amount
        return self.total

    @exposed
    async def keep(self, amount: int) -> int:
        """Change what is stored."""
        self.total += amount
        self.storage.put("total", self.total)
        return self.total

    @exposed
    async def listen(self, count: int) -> None:
        """Open a feed of so many messages."""
        self.feed(Burst(count), pinned=True)

    async def on_message(self, feed: str, message: bytes) -> None:  # noqa: ARG002
        """Publish each message as it is."""
        self.publish_raw("price", message)


class Burst:
    """A feed that has everything at once."""

    name = "burst"

    def __init__(self, count: int) -> None:
        self._count = count

    async def run(self, deliver: Deliver, status: Status) -> None:
        """Deliver it all, then wait for the end."""
        status("live", None)
        for _ in range(self._count):
            await deliver(MESSAGE)
        await trio.sleep_forever()


async def bare() -> None:
    """A request and its answer over memory channels."""
    ask, asked = trio.open_memory_channel[int](1)
    answer, answered = trio.open_memory_channel[int](1)

    async def serve() -> None:
        total = 0
        async for amount in asked:
            total += amount
            await answer.send(total)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        for _ in range(CALLS):
            await ask.send(1)
            await answered.receive()
        ask.close()


def append_cost() -> float:
    """Microseconds for an append with eviction."""
    journal = Journal(start=EventId(1, 0), settings=JournalSettings(events=500))
    draft = Draft(MESSAGE, "price")
    begin = time.process_time()
    for number in range(20_000):
        journal.append(EventId(2, number), draft, 0.0)
    return (time.process_time() - begin) / 20_000 * 1e6


async def main() -> None:
    """Measure, print."""
    found: dict[str, list[float]] = {}

    async def measure(name: str, work: Callable[[], Awaitable[None]]) -> None:
        begin = time.process_time()
        await work()
        found.setdefault(name, []).append((time.process_time() - begin) / CALLS * 1e6)

    async with open_swarm(objects=[Counter]) as swarm:
        counter = swarm.get(Counter, "one")
        feeds = iter(range(ROUNDS))

        async def calls() -> None:
            for _ in range(CALLS):
                await counter.add(1)

        async def writes() -> None:
            for _ in range(CALLS):
                await counter.keep(1)

        async def messages() -> None:
            reference = swarm.get(Counter, f"feed {next(feeds)}")
            await reference.listen(CALLS)
            stream = swarm.streams.get(reference.stream_name)
            for _ in range(100 * CALLS):  # a look a turn of the loop, which the messages need too
                if stream is None or stream.journal.head >= CALLS:
                    break
                await trio.lowlevel.checkpoint()

        for _ in range(ROUNDS):
            await measure("bare_us", bare)
            await measure("call_us", calls)
            await measure("call_with_write_us", writes)
            await measure("message_published_us", messages)
    figures = {name: round(statistics.median(values), 2) for name, values in found.items()}
    figures["call_by_bare"] = round(figures["call_us"] / figures["bare_us"], 2)
    figures["journal_append_us"] = round(min(append_cost() for _ in range(5)), 2)
    print(json.dumps(figures))


if __name__ == "__main__":
    trio.run(main)
