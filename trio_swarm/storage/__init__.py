"""Where objects keep what must outlast them: one small protocol, filled by `memory.py` and `sqlite.py`.

What one turn keeps is one `Commit`: changed values, events of durable topics, alarms. `submit` takes it without
waiting; the outcome comes later, exactly once, in the Trio thread, through the callback. Commits of one owner have
their outcomes in the order of their submission. A store refuses every later commit of an incarnation whose commit
failed, so that nothing is built on what never was.

**Durable history.** A store keeps the events of durable topics as long as a journal would, and with them what a later
journal must know to answer a reader for certain (`journal/history.py`).
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Protocol

import attrs

from trio_swarm.errors import StorageError
from trio_swarm.journal.event import Draft, EventId
from trio_swarm.journal.history import History, KeptMessage, Losses
from trio_swarm.settings import JournalSettings

OBJECT_BYTES: Final = 64 * 1024 * 1024  # values and alarms of one object: what it reads at its start fits into memory
ALARM_BYTES: Final = 64  # counted for an alarm beside its key and data: a row and two index entries

Owner = tuple[str, str]  # (kind, id)
Done = Callable[[StorageError | None], None]


@attrs.frozen
class Alarm:
    """A durable timer as it is set: when it is due (wall clock), its data (encoded), and the attempt that is next."""

    due_ms: int
    data: bytes
    attempt: int = 1


@attrs.frozen
class SetAlarm:
    """An alarm as it is kept. Each time a key is set, a store gives it another `number`, by which the two differ."""

    owner: Owner
    key: str
    number: int
    alarm: Alarm


@attrs.frozen
class Record:
    """What a turn adds to the durable history of its object.

    Attributes:
        events: of durable topics, rising.
        keep: how much of them; what is beyond goes, the oldest first.
        begun: topics that become durable here, each with the id up to which its earlier events may be gone.
        ended: topics that are durable no longer: their events go.
        losses: set where it differs from what the store has been told.
        lossy: as `losses` says or would say; for a store that has let go of the history since.
        latest: those of the events' topics of which only the newest event of each key counts.
        message: the publication that the turn was, if it is to be known again by its message id.
    """

    events: Sequence[tuple[EventId, Draft]]
    keep: JournalSettings
    begun: Mapping[str, EventId] = attrs.Factory(dict)
    ended: frozenset[str] = frozenset()
    losses: Losses | None = None
    lossy: bool = True
    latest: frozenset[str] = frozenset()
    message: KeptMessage | None = None


@attrs.frozen
class Commit:
    """What one turn keeps.

    Attributes:
        owner: whose it is.
        incarnation: rises with every start of this owner in this process.
        changes: key to new value (encoded), or to None for a deletion.
        clear: all values go first. Alarms and history stay.
        record: events.
        alarms: key to alarm, or to None for a deletion.
    """

    owner: Owner
    incarnation: int
    changes: Mapping[str, bytes | None]
    clear: bool = False
    record: Record | None = None
    alarms: Mapping[str, Alarm | None] = attrs.Factory(dict)


@attrs.frozen
class Due:
    """Alarms whose time has come, the longest due first, and when the next one after them is due."""

    alarms: Sequence[SetAlarm]
    next_ms: int | None


class Storage(Protocol):
    """What the runtime asks of a store. Whatever reads raises `StorageError` where the store cannot be read."""

    @property
    def trouble(self) -> str | None:
        """Why it takes no commits at present; None where the last ones went well."""

    def submit(self, commit: Commit, done: Done) -> None:
        """Take a commit; `done(None)` when it is safe, `done(error)` when not. May call it before returning."""

    async def get_many(self, owner: Owner, keys: Sequence[str]) -> dict[str, bytes]:
        """The committed values of those of `keys` that exist."""

    async def scan(
        self, owner: Owner, prefix: str, start: str | None, limit: int, *, reverse: bool = False
    ) -> list[tuple[str, bytes]]:
        """At most `limit` committed pairs whose key has the prefix, from `start` on, in key order."""

    async def history(self, owner: Owner) -> History | None:
        """The durable history; None where there is none."""

    async def alarm(self, owner: Owner, key: str) -> SetAlarm | None:
        """The alarm that is set for a key."""

    async def due_alarms(self, kinds: Sequence[str], now_ms: int, limit: int, but: Collection[Owner] = ()) -> Due:
        """At most `limit` alarms of objects of these kinds, but of those `but`, that are due at `now_ms`."""

    async def count_alarms(self, kinds: Sequence[str], due_ms: int) -> int:
        """How many alarms of these kinds are due at that moment."""

    async def amend(self, alarm: SetAlarm, to: Alarm | None) -> None:
        """Have an alarm that cannot be rung due later, or (None) no more, if it is still set as it was.

        Its data stays. Cancelled, it may still come about.

        Raises:
            StorageError: it cannot be written; the alarm is due as before.
        """

    async def clock_mark(self) -> int:
        """The reserved high-water mark of the event clock, in milliseconds; 0 in a new store."""

    async def reserve_clock(self, until_ms: int) -> None:
        """Reserve ids up to this moment: after a restart the clock begins above it."""

    async def aclose(self) -> None:
        """Flush and close. Idempotent."""
