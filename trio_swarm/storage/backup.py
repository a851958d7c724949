"""A copy of a store, made beside its owner, that is whole or not there.

**How it is copied.** `VACUUM INTO`: one read transaction, so the copy is the store as it was at one moment, however
much is written meanwhile. SQLite's backup API in steps begins again whenever another process has written in between,
which under load is always; in one step it cannot be interrupted. `VACUUM INTO` also leaves behind what was deleted.
What it costs: the owner's log cannot be emptied while it runs, and grows by what is written.

**How it gets its name.** Whether SQLite syncs such a copy is a matter of its settings, and a name is never its affair.
So the copy is made under another name in the same folder, looked through, synced, renamed, and the folder synced: under
its own name there is all of it, or what was there before. A log of an earlier database beside that name would be taken
for the copy's own; it goes first.
"""

import contextlib
import os
import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from trio_swarm.errors import StorageError
from trio_swarm.storage.integrity import STEPS, check_integrity
from trio_swarm.storage.schema import Ownership, explain, open_reader

SIDES: Final = ("-wal", "-shm", "-journal")  # what SQLite keeps beside a database
_OF_THE_COPY: Final = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_READONLY")


class Backup:
    """One copy, of a store to a file. `run` may be called once, in any thread; `interrupt` from another.

    Args:
        store: what is copied.
        file: where to; followed, if it is a symbolic link.
        force: replace what is there.
    """

    def __init__(self, store: Path, file: Path, *, force: bool = False) -> None:
        self._store = store
        self._named = file
        self._force = force
        self.interrupted = False

    def interrupt(self) -> None:
        """Have `run` raise soon, unless the copy has its name by now."""
        self.interrupted = True

    def run(self) -> int:
        """Make the copy; answers its bytes.

        Raises:
            StorageError: it cannot be made; nothing of it is left, and what was there before is as it was.
        """
        target = self._find_target()
        ownership = Ownership(target)  # nobody serves what is replaced, and no second copy is made meanwhile
        try:
            self._refuse_to_replace(target)
            with self._temporary(target) as temporary:
                self._copy(temporary)
                self._examine(temporary)
                size = temporary.stat().st_size
                self._refuse_to_replace(target)  # somebody may have been quicker
                for side in SIDES:
                    Path(f"{target}{side}").unlink(missing_ok=True)
                temporary.replace(target)
                _sync(target.parent)
        except OSError as error:
            raise StorageError(f"{self._named} cannot be written: {error.strerror}") from error
        finally:
            ownership.release()
        return size

    def _find_target(self) -> Path:
        """Where the copy will be.

        Raises:
            StorageError: that is the store itself, or nowhere.
        """
        target = Path(os.path.realpath(self._named))
        if not target.parent.is_dir():
            raise StorageError(f"{self._named} cannot be made: there is no folder {target.parent}")
        store = Path(os.path.realpath(self._store))
        for side in ("", ".lock", *SIDES):
            part = Path(f"{store}{side}")
            if part == target or (part.exists() and target.exists() and part.samefile(target)):
                raise StorageError(
                    f"{self._named} is {'a part of ' if side else ''}the store itself: give another file"
                )
        return target

    def _refuse_to_replace(self, target: Path) -> None:
        if self._force:
            return
        if os.path.lexists(target):
            raise StorageError(f"{self._named} is there already: give another name, or --force to replace it")
        for side in SIDES:
            if os.path.lexists(f"{target}{side}"):
                raise StorageError(
                    f"{self._named}{side} is left of another database, and would be taken for a part of the copy: "
                    "give another name, or --force to remove it"
                )

    @contextlib.contextmanager
    def _temporary(self, target: Path) -> Iterator[Path]:
        """An empty file, which goes unless it was given another name."""
        number, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
        try:
            # As readable as the store is, and no more.
            os.fchmod(number, stat.S_IMODE(self._store.stat().st_mode))
            os.close(number)
            yield Path(name)
        finally:
            for side in ("", *SIDES):
                Path(f"{name}{side}").unlink(missing_ok=True)

    def _copy(self, temporary: Path) -> None:
        with self._told(self._store), contextlib.closing(open_reader(self._store, oldest=1)) as reader:
            reader.set_progress_handler(self._is_interrupted, STEPS)
            reader.execute("PRAGMA query_only=OFF")  # it would forbid the copy; the store is written to by nothing here
            reader.execute("VACUUM INTO ?", (os.fspath(temporary),))

    def _examine(self, temporary: Path) -> None:
        with self._told(self._named), contextlib.closing(open_reader(temporary, oldest=1)) as reader:
            found = check_integrity(reader, self._is_interrupted)
        if found.faults:
            raise StorageError(f"{self._store} is damaged ({found.faults[0]}), and so would be the copy")
        if self.interrupted:
            raise StorageError("interrupted")
        _sync(temporary)

    def _is_interrupted(self) -> bool:
        return self.interrupted

    @contextlib.contextmanager
    def _told(self, path: Path) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            is_copy = getattr(error, "sqlite_errorname", "").startswith(_OF_THE_COPY)
            raise StorageError(explain(error, self._named if is_copy else path)) from error


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
