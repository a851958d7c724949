"""The store that lives and ends with its process: for tests, for trying out, and where nothing need outlast a restart.

The same tables as the file's, in memory, and no thread: a commit is safe as soon as it is taken, so `submit` tells its
outcome before it returns. All that is kept has a bound in bytes; a commit that would pass it is refused whole, and
with it all later ones of its incarnation.
"""

import contextlib
import sqlite3
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Final

import attrs
import trio

from trio_swarm.errors import StorageError
from trio_swarm.journal.history import History
from trio_swarm.settings import MEMORY, Limits
from trio_swarm.storage import Alarm, Commit, Done, Due, Owner, SetAlarm, queries
from trio_swarm.storage.schema import migrate
from trio_swarm.storage.tables import Tables

PAGE_BYTES: Final = 4096
LEAST_BYTES: Final = 128 * 1024  # the tables alone, empty, take some 70 KiB


@attrs.frozen
class MemoryStatistics:
    """A moment of the store; `commits` and `refused` count from the beginning."""

    bytes: int
    limit_bytes: int
    commits: int
    refused: int


class MemoryStorage:
    """See the module; fills the `Storage` protocol.

    Args:
        limit_bytes: for all objects together; by default as the settings say (64 MiB). Less than 128 KiB is taken for
            that: the tables themselves have their size.
    """

    def __init__(self, limit_bytes: int = Limits().memory_store_bytes) -> None:
        self._limit = max(limit_bytes, LEAST_BYTES)
        # Nothing of it is on a disk, so there is nothing to sync and no other thread to keep out.
        self._connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._connection.execute(f"PRAGMA page_size={PAGE_BYTES}")
        migrate(self._connection)
        self._connection.execute(f"PRAGMA max_page_count={self._limit // PAGE_BYTES}")
        self._tables = Tables(self._connection, self._explain)
        self._closed = False
        self._commits = 0
        self._refusals = 0

    @property
    def trouble(self) -> str | None:
        """See `Storage.trouble`: none but that it is full, which is told to whom it concerns."""
        return None

    def submit(self, commit: Commit, done: Done) -> None:
        """See `Storage.submit`: the outcome is told at once."""
        error = self._commit(commit)
        self._commits += error is None
        self._refusals += error is not None
        done(error)

    async def get_many(self, owner: Owner, keys: Sequence[str]) -> dict[str, bytes]:
        """See `Storage.get_many`."""
        return queries.get_many(await self._open(), owner, keys)

    async def scan(
        self, owner: Owner, prefix: str, start: str | None, limit: int, *, reverse: bool = False
    ) -> list[tuple[str, bytes]]:
        """See `Storage.scan`."""
        return queries.scan(await self._open(), owner, prefix, start, limit, reverse=reverse)

    async def history(self, owner: Owner) -> History | None:
        """See `Storage.history`."""
        return queries.history(await self._open(), owner)

    async def alarm(self, owner: Owner, key: str) -> SetAlarm | None:
        """See `Storage.alarm`."""
        return queries.alarm(await self._open(), owner, key)

    async def due_alarms(self, kinds: Sequence[str], now_ms: int, limit: int, but: Collection[Owner] = ()) -> Due:
        """See `Storage.due_alarms`."""
        return queries.due_alarms(await self._open(), kinds, now_ms, limit, but)

    async def count_alarms(self, kinds: Sequence[str], due_ms: int) -> int:
        """See `Storage.count_alarms`."""
        return queries.count_alarms(await self._open(), kinds, due_ms)

    async def amend(self, alarm: SetAlarm, to: Alarm | None) -> None:
        """See `Storage.amend`."""
        await self._open()
        self._write(partial(self._tables.amend, alarm.number, to))

    async def clock_mark(self) -> int:
        """See `Storage.clock_mark`."""
        return queries.clock_mark(await self._open())

    async def reserve_clock(self, until_ms: int) -> None:
        """See `Storage.reserve_clock`."""
        await self._open()
        self._write(partial(self._tables.reserve_clock, until_ms))

    async def aclose(self) -> None:
        """See `Storage.aclose`: what was kept is gone."""
        await trio.lowlevel.checkpoint()
        self._closed = True
        self._connection.close()

    def statistics(self) -> MemoryStatistics:
        """A moment of the store."""
        pages = free = 0
        if not self._closed:
            (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
            (free,) = self._connection.execute("PRAGMA freelist_count").fetchone()
        return MemoryStatistics((pages - free) * PAGE_BYTES, self._limit, self._commits, self._refusals)

    async def _open(self) -> sqlite3.Connection:
        await trio.lowlevel.checkpoint()
        if self._closed:
            raise StorageError("the memory store is closed")
        return self._connection

    def _write(self, change: Callable[[], None]) -> None:
        """Write what is no commit: all of it or nothing.

        Raises:
            StorageError: it cannot be written.
        """
        self._connection.execute("BEGIN")
        try:
            change()
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._tables.lost(())
            raise StorageError(self._explain(error)) from error

    def _commit(self, commit: Commit) -> StorageError | None:
        if self._closed:
            return StorageError("the memory store is closed")
        execute = self._connection.execute
        execute("BEGIN")
        try:
            error = self._tables.apply(commit)
            execute("COMMIT")
        except Exception as raised:  # noqa: BLE001 - whatever it is, it becomes the commit's
            with contextlib.suppress(sqlite3.Error):
                if self._connection.in_transaction:
                    execute("ROLLBACK")
            self._tables.lost([commit])
            return StorageError(self._explain(raised))
        return error

    def _explain(self, error: Exception) -> str:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            return f"the memory store is full: it may hold {self._limit} bytes"
        return f"{MEMORY} {error}"
