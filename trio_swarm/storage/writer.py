"""The one thread that writes into a SQLite store: group commit.

It takes all that waits, writes it in one transaction, and tells all outcomes with one call into the Trio thread. What
arrives meanwhile is the next batch: batches grow under load by themselves, and one sync of the disk serves hundreds
of turns. A turn that is refused takes no other with it (`tables.py`); a COMMIT that fails takes all of its batch.

**A COMMIT that fails at its sync** has been written into SQLite's log all the same, whole. This process does not see
it, however often it opens the file again, for the index of the log, which it shares, ends before; but whoever opens the
file after a crash reads the log itself, and finds it. So before its turns are told that they failed, a commit of the
writer's own takes its place in the log: what remains of a longer one behind it, a chain of checksums takes for nothing.
Where that fails too, the outcome is uncertain, and is told so; the next commit that goes well takes the place.

The queue needs no bound of its own: each object waits for its commits beyond `objects.commits_in_flight`.
"""

import contextlib
import sqlite3
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import attrs
import structlog
import trio

from trio_swarm.errors import StorageError
from trio_swarm.storage import OBJECT_BYTES, Alarm, Commit, Done
from trio_swarm.storage.batches import take
from trio_swarm.storage.schema import explain
from trio_swarm.storage.tables import Tables

BATCH: Final = 2_000  # jobs in one transaction: some 30 ms of work, so that the first does not wait long for the last

# Changes something each time: a transaction that changes nothing writes nothing into the log.
_COVER: Final = "INSERT INTO meta VALUES ('failures', 1) ON CONFLICT DO UPDATE SET value = value + 1"

_log = structlog.get_logger("trio_swarm.storage")


@attrs.frozen
class Reserve:
    """Raise the clock's mark."""

    until_ms: int


@attrs.frozen
class Amend:
    """Have an alarm due later, or no more, if it is still this very one."""

    number: int
    to: Alarm | None


@attrs.frozen
class WriterStatistics:
    """What the thread has done since the beginning. `error` is that of the last batch, None where it went well."""

    waiting: int
    batches: int
    commits: int
    refused: int
    error: str | None


Work = Commit | Reserve | Amend
Job = tuple[Work, Done]
Outcomes = list[tuple[Done, StorageError | None]]


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
        self._tables = Tables(connection, self._sentence, object_bytes)
        self._jobs: SimpleQueue[Job | None] = SimpleQueue()
        self._batches = self._commits = self._refusals = 0
        self.error: str | None = None  # of the last batch
        self._exposed = False  # a COMMIT that failed stands in the log, behind its end, and nothing in its place
        self._closed = False
        self.ended = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        # A daemon: a disk that never answers must not keep the process.
        threading.Thread(target=self._run, name=f"trio_swarm writer {path.name}", daemon=True).start()

    def put(self, work: Work, done: Done) -> None:
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
        return WriterStatistics(self._jobs.qsize(), self._batches, self._commits, self._refusals, self.error)

    # -- in the thread

    def _run(self) -> None:
        going = True
        with contextlib.suppress(trio.RunFinishedError):  # then nobody waits for an outcome
            with contextlib.closing(self._connection):
                while going:
                    batch, going = take(self._jobs, BATCH)
                    self._token.run_sync_soon(_tell, self._write(batch))
            self._token.run_sync_soon(self.ended.set)

    def _write(self, batch: list[Job]) -> Outcomes:
        if not batch:
            return []
        outcomes: Outcomes = []
        committing = False
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for work, done in batch:
                outcomes.append((done, self._apply(work)))
            if self._exposed:
                self._connection.execute(_COVER)
            committing = True
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - whatever it is: this thread must go on
            return self._fail(batch, error, committing=committing)
        self._exposed = False
        if self.error is not None:
            self.error = None
            _log.warning("store_recovered", store=str(self._path))
        self._batches += 1
        self._commits += sum(error is None for _, error in outcomes)
        self._refusals += sum(error is not None for _, error in outcomes)
        return outcomes

    def _fail(self, batch: list[Job], error: Exception, *, committing: bool) -> Outcomes:
        """Nothing of the batch is kept; or, where its COMMIT failed and cannot be covered, that is uncertain."""
        self._roll_back()
        if committing:
            self._cover()
        self._tables.lost(work for work, _ in batch if isinstance(work, Commit))
        reason = self._sentence(error)
        if self.error is None:
            _log.error("store_failed", store=str(self._path), error=reason)
        self.error = reason
        self._refusals += len(batch)
        uncertain = committing and self._exposed
        return [(done, StorageError(reason, uncertain=uncertain)) for _, done in batch]

    def _cover(self) -> None:
        """Put something in the place of a COMMIT that failed."""
        self._exposed = True
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(_COVER)
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            self._roll_back()
        else:
            self._exposed = False

    def _roll_back(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _apply(self, work: Work) -> StorageError | None:
        """Write one job into the open transaction.

        Raises:
            Exception: the transaction cannot go on.
        """
        if isinstance(work, Commit):
            return self._tables.apply(work)
        if isinstance(work, Reserve):
            self._tables.reserve_clock(work.until_ms)
        else:
            self._tables.amend(work.number, work.to)
        return None

    def _sentence(self, error: Exception) -> str:
        if isinstance(error, sqlite3.Error):
            return explain(error, self._path)
        _log.error("commit_failed", exc_info=error)
        return f"{self._path}: {error}"


def _tell(outcomes: Outcomes) -> None:
    """Tell every outcome. In the Trio thread, which an exception from here would end."""
    for done, error in outcomes:
        try:
            done(error)
        except Exception:  # noqa: BLE001 - one turn's trouble is no other's
            _log.exception("commit_outcome_failed")
