"""When an alarm is due: moments on the wall clock, in milliseconds since 1970."""

import math
from datetime import datetime
from typing import Final

FAREST_MS: Final = 253_402_300_800_000  # the year 10000: what is later is a mistake, or milliseconds for seconds


def due_at(at: datetime | float | None, after: float | None, now_ms: int) -> int:
    """The moment that `at` or `after` means.

    Raises:
        ValueError: neither or both are given, or it is no moment.
    """
    if (at is None) == (after is None):
        raise ValueError("an alarm is set for a moment: give `at=` or `after=`, and not both")
    if isinstance(at, datetime):
        if at.utcoffset() is None:
            raise ValueError(f"{at!r} has no time zone: not `datetime.now()`, but `datetime.now(UTC)`")
        at = at.timestamp()
    seconds = at if at is not None else after
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not abs(seconds) < FAREST_MS:
        raise ValueError(f"{seconds!r:.80} is no moment: give seconds, or a datetime with a time zone")
    due_ms = math.ceil(seconds * 1000) + (now_ms if at is None else 0)
    if due_ms > FAREST_MS:
        raise ValueError(f"{seconds!r} lies beyond the year 9999: it is in seconds, not in milliseconds")
    return max(0, due_ms)
