"""The store that outlives its process: one SQLite file, a thread that writes, and readers beside it.

A commit goes to the writer (`writer.py`), which answers when it is on the disk. A read goes to one of a few
connections with a thread each (`readers.py`).
"""

import contextlib
import sqlite3
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Self

import attrs
import trio

from trio_swarm.errors import StorageError
from trio_swarm.journal.history import History
from trio_swarm.storage import OBJECT_BYTES, Alarm, Commit, Done, Due, Owner, SetAlarm, queries
from trio_swarm.storage.readers import Readers
from trio_swarm.storage.schema import Ownership, open_reader, open_writer
from trio_swarm.storage.writer import Amend, Reserve, Writer, WriterStatistics

READERS: Final = 2  # threads and connections: one may wait for the disk while the other answers from memory


@attrs.frozen
class SqliteStatistics:
    """A moment of the store: the bytes of its file and its log, and its writer."""

    bytes: int
    writer: WriterStatistics


class SqliteStorage:
    """See the module; fills the `Storage` protocol. Made by `open`."""

    def __init__(self, path: Path, writer: Writer, ownership: Ownership, readers: Readers) -> None:
        self._path = path
        self._writer = writer
        self._ownership = ownership
        self._readers = readers

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
        return cls(path, Writer(connection, path, object_bytes), ownership, Readers(readers, path))

    @property
    def trouble(self) -> str | None:
        """See `Storage.trouble`."""
        return self._writer.error

    def submit(self, commit: Commit, done: Done) -> None:
        """See `Storage.submit`."""
        self._writer.put(commit, done)

    async def get_many(self, owner: Owner, keys: Sequence[str]) -> dict[str, bytes]:
        """See `Storage.get_many`."""
        return await self._readers.ask(queries.get_many, owner, keys)

    async def scan(
        self, owner: Owner, prefix: str, start: str | None, limit: int, *, reverse: bool = False
    ) -> list[tuple[str, bytes]]:
        """See `Storage.scan`."""
        return await self._readers.ask(partial(queries.scan, reverse=reverse), owner, prefix, start, limit)

    async def history(self, owner: Owner) -> History | None:
        """See `Storage.history`."""
        return await self._readers.ask(queries.history, owner)

    async def alarm(self, owner: Owner, key: str) -> SetAlarm | None:
        """See `Storage.alarm`."""
        return await self._readers.ask(queries.alarm, owner, key)

    async def due_alarms(self, kinds: Sequence[str], now_ms: int, limit: int, but: Collection[Owner] = ()) -> Due:
        """See `Storage.due_alarms`."""
        return await self._readers.ask(queries.due_alarms, kinds, now_ms, limit, but)

    async def count_alarms(self, kinds: Sequence[str], due_ms: int) -> int:
        """See `Storage.count_alarms`."""
        return await self._readers.ask(queries.count_alarms, kinds, due_ms)

    async def amend(self, alarm: SetAlarm, to: Alarm | None) -> None:
        """See `Storage.amend`."""
        await self._write(Amend(alarm.number, to))

    async def clock_mark(self) -> int:
        """See `Storage.clock_mark`."""
        return await self._readers.ask(queries.clock_mark)

    async def reserve_clock(self, until_ms: int) -> None:
        """See `Storage.reserve_clock`. Cancelled, it may still come about."""
        await self._write(Reserve(until_ms))

    async def _write(self, work: Reserve | Amend) -> None:
        told = trio.Event()
        outcome: list[StorageError | None] = []

        def done(error: StorageError | None) -> None:
            outcome.append(error)
            told.set()

        self._writer.put(work, done)
        await told.wait()
        if outcome[0] is not None:
            raise outcome[0]

    async def aclose(self) -> None:
        """See `Storage.aclose`. Cancelled, its threads still end by themselves, and the lock goes with the process."""
        self._writer.close()
        self._readers.close()
        await self._writer.ended.wait()
        await self._readers.ended.wait()
        self._ownership.release()

    def statistics(self) -> SqliteStatistics:
        """A moment of the store."""
        size = 0
        for name in (self._path.name, f"{self._path.name}-wal"):
            with contextlib.suppress(OSError):
                size += self._path.with_name(name).stat().st_size
        return SqliteStatistics(size, self._writer.statistics())
