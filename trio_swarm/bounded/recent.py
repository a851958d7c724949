"""What happened lately, by name: a map that forgets by age and by number.

It knows a repeated message, a repeated publish, a client that was here a moment ago. Beyond the limit the entry
unused for longest goes, so a flood of names shortens the memory instead of growing it.
"""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from cachetools import TTLCache

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """At most `limit` entries, each for `seconds` from when it was put.

    Args:
        limit: entries.
        seconds: how long an entry lives; reading does not renew it, putting it again does.
        now: the clock, in seconds.
    """

    __slots__ = ("_cache",)

    def __init__(self, limit: int, seconds: float, now: Callable[[], float]) -> None:
        self._cache: TTLCache[K, V] = TTLCache(maxsize=limit, ttl=seconds, timer=now)

    def __len__(self) -> int:
        return len(self._cache)

    def __contains__(self, key: K) -> bool:
        return key in self._cache

    def get(self, key: K) -> V | None:
        """What was put under this name, None when it is gone or never was."""
        return self._cache.get(key)

    def put(self, key: K, value: V) -> None:
        """Remember."""
        self._cache[key] = value

    def forget(self, key: K) -> None:
        """Forget at once; nothing happens when it is gone already."""
        self._cache.pop(key, None)
