"""All streams of a runtime, by name.

A stream lives as long as its object. After that it is *idle*: its journal answers clients that come back, until its
retention age is over or until more idle journals than allowed, in number or bytes, push it out (least recently used
first).
"""

from collections import OrderedDict
from collections.abc import Callable

import attrs
import trio

from trio_swarm.bounded.allowance import Allowance, AllowanceStatistics
from trio_swarm.fanout.broadcaster import Broadcaster, BroadcasterStatistics
from trio_swarm.fanout.footprints import Footprints
from trio_swarm.fanout.stream import Stream, StreamStatistics
from trio_swarm.fanout.view import RangeCache
from trio_swarm.journal.clock import IdClock
from trio_swarm.journal.journal import Journal
from trio_swarm.settings import BLANK_JOURNALS, JournalSettings, Limits

SWEEP_S = 10.0  # retention by age is exact on every read; this only frees memory


@attrs.frozen
class StreamsStatistics:
    """A moment of all streams."""

    live: int
    idle: int
    live_bytes: int  # of journals, as `Journal.footprint` estimates them
    idle_bytes: int
    subscribed_topics: AllowanceStatistics
    shared_range_bytes: int
    range_hits: int  # ranges that were encoded already, since the beginning
    range_misses: int
    broadcaster: BroadcasterStatistics
    streams: tuple[StreamStatistics, ...]


class Streams:
    """See the module.

    Args:
        clock: where the ids come from; a new journal begins at its next id.
        limits: of journals, topics, keys and shared ranges.
        now: seconds, for retention by age.
    """

    def __init__(self, clock: IdClock, limits: Limits, now: Callable[[], float] = trio.current_time) -> None:
        self._clock = clock
        self._limits = limits
        self._now = now
        self._live: dict[str, Stream] = {}
        self._idle: OrderedDict[str, tuple[Stream, float]] = OrderedDict()  # with the moment when its age is over
        self._blank: OrderedDict[str, tuple[Stream, float]] = OrderedDict()  # idle too, but nothing was published
        self._ages: dict[str, float] = {}
        self._cache = RangeCache(limits.shared_range_bytes)
        self._footprints = Footprints(limits.live_journal_bytes)
        self._interest = Allowance(limits.subscribed_topics)
        self.broadcaster = Broadcaster()

    def open(
        self, name: str, *, journal: JournalSettings, latest: Callable[[str], bool], recalled: bool = True
    ) -> Stream:
        """The stream of an object that starts: the one it had, if that is still kept.

        `recalled`: a new one begins without a history; else whoever opens it calls `Stream.recall`.
        """
        stream = self._live.get(name)
        if stream is not None:
            return stream
        kept = self._idle.pop(name, None) or self._blank.pop(name, None)
        if kept is None:
            made = Journal(
                start=self._clock.next(),
                settings=journal,
                topics_limit=self._limits.topics_per_journal,
                keys_limit=self._limits.keys_per_journal,
                latest=latest,
            )
            stream = Stream(
                name,
                made,
                self.broadcaster,
                self._now,
                self._cache,
                self._footprints,
                self._interest,
                recalled=recalled,
            )
        else:
            stream = kept[0]
        self._live[name] = stream
        self._footprints.note(stream.journal)
        self._ages[name] = journal.age_s
        return stream

    def release(self, name: str) -> None:
        """The object has stopped: keep its journal for those who come back. Idempotent.

        Who still reads is ended: an object stops without readers, except at the end of the runtime.
        """
        stream = self._live.pop(name, None)
        if stream is None:
            return
        age = self._ages.pop(name)
        stream.ask_snapshot = None
        stream.on_demand = None
        stream.end()
        self._footprints.drop(stream.journal)
        # Blank ones are kept apart, so that asking for names at random pushes nobody's history out.
        kept = self._idle if stream.journal.head else self._blank
        kept[name] = (stream, self._now() + age)
        self._trim()

    def get(self, name: str) -> Stream | None:
        """A live or idle stream, if there is one."""
        stream = self._live.get(name)
        for kept in (self._idle, self._blank):
            if stream is None and name in kept:
                kept.move_to_end(name)
                stream = kept[name][0]
        return stream

    def sweep(self) -> None:
        """Free what is past its age."""
        now = self._now()
        for stream in self._live.values():
            stream.journal.expire(now)
            self._footprints.note(stream.journal)
        for kept in (self._idle, self._blank):
            for name in [name for name, (_, until) in kept.items() if until <= now]:
                del kept[name]

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Broadcast and sweep until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.broadcaster.run)
            task_status.started()
            while True:
                await trio.sleep(SWEEP_S)
                self.sweep()

    def statistics(self) -> StreamsStatistics:
        """A moment of all streams."""
        return StreamsStatistics(
            live=len(self._live),
            idle=len(self._idle) + len(self._blank),
            live_bytes=self._footprints.total,
            idle_bytes=sum(stream.journal.footprint for stream, _ in self._idle.values()),
            subscribed_topics=self._interest.statistics(),
            shared_range_bytes=self._cache.bytes,
            range_hits=self._cache.hits,
            range_misses=self._cache.misses,
            broadcaster=self.broadcaster.statistics(),
            streams=tuple(stream.statistics() for stream in self._live.values()),
        )

    def _trim(self) -> None:
        while len(self._blank) > BLANK_JOURNALS:
            self._blank.popitem(last=False)
        held = sum(stream.journal.footprint for stream, _ in self._idle.values())
        while self._idle and (len(self._idle) > self._limits.journals or held > self._limits.idle_journal_bytes):
            _, (oldest, _) = self._idle.popitem(last=False)
            held -= oldest.journal.footprint
