"""Standard output when it takes nothing any more: its reader has gone, or its disk is full.

For a command that serves, what it prints is a courtesy, and losing it ends nothing: `announce`. For one whose output is
the work, losing it is one sentence: `cannot_write`. Either way what is still in Python's buffer goes nowhere; else the
interpreter would try once more at its end, and complain.
"""

import errno
import os
import sys
from contextlib import suppress
from typing import Final

import click

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def announce(*lines: str) -> None:
    """Say where something is; to nobody, if nobody can be told."""
    try:
        for line in lines:
            click.echo(line)
    except OSError:
        discard()


def cannot_write(error: OSError) -> click.ClickException:
    """What a command says whose output found no room."""
    return click.ClickException(f"cannot write the output: {error.strerror or error}")


def is_lost(error: OSError) -> bool:
    """Whether it says that output cannot be written. Then what is left of that is discarded."""
    try:
        sys.stdout.flush()
    except OSError:
        discard()
        return True
    return error.errno in _NO_ROOM and error.filename is None  # nothing is left where Python does not buffer


def discard() -> None:
    """Have nothing more arrive: the descriptor leads nowhere from here on, also after a reload."""
    nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    finally:
        os.close(nowhere)
    with suppress(OSError):
        sys.stdout.flush()
