"""A view: the readers of one stream who want the same topics in the same encoding. They share every byte.

A view gives the range that follows a position. Ranges that are cut at a journal boundary never change, so they are
kept in a cache that all views share, bounded in bytes: a thousand laggards at one position cost one encoding. What the
journal has forgotten goes from there too, for nobody will be given it. A range that ends at the head is not kept: the
next event would make it stale.
"""

from typing import TYPE_CHECKING, Any, Final

from cachetools import LRUCache

from trio_swarm.fanout.encoding import Encoding
from trio_swarm.journal.event import EventId
from trio_swarm.journal.journal import Journal

if TYPE_CHECKING:
    from trio_swarm.fanout.subscription import Subscription

Topics = frozenset[str] | None  # None: all of them

NOTHING: Final = object()  # in place of a payload: no event of these topics lies there
LOST: Final = object()  # in place of a payload: something a reader there has not had is forgotten

Step = tuple[Any, int, EventId]  # payload (or NOTHING, LOST), the position after it, that position's id

_RANGE_OVERHEAD = 200  # bytes of key, tuple and object headers that a kept range costs beside its payload


class RangeCache:
    """Encoded ranges by (view, position), least recently used first out, bounded in bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self._steps: LRUCache[tuple[int, int], Step] = LRUCache(limit_bytes, getsizeof=_size)

    def get(self, view: "View", position: int) -> Step | None:
        """The range kept for a view at a position."""
        return self._steps.get((view.serial, position))

    def keep(self, view: "View", position: int, step: Step) -> None:
        """Keep a range that will not change; others may have to go for it."""
        if _size(step) <= self._steps.maxsize:
            self._steps[view.serial, position] = step

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
            return LOST, journal.head, journal.head_id
        found = self._cache.get(self, position)
        if found is not None:
            return found
        taken = journal.read(position, self.topics)
        if not taken.events:
            return NOTHING, taken.end, journal.head_id
        payload = self.encoding.events(self.stream, taken.events)
        if taken.end == journal.head:
            return payload, taken.end, journal.head_id
        step = payload, taken.end, taken.events[-1].id
        forgotten = journal.head - len(journal)
        for gone in [kept for kept in self._kept if kept < forgotten]:
            self._kept.discard(gone)
            self._cache.drop(self, gone)
        self._kept.add(position)
        self._cache.keep(self, position, step)
        return step
