"""Python's collector of cycles, for a process that does nothing but serve: seldom, and not through all that lives.

A full collection costs by what lives, and finds what died in a cycle; with thousands of clients it holds all of them
for half a second, and finds next to nothing, because a connection that ends leaves no cycle (the tests see to that).
So what has survived one full collection is set aside (`gc.freeze`), and the next ones go through what came after it.
References still free what was set aside. Only a cycle that dies there stays: when what was set aside has doubled, the
next full collection goes through all of it again. That bounds such garbage by what lives.

The collector is the whole process's, so this is for commands and not for a library.
"""

import contextlib
import gc
from collections.abc import Iterator
from typing import Any, Final

THRESHOLDS: Final = (5_000, 10, 10)  # Python's first is 700: what a thousand requests under way hold is young too often
SMALL: Final = 500_000  # objects set aside, about 100 MB, that are not gone through again whatever there was before


class _Setting:
    """What was set aside, and what it may become."""

    def __init__(self) -> None:
        self._most = SMALL

    def __call__(self, phase: str, info: dict[str, Any]) -> None:
        """Python tells that a collection begins, or is over."""
        if info["generation"] < 2:
            return
        if phase == "start":
            if gc.get_freeze_count() > self._most:
                gc.unfreeze()
                self._most = 0
        else:
            gc.freeze()
            self._most = self._most or max(SMALL, 2 * gc.get_freeze_count())


@contextlib.contextmanager
def seldom_collected() -> Iterator[None]:
    """Set the collector so while it lasts; afterwards everything is as it was."""
    before = gc.get_threshold()
    setting = _Setting()
    gc.set_threshold(*THRESHOLDS)
    gc.callbacks.append(setting)
    try:
        yield
    finally:
        gc.callbacks.remove(setting)
        gc.unfreeze()
        gc.set_threshold(*before)
