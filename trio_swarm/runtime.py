"""The runtime: one root nursery that joins all the rest.

    open_swarm()
    |-- the id clock          reserves its high-water mark ahead in storage
    |-- streams               the broadcaster, and the sweep of old history
    `-- the directory         every live object, with its timers, feeds and readers

Leaving the scope ends the objects first (their `stop` runs, with a deadline), then the streams, then closes the
store: whatever raised, hung or was cancelled on the way.
"""

import random
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import attrs
import structlog
import trio

from trio_swarm.errors import StorageError, SwarmError
from trio_swarm.fanout.streams import Streams, StreamsStatistics
from trio_swarm.health.budget import make_budget
from trio_swarm.health.statistics import ServiceStatistics, Sources
from trio_swarm.journal.clock import IdClock
from trio_swarm.live.channel import Channel
from trio_swarm.live.swarm_hub import SwarmHub, hub_class
from trio_swarm.objects.directory import Directory
from trio_swarm.objects.durable import DurableObject
from trio_swarm.objects.reference import Reference
from trio_swarm.settings import Settings
from trio_swarm.storage import Storage
from trio_swarm.storage.opening import open_storage

_log = structlog.get_logger("trio_swarm")

_RESERVE_EVERY_S = 1.0  # the clock reserves 10 s ahead and asks from 5 s before the end: four tries at least


@attrs.frozen
class SwarmStatistics:
    """A moment of the whole runtime."""

    streams: StreamsStatistics
    directory: Any


class Swarm:
    """A running swarm. Made by `open_swarm` only."""

    def __init__(self, settings: Settings, directory: Directory, streams: Streams, storage: Storage) -> None:
        self.settings = settings
        self.directory = directory
        self.streams = streams
        self.storage = storage
        self.clients: Callable[[], list[dict[str, Any]]] | None = None  # set by whoever serves clients from outside
        served, shipped = directory.kinds.values(), {Channel.kind, SwarmHub.kind}  # the budget counts these itself
        self._budget = make_budget(settings, [kind.journal for kind in served if kind.name not in shipped])
        self.sources = Sources(trio.current_time)  # whoever serves clients adds its own
        self.sources.add("streams", streams.statistics)
        self.sources.add("directory", directory.statistics)
        self.sources.add("alarms", directory.alarms.statistics)
        self.sources.add("kinds", directory.kind_statistics)
        self.sources.add("objects", lambda: tuple(host.statistics() for host in directory.hosts()))
        told = getattr(storage, "statistics", None)
        if told is not None:
            self.sources.add("storage", told)

    def get(self, kind: type[DurableObject] | str, id: str) -> Reference:
        """The object of this kind and id. It starts when it is first used, not before.

        Raises:
            UnknownKind, InvalidName: there can be no such object here.
        """
        return self.directory.get(kind, id)

    def tree(self) -> dict[str, Any]:
        """The whole tree as plain data.

        `runtime` (the store, live and idle streams), `kinds` (each with its objects by id: state, turns, mailbox,
        timers, feeds and tasks, journal, topics that readers name, subscribers), and `clients` (transport, address,
        streams).
        """
        streams = self.streams.statistics()
        return {
            "runtime": {"store": self.settings.store, "live_streams": streams.live, "idle_streams": streams.idle},
            "kinds": self.directory.tree(),
            "clients": [] if self.clients is None else self.clients(),
        }

    def statistics(self) -> SwarmStatistics:
        """A moment of the runtime alone."""
        return SwarmStatistics(self.streams.statistics(), self.directory.statistics())

    def tell(self, with_tree: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - the shape of health.control.Tell
        """What the control socket shows: all statistics, the budget, and the tree if it is wanted."""
        counted = self._budget
        told: dict[str, Any] = {
            "version": version("trio-swarm"),
            "bind": self.settings.bind,
            "budget": {"bytes": counted.total, "kernel_bytes": counted.kernel_total},
            "statistics": self.gather().plain(),
        }
        if with_tree:
            told["tree"] = self.tree()
        return told

    def gather(self) -> ServiceStatistics:
        """A moment of everything that has something to tell: see `health.statistics` for the names."""
        return self.sources.gather()


@asynccontextmanager
async def open_swarm(
    objects: Iterable[type[DurableObject]] = (),
    *,
    settings: Settings | None = None,
    storage: Storage | None = None,
    rng: random.Random | None = None,
    now_ms: Callable[[], int] | None = None,
) -> AsyncIterator[Swarm]:
    """Run a swarm for as long as the scope lasts.

    Args:
        objects: the classes to serve, besides `channel` and (with feeds in the settings) `hub`.
        settings: limits, journals, feeds; the defaults where None.
        storage: where objects keep their state; by default what `settings.store` says.
        rng: for jitter; give a seeded one to make a test repeatable.
        now_ms: the wall clock, for event ids and alarms; give `lambda: int(trio.current_time() * 1000)` where a test
            has time go by at will.

    Raises:
        SettingsError: the settings do not add up, or a class does not.

    What the body raises comes out as it is; a fault of the runtime's own comes out in an exception group.
    """
    settings = settings or Settings()
    rng = rng or random.Random()  # noqa: S311 - jitter, not secrets
    kinds = [*objects]
    names = {cls.kind for cls in kinds}
    if Channel.kind not in names:
        kinds.append(Channel)
    if settings.feed and SwarmHub.kind not in names:
        kinds.append(hub_class(settings.feed, settings.upstream, settings.limits, grace_s=settings.objects.grace_s))
    raised: BaseException | None = None
    store = storage or await open_storage(settings.store, settings.limits)  # last: from here on it is closed
    try:
        clock = IdClock(now_ms or _wall_clock_ms, await store.clock_mark())
        await _reserve(clock, store)
        streams = Streams(clock, settings.limits)
        directory = Directory(kinds, streams=streams, storage=store, clock=clock, settings=settings, rng=rng)
        started = False
        try:
            async with trio.open_nursery() as outer:
                outer.start_soon(_keep_reserving, clock, store)
                await outer.start(streams.run)
                async with trio.open_nursery() as inner:
                    await inner.start(directory.run)
                    started = True
                    try:
                        yield Swarm(settings, directory, streams, store)
                    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - raised again below, bare
                        raised = error
                    inner.cancel_scope.cancel()
                outer.cancel_scope.cancel()
        except BaseException as error:
            if raised is not None:
                both = [raised, error]  # a cancellation is in there, where Trio finds it
                raise BaseExceptionGroup("the body and the runtime both failed", both) from None  # noqa: ASYNC104
            reason = leaf(error)
            if not started and isinstance(reason, SwarmError):
                raise reason from None  # noqa: ASYNC104 - of no more than a start
            raise
        if raised is not None:
            raise raised
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(settings.liveness.shutdown_s):
            await store.aclose()


def leaf(error: BaseException) -> BaseException:
    """The one error in a group of groups; the group itself where it holds several."""
    while isinstance(error, BaseExceptionGroup):
        rest = error.split(trio.Cancelled)[1]
        if rest is None or len(rest.exceptions) != 1:
            break
        error = rest.exceptions[0]
    return error


def _wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


async def _reserve(clock: IdClock, store: Storage) -> None:
    until = clock.needs_reservation()
    if until is not None:
        await store.reserve_clock(until)
        clock.reserved(until)


async def _keep_reserving(clock: IdClock, store: Storage) -> None:
    while True:
        await trio.sleep(_RESERVE_EVERY_S)
        try:
            await _reserve(clock, store)
        except StorageError as error:
            # Ids go on below the mark that the store holds, by their counters, until it takes a new one.
            _log.warning("clock_reservation_failed", error=str(error))
