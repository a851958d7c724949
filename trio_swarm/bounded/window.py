"""Counting in a sliding window: so many in so many seconds, and no more."""

from collections import deque


class Window:
    """Says when something happens too often. Holds at most `limit` times.

    Args:
        limit: how many are in order within the window.
        seconds: the window's length.
    """

    __slots__ = ("_seconds", "_times")

    def __init__(self, limit: int, seconds: float) -> None:
        self._times: deque[float] = deque(maxlen=limit)
        self._seconds = seconds

    def hit(self, now: float) -> bool:
        """Count one; True when it is one more than allowed. Those over the limit count too: a flood stays over it."""
        times = self._times
        over = len(times) == times.maxlen and (not times or now - times[0] < self._seconds)
        times.append(now)
        return over
