"""The file of the SQLite store: its tables, its version, and what must hold before anybody writes into it.

One process owns a store: the objects in it live there, and a second set of them would overwrite what the first one
knows. So an owner holds a lock on a file beside it, which the kernel takes back from a process that dies. Reading
needs no lock: who lists or copies a store does so beside its owner.

`synchronous=FULL`: with NORMAL the last commits before a power cut can be gone, although they were acknowledged. WAL:
readers see the last commit and never wait for the writer.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from trio_swarm.errors import StorageError

APPLICATION: Final = 0x7472_7377  # "trsw" in the file's header: this is a store of ours
BUSY_S: Final = 5.0  # for somebody's shell that holds a lock; a batch waits this long, then fails
TRIES: Final = 10  # to get a lock whose file goes away in between: each needs another owner that leaves just then
WAL_BYTES: Final = 64 * 1024 * 1024  # what the log shrinks to after a burst

# Each brings a store from the version of its place to the next one, in one transaction. None is ever changed.
MIGRATIONS: Final[tuple[Sequence[str], ...]] = (
    (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID, STRICT",
        """CREATE TABLE object (
            number INTEGER PRIMARY KEY, kind TEXT NOT NULL, id TEXT NOT NULL, bytes INTEGER NOT NULL, UNIQUE (kind, id)
        ) STRICT""",
        """CREATE TABLE pair (
            object INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (object, key)
        ) WITHOUT ROWID, STRICT""",
    ),
    (
        """CREATE TABLE alarm (
            number INTEGER PRIMARY KEY AUTOINCREMENT, object INTEGER NOT NULL, key TEXT NOT NULL,
            due_ms INTEGER NOT NULL, attempt INTEGER NOT NULL, data BLOB NOT NULL, UNIQUE (object, key)
        ) STRICT""",
        "CREATE INDEX alarm_due ON alarm (due_ms)",
        """CREATE TABLE history (
            object INTEGER PRIMARY KEY, floor_ms INTEGER NOT NULL, floor_counter INTEGER NOT NULL,
            lossy INTEGER NOT NULL, events INTEGER NOT NULL, bytes INTEGER NOT NULL, until_ms INTEGER NOT NULL
        ) STRICT""",
        "CREATE INDEX history_until ON history (until_ms)",
        """CREATE TABLE topic (
            number INTEGER PRIMARY KEY, object INTEGER NOT NULL, name TEXT NOT NULL, count INTEGER NOT NULL,
            mark_ms INTEGER NOT NULL, mark_counter INTEGER NOT NULL, UNIQUE (object, name)
        ) STRICT""",
        """CREATE TABLE event (
            object INTEGER NOT NULL, ms INTEGER NOT NULL, counter INTEGER NOT NULL, topic INTEGER NOT NULL,
            type TEXT NOT NULL, key TEXT, slot TEXT, data BLOB NOT NULL,
            PRIMARY KEY (object, ms, counter)
        ) WITHOUT ROWID, STRICT""",
        "CREATE UNIQUE INDEX event_slot ON event (topic, slot) WHERE slot IS NOT NULL",
        """CREATE TABLE message (
            object INTEGER NOT NULL, ms INTEGER NOT NULL, counter INTEGER NOT NULL, message TEXT NOT NULL,
            count INTEGER NOT NULL, PRIMARY KEY (object, ms, counter)
        ) WITHOUT ROWID, STRICT""",
    ),
    (
        # An alarm says its object's kind itself: a look for those of some kinds walks over no others.
        "ALTER TABLE alarm ADD COLUMN kind TEXT NOT NULL DEFAULT ''",
        "UPDATE alarm SET kind = (SELECT kind FROM object WHERE number = alarm.object)",
        "DROP INDEX alarm_due",
        "CREATE INDEX alarm_due ON alarm (kind, due_ms)",
    ),
)
VERSION: Final = len(MIGRATIONS)


class Ownership:
    """The right to write into a store, held from its making to `release`.

    The lock is on a file beside the store, which goes with its owner: so whoever gets a lock looks whether the file is
    still the one that others would find.

    Raises:
        StorageError: another process has it, or there is no place for the lock.
    """

    def __init__(self, path: Path) -> None:
        if path.is_dir():
            raise StorageError(f"{path} is a folder: give a file")
        try:
            path = Path(os.path.realpath(path))  # one file, one lock, by whatever name
        except OSError as error:  # the working directory has been removed
            raise StorageError(f"{path} cannot be opened: {error.strerror}") from error
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_nlink > 1:
                raise StorageError(f"{path} has a second name (a hard link), by which another process could own it")
        self._lock = path.with_name(f"{path.name}.lock")
        for _ in range(TRIES):
            self._fd = self._open(path)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(self._fd), self._lock.stat()):
                    break
            os.close(self._fd)  # of an owner that has just left
        else:
            raise StorageError(f"{path} is in use by processes that come and go; a store has one owner")
        with contextlib.suppress(OSError):  # a full disk: the number is for people
            os.truncate(self._fd, 0)
            os.write(self._fd, b"%d\n" % os.getpid())

    def _open(self, path: Path) -> int:
        try:
            fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(f"{path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(fd, 20).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            reason = f"{path} is in use by another process ({holder}); a store has one owner"
            raise StorageError(reason) from error
        return fd

    def release(self) -> None:
        """Let the next one have it. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                self._lock.unlink()
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_UN)  # a child that was forked meanwhile has the descriptor too
            os.close(fd)


