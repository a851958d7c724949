"""A store whose commits wait until the test says what becomes of them."""

from collections import Counter, deque
from collections.abc import Collection, Sequence

import trio

from trio_swarm.errors import StorageError
from trio_swarm.journal.history import History
from trio_swarm.storage import Alarm, Commit, Done, Due, Owner, SetAlarm
from trio_swarm.storage.memory import MemoryStorage


class SlowStorage:
    """Fills the `Storage` protocol over a `MemoryStorage`, and holds commits back while `holding`.

    Attributes:
        holding: whether commits wait; others go through at once.
        waiting: those that do, in the order of their submission.
        read_s: how long each read takes.
        unreadable: whether reads fail, and alarms cannot be amended.
        reads: how many there were, by the method's name.
    """

    def __init__(self, inner: MemoryStorage | None = None, *, holding: bool = False, read_s: float = 0.0) -> None:
        self.inner = inner or MemoryStorage()
        self.holding = holding
        self.read_s = read_s
        self.unreadable = False
        self.reads: Counter[str] = Counter()
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

    def fail_batch(self, count: int, reason: str = "the disk is gone") -> None:
        """A batch of the oldest commits comes to nothing: none is kept, and then all are told."""
        batch = [self.waiting.popleft() for _ in range(count)]
        for commit, _ in batch:
            self._refused[commit.owner] = max(commit.incarnation, self._refused.get(commit.owner, 0))
        for _, done in batch:
            done(StorageError(reason))

    def die(self) -> None:
        """The process ends here: what waits is lost, nobody is told anything, and the next one counts lives anew."""
        self.waiting.clear()
        self._refused.clear()

    @property
    def trouble(self) -> str | None:
        """See `Storage.trouble`."""
        return self.inner.trouble

    def submit(self, commit: Commit, done: Done) -> None:
        """See `Storage.submit`."""
        if self.holding:
            self.waiting.append((commit, done))
        else:
            self._commit(commit, done)

    async def get_many(self, owner: Owner, keys: Sequence[str]) -> dict[str, bytes]:
        """See `Storage.get_many`."""
        await self._read("get_many")
        return await self.inner.get_many(owner, keys)

    async def scan(
        self, owner: Owner, prefix: str, start: str | None, limit: int, *, reverse: bool = False
    ) -> list[tuple[str, bytes]]:
        """See `Storage.scan`."""
        await self._read("scan")
        return await self.inner.scan(owner, prefix, start, limit, reverse=reverse)

    async def history(self, owner: Owner) -> History | None:
        """See `Storage.history`."""
        await self._read("history")
        return await self.inner.history(owner)

    async def alarm(self, owner: Owner, key: str) -> SetAlarm | None:
        """See `Storage.alarm`."""
        await self._read("alarm")
        return await self.inner.alarm(owner, key)

    async def due_alarms(self, kinds: Sequence[str], now_ms: int, limit: int, but: Collection[Owner] = ()) -> Due:
        """See `Storage.due_alarms`."""
        await self._read("due_alarms")
        return await self.inner.due_alarms(kinds, now_ms, limit, but)

    async def count_alarms(self, kinds: Sequence[str], due_ms: int) -> int:
        """See `Storage.count_alarms`."""
        await self._read("count_alarms")
        return await self.inner.count_alarms(kinds, due_ms)

    async def amend(self, alarm: SetAlarm, to: Alarm | None) -> None:
        """See `Storage.amend`. It overtakes the commits that wait."""
        await self._read("amend")
        await self.inner.amend(alarm, to)

    async def clock_mark(self) -> int:
        """See `Storage.clock_mark`."""
        return await self.inner.clock_mark()

    async def reserve_clock(self, until_ms: int) -> None:
        """See `Storage.reserve_clock`."""
        await self.inner.reserve_clock(until_ms)

    async def aclose(self) -> None:
        """See `Storage.aclose`."""
        await self.inner.aclose()

    async def _read(self, name: str) -> None:
        self.reads[name] += 1
        await trio.sleep(self.read_s)
        if self.unreadable:
            raise StorageError("it cannot be read")

    def _commit(self, commit: Commit, done: Done) -> None:
        if commit.incarnation <= self._refused.get(commit.owner, 0):
            done(StorageError("an earlier commit of this incarnation failed"))
        else:
            self.inner.submit(commit, done)
