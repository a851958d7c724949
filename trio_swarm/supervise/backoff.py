"""How long to wait before the next attempt: full jitter under a ceiling that doubles.

A delay is drawn evenly between nothing and the ceiling, so that many who fell together (an exchange went away, a
store restarted) come back spread over the whole span and not in one wave. The first ceiling is `initial`, each next
one twice the last, up to `maximum`.
"""

import random

from trio_swarm.errors import SettingsError


class Backoff:
    """The delays of one supervised thing. Pure: it never sleeps, and draws from the `rng` it is given."""

    def __init__(self, initial: float, maximum: float, rng: random.Random) -> None:
        if not 0 < initial <= maximum:
            raise SettingsError("backoff", f"needs 0 < initial <= maximum, not {initial} and {maximum}")
        self._initial = initial
        self._maximum = maximum
        self._rng = rng
        self._ceiling = initial

    @property
    def ceiling(self) -> float:
        """The longest that the next delay can be, in seconds."""
        return self._ceiling

    @property
    def fresh(self) -> bool:
        """Whether nothing was drawn since the beginning or the last `reset`."""
        return self._ceiling == self._initial

    def next(self) -> float:
        """Draw the next delay, in seconds, and double the ceiling."""
        delay = self._rng.uniform(0.0, self._ceiling)
        self._ceiling = min(self._ceiling * 2, self._maximum)
        return delay

    def reset(self) -> None:
        """It works again: the next delay is short."""
        self._ceiling = self._initial