def open_writer(path: Path, *, synchronous: str = "FULL") -> sqlite3.Connection:
    """Open the store for its owner: made if it is not there, brought to the present version if it is older.

    Raises:
        StorageError: it cannot be opened, is something else, is damaged, or comes from a newer version.
    """
    try:
        connection = _connect(path, "rwc")
        with _closed_on_error(connection):
            check_version(connection, path)
            if connection.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
                raise StorageError(f"{path} cannot be used: its file system has no shared memory for SQLite's log")
            connection.execute(f"PRAGMA synchronous={synchronous}")
            connection.execute(f"PRAGMA journal_size_limit={WAL_BYTES}")
            migrate(connection)
    except sqlite3.Error as error:
        raise StorageError(explain(error, path)) from error
    return connection


def open_reader(path: Path, *, oldest: int = VERSION) -> sqlite3.Connection:
    """Open a store to read from, beside its owner: one of the present version, or of an older one from `oldest` on.

    Raises:
        StorageError: as `open_writer`; and there is none.
    """
    try:
        connection = _connect(path, "rw")  # a reader writes into the log's shared memory
        with _closed_on_error(connection):
            connection.execute("PRAGMA query_only=ON")
            found = check_version(connection, path)
            if found < oldest:
                raise StorageError(
                    f"{path} is of version {found}, and this reads {VERSION}: serve it once to bring it there"
                )
    except sqlite3.Error as error:
        raise StorageError(explain(error, path)) from error
    return connection


def check_version(connection: sqlite3.Connection, path: Path) -> int:
    """The version of a store; 0 of one that is new and empty.

    Raises:
        StorageError: it is no store, or of a version still to come.
    """
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    mark: int = connection.execute("PRAGMA application_id").fetchone()[0]
    if mark != APPLICATION and connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise StorageError(f"{path} is a database of something else; give another file")
    if found > VERSION:
        raise StorageError(f"{path} is of version {found}, and this trio_swarm knows {VERSION}: it is too old for it")
    return found


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    # Statements are committed by hand; each connection is used by one thread at a time.
    return sqlite3.connect(
        f"file:{quote(os.fspath(path))}?mode={mode}",
        uri=True,
        timeout=BUSY_S,
        isolation_level=None,
        check_same_thread=False,
    )


@contextlib.contextmanager
def _closed_on_error(connection: sqlite3.Connection) -> Iterator[None]:
    try:
        yield
    except BaseException:
        connection.close()
        raise


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a store to the present version, in one transaction."""
    connection.execute("BEGIN IMMEDIATE")
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    for statements in MIGRATIONS[found:]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id={APPLICATION}")
    connection.execute(f"PRAGMA user_version={VERSION}")
    connection.execute("COMMIT")


_SENTENCES: Final = {
    "SQLITE_FULL": "the disk is full",
    "SQLITE_BUSY": "another program holds a lock on it",
    "SQLITE_LOCKED": "another program holds a lock on it",
    "SQLITE_READONLY": "it may only be read",
    "SQLITE_CORRUPT": "it is damaged: restore a backup",
    "SQLITE_NOTADB": "it is not an SQLite file",
    "SQLITE_CANTOPEN": "it cannot be opened",
    "SQLITE_IOERR": "the disk does not do what it is asked",
    "SQLITE_TOOBIG": "SQLite takes no value of this size",
}


def explain(error: sqlite3.Error, path: Path) -> str:
    """A sentence for what SQLite says."""
    name = getattr(error, "sqlite_errorname", "")
    for prefix, sentence in _SENTENCES.items():
        if name.startswith(prefix):
            return f"{path}: {sentence}"
    return f"{path}: {error}"
