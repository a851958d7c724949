"""What a store keeps, for people: read beside its owner, and never in its way.

A reader that holds a transaction open keeps the log from being emptied, and whoever shows a list may be held up for as
long as a pager shows its first page. So a list is read in pages, each a moment of its own; only a single object is read
in one transaction.
"""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

from trio_swarm.errors import StorageError
from trio_swarm.journal.event import EventId
from trio_swarm.storage import Owner
from trio_swarm.storage.schema import explain

PAGE: Final = 500  # objects read at once: a few milliseconds, and little memory

_PAGE: Final = """
    SELECT kind, id, bytes,
        (SELECT count(*) FROM pair WHERE pair.object = o.number),
        (SELECT count(*) FROM event WHERE event.object = o.number),
        (SELECT min(due_ms) FROM alarm WHERE alarm.object = o.number)
    FROM object AS o WHERE {} ORDER BY kind, id LIMIT ?
"""
_ALL: Final = _PAGE.format("(kind, id) > (?, ?)")
_OF_KIND: Final = _PAGE.format("kind = ? AND id > ?")


@attrs.frozen
class ObjectRow:
    """One object: what it keeps (`bytes` of values and alarms), and when its next alarm is due (wall clock)."""

    kind: str
    id: str
    bytes: int
    values: int
    events: int
    next_alarm_ms: int | None


@attrs.frozen
class StoredAlarm:
    """An alarm that is set; its data is MessagePack."""

    key: str
    due_ms: int
    attempt: int
    data: bytes


@attrs.frozen
class StoredTopic:
    """A durable topic: how many events it ever had, and the id up to which they may be gone."""

    topic: str
    count: int
    mark: EventId


@attrs.frozen
class StoredEvent:
    """An event that is kept; its data is JSON."""

    id: EventId
    topic: str
    type: str
    key: str | None
    data: bytes


@attrs.frozen
class StoredObject:
    """All that one object keeps: `size` counts values and alarms in bytes; values are MessagePack."""

    kind: str
    id: str
    size: int
    values: Sequence[tuple[str, bytes]]
    alarms: Sequence[StoredAlarm]
    topics: Sequence[StoredTopic]
    events: Sequence[StoredEvent]


def list_objects(connection: sqlite3.Connection, path: Path, kind: str | None = None) -> Iterator[list[ObjectRow]]:
    """The objects by kind and id, some at a time. No transaction is open while the caller has them.

    An object that comes or goes meanwhile may be among them or not; none is there twice.

    Args:
        connection: as `open_reader` gives it.
        path: for what errors say.
        kind: of this kind alone.

    Raises:
        StorageError: the store cannot be read.
    """
    after = ("", "") if kind is None else (kind, "")
    query = _ALL if kind is None else _OF_KIND
    while True:
        with _told(path):
            found = [ObjectRow(*row) for row in connection.execute(query, (*after, PAGE)).fetchall()]
        if found:
            yield found
        if len(found) < PAGE:
            return
        after = found[-1].kind, found[-1].id


def read_object(connection: sqlite3.Connection, path: Path, owner: Owner) -> StoredObject | None:
    """All of one object as it was at one moment; None where the store has none of this name.

    Raises:
        StorageError: the store cannot be read.
    """
    with _told(path), _one_moment(connection):
        row = connection.execute("SELECT number, bytes FROM object WHERE kind = ? AND id = ?", owner).fetchone()
        if row is None:
            return None
        number, size = row

        def rows(query: str) -> list[tuple[object, ...]]:
            return connection.execute(query, (number,)).fetchall()

        values = rows("SELECT key, value FROM pair WHERE object = ? ORDER BY key")
        alarms = rows("SELECT key, due_ms, attempt, data FROM alarm WHERE object = ? ORDER BY due_ms, number")
        topics = rows("SELECT name, count, mark_ms, mark_counter FROM topic WHERE object = ? ORDER BY name")
        events = rows(
            "SELECT ms, counter, name, type, key, data FROM event LEFT JOIN topic ON topic.number = event.topic"
            " WHERE event.object = ? ORDER BY ms, counter"
        )
    return StoredObject(
        kind=owner[0],
        id=owner[1],
        size=size,
        values=values,  # type: ignore[arg-type]
        alarms=[StoredAlarm(*each) for each in alarms],  # type: ignore[arg-type]
        topics=[StoredTopic(name, count, EventId(*mark)) for name, count, *mark in topics],  # type: ignore[arg-type]
        events=[StoredEvent(EventId(ms, counter), *each) for ms, counter, *each in events],  # type: ignore[arg-type]
    )


@contextlib.contextmanager
def _one_moment(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")  # nothing was written


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(explain(error, path)) from error
