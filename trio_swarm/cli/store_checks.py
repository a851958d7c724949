"""Whether the store can be had, and whether it is whole; of `check`, which changes nothing in it."""

import os
import shutil
import time
from pathlib import Path
from typing import Final

import attrs
import trio

from trio_swarm.cli.advice import ANOTHER_STORE, with_advice
from trio_swarm.cli.findings import Doubt
from trio_swarm.cli.stored import reading
from trio_swarm.errors import SettingsError
from trio_swarm.settings import MIB, Settings
from trio_swarm.storage.integrity import check_integrity
from trio_swarm.storage.opening import file_of, open_storage
from trio_swarm.storage.schema import VERSION, WAL_BYTES

LOOK_S: Final = 10.0  # at the pages of a store: some 500 MB. So long its owner's log may grow, and people wait
LOOK_AT_RELOAD_S: Final = 1.0  # the service stands by, and has read from the store all the time


@attrs.frozen
class _Contents:
    """A store as it was found, in words; and its version."""

    version: int
    says: str
    doubt: str | None = None


async def attempt_store(settings: Settings, held: set[str]) -> str:
    """What is in the store, and that its owner may be whoever asks.

    Args:
        settings: they name the store.
        held: what the running service has, which a reload will be given.

    Raises:
        SettingsError: it is damaged, or cannot be had; with what to do.
        Doubt: the disk is nearly full.
    """
    store = settings.store
    path = file_of(store)
    if path is None:
        await _have_it(settings)
        return store
    if _is_new(path):
        return f"{store} will be made"
    contents: _Contents | None = None
    if path.is_file() and path.stat().st_size:  # an empty one is as good as none
        seconds = LOOK_AT_RELOAD_S if store in held else LOOK_S
        contents = await trio.to_thread.run_sync(_look_inside, path, seconds)
    says = store if contents is None else contents.says
    if store in held:
        says = f"{says}; held by the running service"
    elif contents is not None and contents.version < VERSION:
        # It is not opened: who goes back to the program's last version shall find it as it was.
        says = f"{says}; of version {contents.version}, and serving brings it to {VERSION}"
    else:
        await _have_it(settings)
    if contents is not None and contents.doubt is not None:
        raise Doubt(f"{says}; {contents.doubt}")
    return says


async def _have_it(settings: Settings) -> None:
    try:
        storage = await open_storage(settings.store, settings.limits)
    except SettingsError as error:
        raise with_advice(error) from error
    await storage.aclose()


def _look_inside(path: Path, seconds: float) -> _Contents:
    """Read it, beside its owner if there is one. In a thread; cancelled, it ends soon.

    Raises:
        SettingsError: it is damaged, something else, or of a version still to come.
    """
    end = time.monotonic() + seconds

    def enough() -> bool:
        trio.from_thread.check_cancelled()
        return time.monotonic() > end

    with reading(path, oldest=1) as connection:
        found = check_integrity(connection, enough)
        if found.faults:
            raise SettingsError(
                "store",
                f"{path} is damaged ({found.faults[0]}): end the service, and restore a backup with "
                f"`trio-swarm backup {path} --store BACKUP --force`",
            )
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        objects: int = connection.execute("SELECT count(*) FROM object").fetchone()[0]
    size = sum(each.stat().st_size for each in (path, Path(f"{path}-wal")) if each.exists())
    looked = "whole" if found.whole else f"no fault in the {seconds:g} s of this look, and a backup looks at all of it"
    says = f"{path}, {size / MIB:.1f} MiB, {objects} {'object' if objects == 1 else 'objects'}, {looked}"
    free = shutil.disk_usage(path).free
    doubt = None
    if free < WAL_BYTES:
        doubt = (
            f"the disk has {free / MIB:.0f} MiB free, and the store's log may come to {WAL_BYTES / MIB:.0f}: make room"
        )
    return _Contents(version, says, doubt)


def _is_new(path: Path) -> bool:
    """Whether serving would make the file: a check makes none.

    Raises:
        SettingsError: there is nowhere to make it.
    """
    if os.path.exists(path):  # noqa: PTH110 - pathlib's raises where a folder may not be entered
        return False
    try:
        folder = path.resolve().parent
    except OSError as error:  # the working directory has been removed
        raise SettingsError("store", f"{path} cannot be made: {error.strerror}; {ANOTHER_STORE}") from error
    if not folder.is_dir():
        raise SettingsError("store", f"{path} cannot be made: there is no folder {folder}; {ANOTHER_STORE}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise SettingsError("store", f"{path} cannot be made: {folder} may not be written to; {ANOTHER_STORE}")
    return True
