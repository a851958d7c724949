"""From the setting `store` to a store."""

import re
from pathlib import Path
from typing import Final

from trio_swarm.errors import SettingsError, StorageError
from trio_swarm.settings import MEMORY, Limits
from trio_swarm.storage import Storage
from trio_swarm.storage.memory import MemoryStorage
from trio_swarm.storage.sqlite import SqliteStorage

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")  # of what is no path; a path may say ./a:b


def file_of(store: str) -> Path | None:
    """The file that the setting names; None where it names something else."""
    return None if not store or store == MEMORY or _SCHEME.match(store) else Path(store)


async def open_storage(store: str, limits: Limits) -> Storage:
    """Open what the setting names: `memory:`, or the path of an SQLite file, which is made if it is not there.

    Raises:
        SettingsError: this version does not know such a store, or the file cannot be used; it says why.
    """
    if store == MEMORY:
        return MemoryStorage(limits.memory_store_bytes)
    path = file_of(store)
    if path is None:
        raise SettingsError(
            "store", f"{store!r} is not a store this version knows: give {MEMORY} or the path of a file"
        )
    try:
        return await SqliteStorage.open(path)
    except StorageError as error:
        raise SettingsError("store", error.reason) from error
