"""When to stop trying: a circuit breaker over crashes in a sliding window.

    closed --more than `limit` crashes in `window` seconds--> open
    open --`probe_after` seconds passed, `admits` asked--> half_open (one probe is under way)
    half_open --crash--> open          half_open --ok, or a crash after more than `window` seconds of life--> closed

Closed, everything is tried (after its backoff). Open, nothing is. Half open, one probe is: its end decides. A probe of
which nothing is heard for `probe_after` seconds counts as lost, and the next may go.
"""

from collections import deque
from typing import Literal

from trio_swarm.errors import SettingsError

BreakerState = Literal["closed", "open", "half_open"]


class Breaker:
    """Counts the crashes of one supervised thing. Pure: `now` (seconds, never going back) is an argument everywhere."""

    def __init__(self, limit: int, window: float, probe_after: float) -> None:
        if limit < 0 or window <= 0 or probe_after <= 0:
            raise SettingsError("breaker", f"needs limit >= 0 and positive times, not {limit}, {window}, {probe_after}")
        self.limit = limit
        self.window = window
        self.probe_after = probe_after
        self._crashes: deque[float] = deque(maxlen=limit + 1)
        self._state: BreakerState = "closed"
        self._since = 0.0  # when it opened, or when its probe was let through

    @property
    def state(self) -> BreakerState:
        """Where it stands; it moves only by `crash`, `ok` and `admits`."""
        return self._state

    def crashes(self, now: float) -> int:
        """How many crashes the window holds (never more than `limit + 1`)."""
        return sum(1 for at in self._crashes if now - at < self.window)

    def crash(self, now: float) -> BreakerState:
        """Something crashed; answers the state that follows."""
        if self._state == "half_open" and now - self._since >= self.window:
            self._close()  # it had come back long ago
        self._crashes.append(now)
        if self._state != "closed" or self.crashes(now) > self.limit:
            self._state, self._since = "open", now
        return self._state

    def ok(self, now: float) -> None:  # noqa: ARG002 - every move takes its moment
        """The probe came through. Says nothing while closed: crashes stay counted, so that what flaps is found."""
        if self._state == "half_open":
            self._close()

    def admits(self, now: float) -> bool:
        """May one attempt be made now? Where the answer makes it the probe, the breaker is half open from here."""
        if self._state == "closed":
            return True
        if now - self._since < self.probe_after:
            return False
        self._state, self._since = "half_open", now
        return True

    def retry_after(self, now: float) -> float:
        """Seconds until `admits` may say yes; 0 when it does already."""
        return 0.0 if self._state == "closed" else max(0.0, self._since + self.probe_after - now)

    def _close(self) -> None:
        self._state = "closed"
        self._crashes.clear()
