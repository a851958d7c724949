"""A view: the readers of one stream who want the same topics in the same encoding. They share every byte.

A view gives the range that follows a position. Ranges that are cut at a journal boundary never change, so they are
kept in a cache that all views share, bounded in bytes: a thousand laggards at one position cost one encoding. What the
journal has forgotten goes from there too, for nobody will be given it. A range that ends at the head is not kept: the
next event would make it stale.
"""

from typing import TYPE_CHECKING, Any, Final

from cachetools import LRUCache

from trio_swarm.fanout.encoding import Encoding
from trio_swarm.journal.event import Event, EventId
from trio_swarm.journal.journal import Journal
from trio_swarm.settings import RANGE_BYTES

if TYPE_CHECKING:
    from trio_swarm.fanout.subscription import Subscription

Topics = frozenset[str] | None  # None: all of them

NOTHING: Final = object()  # in place of a payload: no event of these topics lies there
LOST: Final = object()  # in place of a payload: something a reader there has not had is forgotten

# payload (or NOTHING, LOST), the position after it, that position's id, and how many events the payload has
Step = tuple[Any, int, EventId, int]

_RANGE_OVERHEAD = 200  # bytes of key, tuple and object headers that a kept range costs beside its payload


class RangeCache:
    """Encoded ranges by (view, position), least recently used first out, bounded in bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self._steps: LRUCache[tuple[int, int] | tuple[str, str, EventId], Step] = LRUCache(limit_bytes, getsizeof=_size)
        self.hits = 0
        self.misses = 0  # ranges that end at the head, and are never kept, among them

    def get(self, view: "View", position: int) -> Step | None:
        """The range kept for a view at a position."""
        step = self._steps.get((view.serial, position))
        if step is None:
            self.misses += 1
        else:
            self.hits += 1
        return step

    def keep(self, view: "View", position: int, step: Step) -> None:
        """Keep a range that will not change; others may have to go for it."""
        if _size(step) <= self._steps.maxsize:
            self._steps[view.serial, position] = step

    def large(self, view: "View", event: Event) -> Any:
        """The payload of an event that goes alone: one for all views of its format, whatever else they read.

        Slow clients hold on to it, each in a view of its own perhaps: ten thousand copies of 4 MiB are 40 GiB.
        """
        key = view.encoding.name, view.stream, event.id
        step = self._steps.get(key)
        if step is None:
            step = view.encoding.events(view.stream, (event,)), event.seq, event.id, 1
            if _size(step) <= self._steps.maxsize:
                self._steps[key] = step
        return step[0]

    def drop(self, view: "View", position: int) -> None:
        """Forget a range, if it is still kept."""
        self._steps.pop((view.serial, position), None)

    @property
    def bytes(self) -> int:
        """What is kept now, headers included."""
        return int(self._steps.currsize)


def _size(step: Step) -> int:
    payload = step[0]
    if isinstance(payload, bytes):
        return len(payload) + _RANGE_OVERHEAD
    # texts, or events that the journal mostly still holds: counted as though they were held here alone
    return sum(len(part) if isinstance(part, str) else len(part.data) for part in payload) + _RANGE_OVERHEAD


class View:
    """See the module. `serial` is unique in the process, so that a key of the cache is never another view's."""

    __slots__ = ("_cache", "_kept", "encoding", "journal", "readers", "serial", "stream", "topics")

    def __init__(
        self, stream: str, journal: Journal, topics: Topics, encoding: Encoding, serial: int, cache: RangeCache
    ) -> None:
        self.stream = stream
        self.topics = topics
        self.encoding = encoding
        self.serial = serial
        self.readers: dict[Subscription, None] = {}
        self.journal = journal
        self._cache = cache
        self._kept: set[int] = set()  # positions whose ranges are in the cache, or were

    def close(self) -> None:
        """Nobody reads here any more: give back the cache's room."""
        for position in self._kept:
            self._cache.drop(self, position)
        self._kept.clear()

    def step(self, position: int) -> Step:
        """The range that a reader at this position is given next."""
        journal = self.journal
        if journal.lost(position, self.topics):
            return LOST, journal.head, journal.head_id, 0
        found = self._cache.get(self, position)
        if found is not None:
            return found
        taken = journal.read(position, self.topics)
        if not taken.events:
            return NOTHING, taken.end, journal.head_id, 0
        first = taken.events[0]
        if len(first.data) > RANGE_BYTES:
            id_ = journal.head_id if taken.end == journal.head else first.id
            return self._cache.large(self, first), taken.end, id_, 1
        payload = self.encoding.events(self.stream, taken.events)
        if taken.end == journal.head:
            return payload, taken.end, journal.head_id, len(taken.events)
        step = payload, taken.end, taken.events[-1].id, len(taken.events)
        forgotten = journal.head - len(journal)
        for gone in [kept for kept in self._kept if kept < forgotten]:
            self._kept.discard(gone)
            self._cache.drop(self, gone)
        self._kept.add(position)
        self._cache.keep(self, position, step)
        return step
