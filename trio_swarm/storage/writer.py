"""The one thread that writes into a SQLite store: group commit.

It takes all that waits, writes it in one transaction, and tells all outcomes with one call into the Trio thread. What
arrives meanwhile is the next batch: batches grow under load by themselves, and one sync of the disk serves hundreds
of turns. Each turn stands in a savepoint of its own, so that one that is refused takes no other with it; a COMMIT
that fails takes all of its batch. After its first failure an incarnation is refused for good: what follows was built
on what never was.

The queue needs no bound of its own: each object waits for its commits beyond `objects.commits_in_flight`.
"""

import contextlib
import sqlite3
import threading
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

import attrs
import structlog
import trio
from cachetools import LRUCache

from trio_swarm.errors import StorageError
from trio_swarm.settings import OBJECTS_KNOWN, REFUSED_LIVES
from trio_swarm.storage import OBJECT_BYTES, Commit, Done, Owner
from trio_swarm.storage.schema import explain

BATCH: Final = 2_000  # jobs in one transaction: some 30 ms of work, so that the first does not wait long for the last

_OLD_SIZE: Final = "SELECT length(CAST(key AS BLOB)) + length(value) FROM pair WHERE object = ? AND key = ?"
_PUT: Final = "INSERT INTO pair VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
_DELETE: Final = "DELETE FROM pair WHERE object = ? AND key = ?"


_log = structlog.get_logger("trio_swarm.storage")


@attrs.frozen
class Reserve:
    """Raise the clock's mark."""

    until_ms: int


@attrs.frozen
class WriterStatistics:
    """What the thread has done since the beginning. `error` is that of the last batch, None where it went well."""

    waiting: int
    batches: int
    commits: int
    refused: int
    error: str | None


Job = tuple[Commit | Reserve, Done]
Outcomes = list[tuple[Done, StorageError | None]]


@attrs.define
class _Object:
    """A row of the table `object`."""

    number: int
    bytes: int


