"""When a feed that failed is tried again, and when it is down. Pure.

A failure is followed by a quick restart (full jitter under a ceiling that doubles), `quick_restarts` times; after
that the feed is down, and a probe goes out every `backoff_max_s` until one gets through. What is counted:

- restarts since the last success, however long each took: a peer that hangs in every handshake for 30 s is down after
  two minutes, although no 60 s of them hold three restarts;
- and those of the last `window_s`, success or not: a peer that accepts and hangs up at once is found out.

A success clears the backoff (the next delay is short again); what it does not clear is the memory of the window.
"""

import random
from collections import deque

import attrs

from trio_swarm.settings import UpstreamSettings
from trio_swarm.supervise.backoff import Backoff


@attrs.frozen
class Retry:
    """What follows a failure: how long to wait, and whether the feed counts as down meanwhile."""

    delay_s: float
    down: bool


class Restarts:
    """The restarts of one feed; see the module. `now` is seconds that never go back."""

    def __init__(self, settings: UpstreamSettings, rng: random.Random) -> None:
        self._settings = settings
        self._backoff = Backoff(settings.backoff_initial_s, settings.backoff_max_s, rng)
        self._restarts: deque[float] = deque(maxlen=max(1, settings.quick_restarts))
        self._succeeded = True  # a new feed has failed nowhere yet

    def succeeded(self) -> None:
        """A connection came up."""
        self._succeeded = True
        self._backoff.reset()

    def failed(self, now: float) -> Retry:
        """A connection, or the attempt to make one, ended."""
        if self._succeeded:
            while self._restarts and now - self._restarts[0] >= self._settings.window_s:
                self._restarts.popleft()
        self._succeeded = False
        if len(self._restarts) >= self._settings.quick_restarts:
            return Retry(self._settings.backoff_max_s, down=True)
        self._restarts.append(now)
        return Retry(self._backoff.next(), down=False)
