"""A store whose commits wait until the test says what becomes of them."""

from collections import deque
from collections.abc import Sequence

import trio

from trio_swarm.errors import StorageError
from trio_swarm.storage import Commit, Done, Owner
from trio_swarm.storage.memory import MemoryStorage


class SlowStorage:
    """Fills the `Storage` protocol over a `MemoryStorage`, and holds commits back while `holding`.

    Attributes:
        holding: whether commits wait; others go through at once.
        waiting: those that do, in the order of their submission.
        read_s: how long each read takes.
    """

    def __init__(self, inner: MemoryStorage | None = None, *, holding: bool = False, read_s: float = 0.0) -> None:
        self.inner = inner or MemoryStorage()
        self.holding = holding
        self.read_s = read_s
        self.waiting: deque[tuple[Commit, Done]] = deque()
        self._refused: dict[Owner, int] = {}

    def release(self, count: int | None = None) -> None:
        """Let the oldest commits become safe: so many, or all."""
        for _ in range(len(self.waiting) if count is None else count):
            commit, done = self.waiting.popleft()
            self._commit(commit, done)

    def fail(self, reason: str = "the disk is gone") -> None:
        """The oldest waiting commit fails, and with it all later ones of its incarnation."""
        commit, done = self.waiting.popleft()
        self._refused[commit.owner] = commit.incarnation
        done(StorageError(reason))

    def submit(self, commit: Commit, done: Done) -> None:
        """See `Storage.submit`."""
        if self.holding:
            self.waiting.append((commit, done))
        else:
            self._commit(commit, done)

    async def get_many(self, owner: Owner, keys: Sequence[str]) -> dict[str, bytes]:
        """See `Storage.get_many`."""
        await trio.sleep(self.read_s)
        return await self.inner.get_many(owner, keys)

    async def scan(
        self, owner: Owner, prefix: str, start: str | None, limit: int, *, reverse: bool = False
    ) -> list[tuple[str, bytes]]:
        """See `Storage.scan`."""
        await trio.sleep(self.read_s)
        return await self.inner.scan(owner, prefix, start, limit, reverse=reverse)

    async def clock_mark(self) -> int:
        """See `Storage.clock_mark`."""
        return await self.inner.clock_mark()

    async def reserve_clock(self, until_ms: int) -> None:
        """See `Storage.reserve_clock`."""
        await self.inner.reserve_clock(until_ms)

    async def aclose(self) -> None:
        """See `Storage.aclose`."""
        await self.inner.aclose()

    def _commit(self, commit: Commit, done: Done) -> None:
        if commit.incarnation <= self._refused.get(commit.owner, 0):
            done(StorageError("an earlier commit of this incarnation failed"))
        else:
            self.inner.submit(commit, done)
