"""The store that lives and ends with its process: for tests, for trying out, and where nothing need outlast a restart.

A commit is safe as soon as it is taken, so `submit` tells its outcome before it returns. All that is kept has a bound
in bytes; a commit that would pass it is refused whole, and with it all later ones of its incarnation.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from typing import Final

import attrs
import trio
from cachetools import LRUCache

from trio_swarm.errors import StorageError
from trio_swarm.settings import REFUSED_LIVES, Limits
from trio_swarm.storage import Commit, Done, Owner

ENTRY_BYTES: Final = 200  # what a pair costs beside its key and value: two objects, a dict slot, a place in the order


@attrs.frozen
class MemoryStatistics:
    """A moment of the store; `commits` and `refused` count from the beginning."""

    owners: int
    keys: int
    bytes: int
    commits: int
    refused: int


@attrs.define(eq=False)
class _Owned:
    """One object's pairs, and its keys in order."""

    values: dict[str, bytes] = attrs.Factory(dict)
    order: list[str] = attrs.Factory(list)

    def growth(self, commit: Commit) -> int:
        """How many bytes more a commit would make of it."""
        gone = self.values if commit.clear else {key: self.values[key] for key in commit.changes if key in self.values}
        come = sum(_size(key, value) for key, value in commit.changes.items() if value is not None)
        return come - sum(_size(key, value) for key, value in gone.items())

    def apply(self, commit: Commit) -> None:
        """Make the changes."""
        if commit.clear:
            self.values.clear()
            self.order.clear()
        for key, value in commit.changes.items():
            if value is not None:
                if key not in self.values:
                    insort(self.order, key)
                self.values[key] = value
            elif self.values.pop(key, None) is not None:
                del self.order[bisect_left(self.order, key)]


class MemoryStorage:
    """See the module; fills the `Storage` protocol.

    Args:
        limit_bytes: for all objects together; by default as the settings say (64 MiB).
    """

    def __init__(self, limit_bytes: int = Limits().memory_store_bytes) -> None:
        self._limit = limit_bytes
        self._owned: dict[Owner, _Owned] = {}
        self._refused: LRUCache[Owner, int] = LRUCache(REFUSED_LIVES)  # the newest incarnation that was refused
        self._bytes = 0
        self._clock_mark = 0
        self._commits = 0
        self._refusals = 0

    def submit(self, commit: Commit, done: Done) -> None:
        """See `Storage.submit`: the outcome is told at once."""
        error = self._apply(commit)
        self._commits += error is None
        self._refusals += error is not None
        done(error)

    async def get_many(self, owner: Owner, keys: Sequence[str]) -> dict[str, bytes]:
        """See `Storage.get_many`."""
        await trio.lowlevel.checkpoint()
        owned = self._owned.get(owner)
        return {} if owned is None else {key: owned.values[key] for key in keys if key in owned.values}

    async def scan(
        self, owner: Owner, prefix: str, start: str | None, limit: int, *, reverse: bool = False
    ) -> list[tuple[str, bytes]]:
        """See `Storage.scan`."""
        await trio.lowlevel.checkpoint()
        owned = self._owned.get(owner)
        if owned is None:
            return []
        order = owned.order
        if reverse:
            end = len(order) if start is None else bisect_right(order, start)
            keys = (order[n] for n in range(end - 1, -1, -1))
        else:
            first = bisect_left(order, prefix if start is None else max(start, prefix))
            keys = (order[n] for n in range(first, len(order)))
        found: list[tuple[str, bytes]] = []
        for key in keys:
            if len(found) >= limit or (key < prefix if reverse else key > prefix and not key.startswith(prefix)):
                break
            if key.startswith(prefix):
                found.append((key, owned.values[key]))
        return found

    async def clock_mark(self) -> int:
        """See `Storage.clock_mark`."""
        await trio.lowlevel.checkpoint()
        return self._clock_mark

    async def reserve_clock(self, until_ms: int) -> None:
        """See `Storage.reserve_clock`."""
        await trio.lowlevel.checkpoint()
        self._clock_mark = max(self._clock_mark, until_ms)

    async def aclose(self) -> None:
        """See `Storage.aclose`: what was kept is gone."""
        await trio.lowlevel.checkpoint()
        self._owned.clear()
        self._bytes = 0

    def statistics(self) -> MemoryStatistics:
        """A moment of the store."""
        keys = sum(len(owned.order) for owned in self._owned.values())
        return MemoryStatistics(len(self._owned), keys, self._bytes, self._commits, self._refusals)

    def _apply(self, commit: Commit) -> StorageError | None:
        if commit.incarnation <= self._refused.get(commit.owner, 0):
            return StorageError("an earlier commit of this incarnation was refused")
        owned = self._owned.get(commit.owner) or _Owned()
        grown = owned.growth(commit)
        if grown > 0 and self._bytes + grown > self._limit:
            self._refused[commit.owner] = commit.incarnation
            return StorageError(f"the memory store holds {self._bytes} bytes and may hold {self._limit}")
        owned.apply(commit)
        self._bytes += grown
        if owned.order:
            self._owned[commit.owner] = owned
        else:
            self._owned.pop(commit.owner, None)
        return None


def _size(key: str, value: bytes) -> int:
    return len(key) + len(value) + ENTRY_BYTES
