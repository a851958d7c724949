"""Ctrl-C before a command has its own handling: nothing has been begun, so the process ends at once, without a word.

Python would print a traceback of some import. This is called before anything else is imported, and only where the
process is the program: a library that changed what a signal does would surprise its importer.
"""

import os
import signal
import sys
from types import FrameType
from typing import Final

CODE: Final = 130  # what shells make of a process that SIGINT ended


def end_quietly() -> None:
    """From here on SIGINT ends the process; where it is ignored, it stays so."""
    if _is_program() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def raise_instead() -> None:
    """Have SIGINT raise `KeyboardInterrupt` again, for a command whose handling that is."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _is_program() -> bool:
    name = os.path.basename(sys.argv[0]) if sys.argv else ""  # noqa: PTH119 - pathlib takes its time
    return name == "trio-swarm" or (name == "-m" and "trio_swarm.cli" in sys.orig_argv)


def _end(_number: int, _frame: FrameType | None) -> None:
    os._exit(CODE)
