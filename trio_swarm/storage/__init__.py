"""Where objects keep their state: one small protocol, filled by `memory.py` and `sqlite.py`; `opening.py` chooses.

A turn's changes are one `Commit`. `submit` takes it without waiting; the outcome comes later, exactly once, in the
Trio thread, through the callback. Commits of one owner have their outcomes in the order of their submission. A store
refuses every later commit of an incarnation whose commit failed, so that nothing is built on what never was.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import attrs

from trio_swarm.errors import StorageError

OBJECT_BYTES: Final = 64 * 1024 * 1024  # keys and values of one object: what it reads at its start fits into memory

Owner = tuple[str, str]  # (kind, id)
Done = Callable[[StorageError | None], None]


@attrs.frozen
class Commit:
    """One turn's changes: key to new value (encoded), or to None for a deletion. `clear` comes before the changes."""

    owner: Owner
    incarnation: int  # rises with every start of this owner in this process
    changes: Mapping[str, bytes | None]
    clear: bool = False


class Storage(Protocol):
    """What the runtime asks of a store."""

    def submit(self, commit: Commit, done: Done) -> None:
        """Take a commit; `done(None)` when it is safe, `done(error)` when not. May call it before returning."""

    async def get_many(self, owner: Owner, keys: Sequence[str]) -> dict[str, bytes]:
        """The committed values of those of `keys` that exist."""

    async def scan(
        self, owner: Owner, prefix: str, start: str | None, limit: int, *, reverse: bool = False
    ) -> list[tuple[str, bytes]]:
        """At most `limit` committed pairs whose key has the prefix, from `start` on, in key order."""

    async def clock_mark(self) -> int:
        """The reserved high-water mark of the event clock, in milliseconds; 0 in a new store."""

    async def reserve_clock(self, until_ms: int) -> None:
        """Reserve ids up to this moment: after a restart the clock begins above it."""

    async def aclose(self) -> None:
        """Flush and close. Idempotent."""
