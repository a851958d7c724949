"""`trio-swarm backup FILE`: a copy of the store, whole or not at all, while it is served."""

import errno
import sqlite3
from pathlib import Path
from typing import Final

import click

from trio_swarm.cli.early_interrupt import CODE
from trio_swarm.cli.lines import printable
from trio_swarm.cli.options import CONFIG, store_option
from trio_swarm.cli.stored import find_store
from trio_swarm.errors import SettingsError, StorageError
from trio_swarm.settings import MIB

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@click.command(short_help="Copy a store into a file, also while it is served.")
@click.argument("file", type=click.Path())
@store_option("The store to copy.")
@CONFIG
@click.option("--force", is_flag=True, help="Replace FILE, if it is there and nobody serves it.")
def backup(*, file: str, store: str | None, config: str | None, force: bool) -> None:
    """Copy the store into FILE, as it is at one moment; it may be served meanwhile.

    \b
    Examples
      trio-swarm backup monday.db
      trio-swarm backup /backups/monday.db --store /var/lib/trio-swarm/objects.db
      trio-swarm backup swarm.db --store monday.db --force    # restores it

    FILE is there when all of it is on the disk and has been looked through, and not before: whatever ends the command,
    what was there is as it was. Ctrl-C leaves nothing behind.
    """  # noqa: D301 - click looks for the character
    # ruff: noqa: PLC0415 - see `serve`
    import trio

    from trio_swarm.cli.interruptible import until_signal
    from trio_swarm.storage.backup import Backup

    copying = Backup(find_store(config, store), Path(file), force=force)
    sizes: list[int] = []
    failures: list[StorageError] = []

    async def interrupt_when_cancelled() -> None:
        try:
            await trio.sleep_forever()
        finally:
            copying.interrupt()

    async def copy() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupt_when_cancelled)
            try:
                sizes.append(await trio.to_thread.run_sync(copying.run))
            except StorageError as error:
                if not copying.interrupted:
                    failures.append(error)
            nursery.cancel_scope.cancel()

    trio.run(until_signal, copy)
    for failure in failures:
        raise _told(failure) from failure
    if not sizes:
        raise click.exceptions.Exit(CODE)
    click.echo(f"{printable(file)}: {sizes[0] / MIB:.1f} MiB")


def _told(failure: StorageError) -> Exception:
    """A disk that is full may have room tomorrow; all else is the operator's to change."""
    cause = failure.__cause__
    no_room = isinstance(cause, OSError) and cause.errno in _NO_ROOM
    if isinstance(cause, sqlite3.Error):
        no_room = cause.sqlite_errorname == "SQLITE_FULL"
    return click.ClickException(failure.reason) if no_room else SettingsError("backup", failure.reason)
