"""What the journals of live objects cost together, and what gives way when that is too much.

Each journal has bounds of its own, but a thousand objects, each at its bound, are more than a machine has. When all
of them pass one number, the largest journal forgets the older half of its events, then the one that is largest now,
until there is room again for a while. Readers who needed what is gone are told of a gap, as with any forgetting.
"""

import heapq
from typing import Final

from trio_swarm.journal.journal import Journal

ROOM: Final = 0.9  # of the limit: what is freed at once must last for more than the next event


class Footprints:
    """See the module. At most `limit` bytes, the newest event of each journal excepted."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: dict[Journal, int] = {}
        self.total = 0

    def note(self, journal: Journal) -> None:
        """This journal has changed."""
        now = journal.footprint
        self.total += now - self._known.get(journal, 0)
        self._known[journal] = now
        if self.total > self._limit:
            self._make_room()

    def drop(self, journal: Journal) -> None:
        """This journal's object is gone. Idempotent."""
        self.total -= self._known.pop(journal, 0)

    def _make_room(self) -> None:
        heap = [(-size, order, journal) for order, (journal, size) in enumerate(self._known.items())]
        heapq.heapify(heap)
        while heap and self.total > self._limit * ROOM:
            size, order, journal = heapq.heappop(heap)
            journal.shrink()
            now = journal.footprint
            self.total += now + size
            self._known[journal] = now
            if now < -size:
                heapq.heappush(heap, (-now, order, journal))
