"""The clock that gives event ids: it rises always, whatever the machine's clock does.

An id is a promise to clients: what they resume by must never be given twice, not even by the next process. Inside
one process it is enough never to step back. Across a restart the last id may be lost with the process, so the clock
works below a *ceiling* that was written to storage beforehand: no id reaches it, and the next process begins above
it. The ceiling is raised 10 s at a time, 5 s before it is met; a write that comes too late costs nothing but
counters, because at the ceiling the milliseconds stand still and the counter goes on.
"""

from collections.abc import Callable

from trio_swarm.journal.event import EventId

RESERVE_MS = 10_000  # one small write every 5 to 10 s; a restart skips at most this much of time
RENEW_MS = 5_000  # how long before the ceiling the next reservation is due: a slow disk's worst second, several times


class IdClock:
    """Gives event ids, strictly rising.

    Args:
        now_ms: the wall clock, in milliseconds; it may jump either way.
        mark_ms: the last ceiling that storage holds; 0 when there is none. Every id lies above it.
    """

    __slots__ = ("_ceiling_ms", "_counter", "_ms", "_now_ms", "mark_ms")

    def __init__(self, now_ms: Callable[[], int], mark_ms: int = 0) -> None:
        self.mark_ms = mark_ms
        self._now_ms = now_ms
        self._ms = mark_ms + 1
        self._counter = -1
        self._ceiling_ms = 0  # none yet

    @property
    def ceiling_ms(self) -> int:
        """The reserved mark, 0 before the first reservation."""
        return self._ceiling_ms

    def now_ms(self) -> int:
        """The wall clock."""
        return self._now_ms()

    def next(self) -> EventId:
        """The next id.

        Raises:
            RuntimeError: nothing was reserved yet.
        """
        ms = self._now_ms()
        if ms >= self._ceiling_ms:
            if not self._ceiling_ms:
                raise RuntimeError("an id before the first reservation could be given twice: call reserved() first")
            ms = self._ceiling_ms - 1
        if ms > self._ms:
            self._ms = ms
            self._counter = 0
        else:
            self._counter += 1
        return EventId(self._ms, self._counter)

    def needs_reservation(self) -> int | None:
        """The ceiling to write to storage next, or None while the present one is far enough away."""
        now_ms = self._now_ms()
        # Ids that are ahead of the wall clock stand there and count: one millisecond is room enough. Were the whole
        # reservation put on top of the last one, a process that is killed again and again would run away from the
        # clock, and with it the age of what is kept.
        return max(now_ms + RESERVE_MS, self._ms + 1) if now_ms >= self._ceiling_ms - RENEW_MS else None

    def reserved(self, until_ms: int) -> None:
        """Storage holds `until_ms` as the mark. A lower one than before changes nothing.

        Raises:
            ValueError: the first reservation is not above the mark of the last process.
        """
        if until_ms <= self._ms and not self._ceiling_ms:
            raise ValueError(f"a reservation up to {until_ms} holds no id above {self._ms - 1}")
        self._ceiling_ms = max(self._ceiling_ms, until_ms)
