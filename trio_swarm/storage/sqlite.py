"""The store that outlives its process: one SQLite file, a thread that writes, and readers beside it.

A commit goes to the writer (`writer.py`), which answers when it is on the disk. A read goes to one of a few
connections in worker threads; it sees every commit whose outcome was told before it began, for in WAL mode a statement
sees the last COMMIT.
"""

import contextlib
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Self, TypeVar

import attrs
import trio

from trio_swarm.errors import StorageError
from trio_swarm.storage import OBJECT_BYTES, Commit, Done, Owner
from trio_swarm.storage.schema import Ownership, explain, open_reader, open_writer
from trio_swarm.storage.writer import Reserve, Writer, WriterStatistics

READERS: Final = 4  # threads and connections: two would do for two cores, and two more may wait for the disk

_NUMBER: Final = "SELECT number FROM object WHERE kind = ? AND id = ?"
_VALUE: Final = "SELECT value FROM pair WHERE object = ? AND key = ?"
_UP: Final = (
    "SELECT key, value FROM pair WHERE object = (SELECT number FROM object WHERE kind = ? AND id = ?)"
    " AND key >= ? AND key < CAST(? AS TEXT) ORDER BY key LIMIT ?"
)
_DOWN: Final = _UP.replace("ORDER BY key", "ORDER BY key DESC")

T = TypeVar("T")


@attrs.frozen
class SqliteStatistics:
    """A moment of the store: the bytes of its file and its log, and its writer."""

    bytes: int
    writer: WriterStatistics


class SqliteStorage:
    """See the module; fills the `Storage` protocol. Made by `open`."""

    def __init__(self, path: Path, writer: Writer, ownership: Ownership, readers: list[sqlite3.Connection]) -> None:
        self._path = path
        self._writer = writer
        self._ownership = ownership
        self._readers = deque(readers, len(readers))
        self._limiter = trio.CapacityLimiter(len(readers))
        self._closed = False

    @classmethod
    async def open(cls, path: str | Path, *, object_bytes: int = OBJECT_BYTES, synchronous: str = "FULL") -> Self:
        """Open the store in a file, which is made if it is not there.

        Args:
            path: the file; SQLite's log and a lock stand beside it.
            object_bytes: what one object may keep, keys and values.
            synchronous: `NORMAL` is for measuring what `FULL` costs: it loses acknowledged commits with the power.

        Raises:
            StorageError: it cannot be opened, is in use, is something else, is damaged, or comes from a newer version.
        """
        path = Path(path)
        ownership = await trio.to_thread.run_sync(Ownership, path)
        readers: list[sqlite3.Connection] = []
        try:
            connection = await trio.to_thread.run_sync(lambda: open_writer(path, synchronous=synchronous))
            try:
                while len(readers) < READERS:
                    readers.append(await trio.to_thread.run_sync(open_reader, path))
            except BaseException:
                connection.close()
                raise
        except BaseException:
            for reader in readers:
                reader.close()
            ownership.release()
            raise
        return cls(path, Writer(connection, path, object_bytes), ownership, readers)

    def submit(self, commit: Commit, done: Done) -> None:
        """See `Storage.submit`."""
        self._writer.put(commit, done)

    async def get_many(self, owner: Owner, keys: Sequence[str]) -> dict[str, bytes]:
        """See `Storage.get_many`."""

        def read(connection: sqlite3.Connection) -> dict[str, bytes]:
            row = connection.execute(_NUMBER, owner).fetchone()
            if row is None:
                return {}
            rows = ((key, connection.execute(_VALUE, (row[0], key)).fetchone()) for key in keys)
            return {key: value[0] for key, value in rows if value is not None}

        return await self._read(read)

    async def scan(
        self, owner: Owner, prefix: str, start: str | None, limit: int, *, reverse: bool = False
    ) -> list[tuple[str, bytes]]:
        """See `Storage.scan`."""
        low = prefix if start is None or reverse else max(prefix, start)
        # Text compares by its bytes, and no byte of UTF-8 is as high as FF: behind everything with the prefix.
        high = prefix.encode() + b"\xff"
        if reverse and start is not None:
            high = min(high, start.encode() + b"\x00")
        query = _DOWN if reverse else _UP

        def read(connection: sqlite3.Connection) -> list[tuple[str, bytes]]:
            return connection.execute(query, (*owner, low, high, limit)).fetchall()

        return await self._read(read)

    async def clock_mark(self) -> int:
        """See `Storage.clock_mark`."""
        row = await self._read(lambda c: c.execute("SELECT value FROM meta WHERE name = 'clock'").fetchone())
        return 0 if row is None else int(row[0])

    async def reserve_clock(self, until_ms: int) -> None:
        """See `Storage.reserve_clock`. Cancelled, it may still come about."""
        told = trio.Event()
        outcome: list[StorageError | None] = []

        def done(error: StorageError | None) -> None:
            outcome.append(error)
            told.set()

        self._writer.put(Reserve(until_ms), done)
        await told.wait()
        if outcome[0] is not None:
            raise outcome[0]

    async def aclose(self) -> None:
        """See `Storage.aclose`. Cancelled, the writer still ends by itself, and the lock goes with the process."""
        self._closed = True
        self._writer.close()
        await self._writer.ended.wait()
        if not self._readers:
            return
        for _ in range(self._readers.maxlen or 0):
            await self._limiter.acquire_on_behalf_of(object())  # reads that began before are answered
        while self._readers:
            with contextlib.suppress(sqlite3.Error):
                self._readers.pop().close()
        self._ownership.release()

    def statistics(self) -> SqliteStatistics:
        """A moment of the store."""
        size = 0
        for name in (self._path.name, f"{self._path.name}-wal"):
            with contextlib.suppress(OSError):
                size += self._path.with_name(name).stat().st_size
        return SqliteStatistics(size, self._writer.statistics())

    async def _read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run a query beside the writer.

        Raises:
            StorageError: the store is closed, or cannot be read.
        """
        if self._closed:
            raise StorageError(f"{self._path} is closed")

        def work() -> T:
            connection = self._readers.pop()
            try:
                return query(connection)
            finally:
                self._readers.append(connection)

        try:
            return await trio.to_thread.run_sync(work, limiter=self._limiter)
        except sqlite3.Error as error:
            raise StorageError(explain(error, self._path)) from error
