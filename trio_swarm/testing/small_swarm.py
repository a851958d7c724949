"""Objects and fan-out alone, without an edge or feeds: what tests of objects need."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from trio_swarm.fanout.streams import Streams
from trio_swarm.journal.clock import IdClock
from trio_swarm.objects.directory import Directory
from trio_swarm.objects.durable import DurableObject
from trio_swarm.settings import Settings
from trio_swarm.storage import Storage
from trio_swarm.storage.memory import MemoryStorage

_CENTURY_MS = 100 * 365 * 86_400_000


@asynccontextmanager
async def open_directory(
    *kinds: type[DurableObject],
    storage: Storage | None = None,
    settings: Settings | None = None,
    rng: random.Random | None = None,
    mark_ms: int = 0,
) -> AsyncIterator[Directory]:
    """A running directory; on a `MockClock` everything in it takes virtual time only. Leaving it ends the objects.

    Ids follow Trio's clock, above `mark_ms`: give it where this stands for a second process over one store. What the
    body raises is raised as it is, not in a group.
    """
    settings = settings or Settings()
    clock = IdClock(lambda: int(trio.current_time() * 1000), mark_ms)
    clock.reserved(_CENTURY_MS)
    streams = Streams(clock, settings.limits)
    directory = Directory(
        kinds,
        streams=streams,
        storage=storage or MemoryStorage(),
        clock=clock,
        settings=settings,
        rng=rng or random.Random(0),  # noqa: S311 - jitter
    )
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(lambda task_status: streams.run(task_status=task_status))
        await nursery.start(lambda task_status: directory.run(task_status=task_status))
        try:
            yield directory
        except Exception as error:  # noqa: BLE001 - it is raised again below
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
