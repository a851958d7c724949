"""Whether a store is whole: SQLite's own look at every page, row and index.

`integrity_check` and not `quick_check`: an index that has lost an entry hides an alarm or an event for good, and only
the former holds indexes against their tables. It reads all of the file, so whoever waits for it may have enough before
its end; and all the while its transaction keeps the owner's log from being emptied, which is the other reason for one.
"""

import sqlite3
from collections.abc import Callable
from typing import Final

import attrs

FAULTS: Final = 10  # that are looked for: one is enough to know, and a few show whether it is one place or all
STEPS: Final = 10_000  # of SQLite's machine between two questions whether it is enough: below a millisecond


@attrs.frozen
class Integrity:
    """What was found. `faults` are SQLite's words; `whole` says whether all was looked at."""

    faults: tuple[str, ...]
    whole: bool


def check_integrity(connection: sqlite3.Connection, enough: Callable[[], bool]) -> Integrity:
    """Look at a database until its end, or until it is enough.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    faults: list[str] = []
    whole = True
    connection.set_progress_handler(enough, STEPS)
    try:
        faults.extend(words for (words,) in connection.execute(f"PRAGMA integrity_check({FAULTS})") if words != "ok")
    except sqlite3.DatabaseError as error:
        whole = False
        if error.sqlite_errorname.startswith("SQLITE_CORRUPT"):
            faults.append(str(error))  # so much that the look itself cannot go on
        elif error.sqlite_errorname != "SQLITE_INTERRUPT":
            raise
    finally:
        connection.set_progress_handler(None, 0)
    return Integrity(tuple(" ".join(words.split()) for words in faults), whole)