class Writer:
    """See the module. Made in the Trio thread, with a connection that nobody else uses.

    Args:
        connection: as `open_writer` gives it; closed when the thread ends.
        path: for what errors say.
        object_bytes: keys and values of one object; the commit that would pass it is refused.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path, object_bytes: int = OBJECT_BYTES) -> None:
        self._connection = connection
        self._path = path
        self._object_bytes = object_bytes
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._known: LRUCache[Owner, _Object] = LRUCache(OBJECTS_KNOWN)
        self._refused: LRUCache[Owner, int] = LRUCache(REFUSED_LIVES)  # the newest incarnation that was refused
        self._batches = self._commits = self._refusals = 0
        self._error: str | None = None
        self._closed = False
        self.ended = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        # A daemon: a disk that never answers must not keep the process.
        threading.Thread(target=self._run, name=f"trio_swarm writer {path.name}", daemon=True).start()

    def put(self, work: Commit | Reserve, done: Done) -> None:
        """Have it written. `done` is called in the Trio thread, once.

        Raises:
            StorageError: the store is closed.
        """
        if self._closed:
            raise StorageError(f"{self._path} is closed")
        self._jobs.put((work, done))

    def close(self) -> None:
        """Take nothing more, and end when all that was taken is written: then `ended` is set. Idempotent."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)

    def statistics(self) -> WriterStatistics:
        """What it has done."""
        return WriterStatistics(self._jobs.qsize(), self._batches, self._commits, self._refusals, self._error)

    # -- in the thread

    def _run(self) -> None:
        going = True
        with contextlib.suppress(trio.RunFinishedError):  # then nobody waits for an outcome
            while going:
                batch, going = self._take()
                self._token.run_sync_soon(_tell, self._write(batch))
            self._connection.close()
            self._token.run_sync_soon(self.ended.set)

    def _take(self) -> tuple[list[Job], bool]:
        """Everything that waits, up to a batch; and whether more is to come."""
        batch: list[Job] = []
        job = self._jobs.get()
        with contextlib.suppress(Empty):
            while job is not None:
                batch.append(job)
                if len(batch) >= BATCH:
                    return batch, True
                job = self._jobs.get_nowait()
            return batch, False
        return batch, True

    def _write(self, batch: list[Job]) -> Outcomes:
        if not batch:
            return []
        outcomes: Outcomes = []
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for work, done in batch:
                outcomes.append((done, self._apply(work)))
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whatever it is: this thread must go on
            return self._fail(batch, error)
        self._error = None
        self._batches += 1
        self._commits += sum(error is None for _, error in outcomes)
        self._refusals += sum(error is not None for _, error in outcomes)
        return outcomes

    def _fail(self, batch: list[Job], error: Exception) -> Outcomes:
        """Nothing of the batch is kept."""
        with contextlib.suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        self._known.clear()
        for work, _ in batch:
            if isinstance(work, Commit):
                self._refuse(work)
        self._error = self._sentence(error)
        self._refusals += len(batch)
        return [(done, StorageError(self._error)) for _, done in batch]

    def _apply(self, work: Commit | Reserve) -> StorageError | None:
        """Write one job into the open transaction.

        Raises:
            Exception: the transaction cannot go on.
        """
        if isinstance(work, Reserve):
            self._connection.execute(
                "INSERT INTO meta VALUES ('clock', ?) ON CONFLICT DO UPDATE SET value = max(value, excluded.value)",
                (work.until_ms,),
            )
            return None
        if work.incarnation <= self._refused.get(work.owner, 0):
            return StorageError("an earlier commit of this incarnation was refused")
        self._connection.execute("SAVEPOINT turn")
        try:
            self._change(work)
        except Exception as error:
            if not self._connection.in_transaction:
                raise  # SQLite has given up all of it, and not just this turn
            self._connection.execute("ROLLBACK TO turn")
            self._connection.execute("RELEASE turn")
            self._known.pop(work.owner, None)
            self._refuse(work)
            return error if isinstance(error, StorageError) else StorageError(self._sentence(error))
        self._connection.execute("RELEASE turn")
        return None

    def _sentence(self, error: Exception) -> str:
        if isinstance(error, sqlite3.Error):
            return explain(error, self._path)
        _log.error("commit_failed", exc_info=error)
        return f"{self._path}: {error}"

    def _refuse(self, commit: Commit) -> None:
        self._refused[commit.owner] = max(commit.incarnation, self._refused.get(commit.owner, 0))

    def _change(self, commit: Commit) -> None:
        execute = self._connection.execute
        found = self._find(commit.owner)
        number, size = found.number, found.bytes
        if commit.clear:
            execute("DELETE FROM pair WHERE object = ?", (number,))
            size = 0
        for key, value in commit.changes.items():
            if not commit.clear:
                old = execute(_OLD_SIZE, (number, key)).fetchone()
                size -= 0 if old is None else old[0]
            if value is None:
                execute(_DELETE, (number, key))
            else:
                execute(_PUT, (number, key, value))
                size += len(key.encode()) + len(value)
        if size > self._object_bytes:
            kind, id_ = commit.owner
            raise StorageError(f"{kind}/{id_} would keep {size} bytes, and an object may keep {self._object_bytes}")
        if size:
            execute("UPDATE object SET bytes = ? WHERE number = ?", (size, number))
            found.bytes = size
        else:
            execute("DELETE FROM object WHERE number = ?", (number,))
            self._known.pop(commit.owner, None)

    def _find(self, owner: Owner) -> _Object:
        """The object's row, made where there is none."""
        found = self._known.get(owner)
        if found is None:
            row = self._connection.execute(
                "SELECT number, bytes FROM object WHERE kind = ? AND id = ?", owner
            ).fetchone()
            if row is None:
                row = self._connection.execute(
                    "INSERT INTO object (kind, id, bytes) VALUES (?, ?, 0) RETURNING number, bytes", owner
                ).fetchone()
            found = self._known[owner] = _Object(*row)
        return found


def _tell(outcomes: Outcomes) -> None:
    """Tell every outcome. In the Trio thread, which an exception from here would end."""
    for done, error in outcomes:
        try:
            done(error)
        except Exception:  # noqa: BLE001 - one turn's trouble is no other's
            _log.exception("commit_outcome_failed")
