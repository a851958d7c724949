"""The file that `serve` would keep its objects in, for commands that look into it from outside."""

import contextlib
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

from trio_swarm.cli.options import Asked
from trio_swarm.errors import SettingsError, StorageError
from trio_swarm.settings import MEMORY


def find_store(config: str | None, store: str | None) -> Path:
    """The store that was named, or the one of the settings, as `serve` would have it.

    Raises:
        SettingsError: it is no file, or there is none; it says what to do.
    """
    from trio_swarm.storage.opening import file_of  # noqa: PLC0415 - no `--help` waits for a store

    named = Asked(config=config, store=store).settings().store
    if named == MEMORY:
        raise SettingsError(
            "store",
            f"a {MEMORY} store is inside the process that serves it, and ends with it: "
            "serve with --store FILE, and give the same here",
        )
    path = file_of(named)
    if path is None:
        raise SettingsError("store", f"{named!r} is not a store this version knows: give the path of a file")
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError) as error:
        reason = f"there is no {named} here: give --store FILE, or have `trio-swarm serve` make it first"
        raise SettingsError("store", reason) from error
    except OSError as error:
        raise SettingsError("store", f"{named} cannot be opened: {error.strerror}") from error
    if is_folder:
        raise SettingsError("store", f"{named} is a folder: give a file")
    return path


@contextlib.contextmanager
def reading(path: Path, *, oldest: int | None = None) -> Iterator[sqlite3.Connection]:
    """A reader for as long as the context lasts, beside the owner of the store if there is one.

    Raises:
        SettingsError: it cannot be read, is damaged, or something else.
    """
    from trio_swarm.storage.schema import VERSION, explain, open_reader  # noqa: PLC0415 - see above

    try:
        with contextlib.closing(open_reader(path, oldest=VERSION if oldest is None else oldest)) as connection:
            yield connection
    except StorageError as error:
        raise SettingsError("store", error.reason) from error
    except sqlite3.Error as error:
        raise SettingsError("store", explain(error, path)) from error
