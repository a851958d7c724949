"""What is read from a store: one function a question, each on a connection that nobody else uses meanwhile."""

import contextlib
import heapq
import itertools
import sqlite3
from collections.abc import Collection, Sequence
from operator import itemgetter
from typing import Final

from trio_swarm.journal.event import Draft, EventId
from trio_swarm.journal.history import History, KeptMessage, KeptTopic, Losses
from trio_swarm.storage import Alarm, Due, Owner, SetAlarm

# One statement a question where that can be: each lets go of the interpreter's lock, and waits to have it back.
_NUMBER: Final = "SELECT number FROM object WHERE kind = ? AND id = ?"
_VALUE: Final = "SELECT value FROM pair WHERE object = ? AND key = ?"
_ONE: Final = "SELECT value FROM pair WHERE object = (SELECT number FROM object WHERE kind = ? AND id = ?) AND key = ?"
_UP: Final = (
    "SELECT key, value FROM pair WHERE object = (SELECT number FROM object WHERE kind = ? AND id = ?)"
    " AND key >= ? AND key < CAST(? AS TEXT) ORDER BY key LIMIT ?"
)
_DOWN: Final = _UP.replace("ORDER BY key", "ORDER BY key DESC")
_ALARM: Final = (
    "SELECT alarm.number, due_ms, data, attempt FROM alarm"
    " WHERE object = (SELECT number FROM object WHERE kind = ? AND id = ?) AND key = ?"
)
# A statement a kind: one for several would sort all that are due. CROSS JOIN is SQLite's word for this order alone.
_DUE: Final = (
    "SELECT alarm.kind, id, key, alarm.number, due_ms, data, attempt"
    " FROM alarm CROSS JOIN object ON object.number = alarm.object WHERE alarm.kind = ? AND due_ms <= ?{}"
    " ORDER BY due_ms LIMIT ?"
)
_NEXT: Final = "SELECT min(due_ms) FROM alarm WHERE kind = ? AND due_ms > ?"
_COUNT: Final = "SELECT count(*) FROM alarm WHERE kind IN ({}) AND due_ms <= ?"
_LOSSES: Final = (
    "SELECT object, floor_ms, floor_counter, lossy FROM history"
    " WHERE object = (SELECT number FROM object WHERE kind = ? AND id = ?)"
)
_EVENTS: Final = "SELECT ms, counter, topic, type, key, data FROM event WHERE object = ? ORDER BY ms, counter"
_due_ms: Final = itemgetter(4)  # of a row of _DUE
_MESSAGES: Final = "SELECT message, ms, counter, count FROM message WHERE object = ? ORDER BY ms, counter"


def get_many(connection: sqlite3.Connection, owner: Owner, keys: Sequence[str]) -> dict[str, bytes]:
    """See `Storage.get_many`."""
    if len(keys) == 1:
        row = connection.execute(_ONE, (*owner, keys[0])).fetchone()
        return {} if row is None else {keys[0]: row[0]}
    row = connection.execute(_NUMBER, owner).fetchone()
    if row is None:
        return {}
    rows = ((key, connection.execute(_VALUE, (row[0], key)).fetchone()) for key in keys)
    return {key: value[0] for key, value in rows if value is not None}


def scan(
    connection: sqlite3.Connection, owner: Owner, prefix: str, start: str | None, limit: int, *, reverse: bool
) -> list[tuple[str, bytes]]:
    """See `Storage.scan`."""
    low = prefix if start is None or reverse else max(prefix, start)
    # Text compares by its bytes, and no byte of UTF-8 is as high as FF: behind everything with the prefix.
    high = prefix.encode() + b"\xff"
    if reverse and start is not None:
        high = min(high, start.encode() + b"\x00")
    return connection.execute(_DOWN if reverse else _UP, (*owner, low, high, limit)).fetchall()


def clock_mark(connection: sqlite3.Connection) -> int:
    """See `Storage.clock_mark`."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'clock'").fetchone()
    return 0 if row is None else int(row[0])


def history(connection: sqlite3.Connection, owner: Owner) -> History | None:
    """See `Storage.history`. All of it as of one moment."""
    if connection.execute(_LOSSES, owner).fetchone() is None:  # of most objects
        return None
    connection.execute("BEGIN")
    try:
        row = connection.execute(_LOSSES, owner).fetchone()
        if row is None:
            return None
        number, *floor, lossy = row
        topics: dict[str, KeptTopic] = {}
        names: dict[int, str] = {}
        for topic, name, count, *mark in connection.execute(
            "SELECT number, name, count, mark_ms, mark_counter FROM topic WHERE object = ?", (number,)
        ):
            topics[name] = KeptTopic(count, EventId(*mark))
            names[topic] = name
        events = [
            (EventId(ms, counter), Draft(data, names[topic], type_, key, durable=True))
            for ms, counter, topic, type_, key, data in connection.execute(_EVENTS, (number,))
        ]
        messages = [
            KeptMessage(message, EventId(ms, counter), count)
            for message, ms, counter, count in connection.execute(_MESSAGES, (number,))
        ]
        return History(Losses(EventId(*floor), bool(lossy)), topics, events, messages)
    finally:
        if connection.in_transaction:  # after some errors SQLite has ended it by itself
            connection.execute("COMMIT")


def alarm(connection: sqlite3.Connection, owner: Owner, key: str) -> SetAlarm | None:
    """See `Storage.alarm`."""
    row = connection.execute(_ALARM, (*owner, key)).fetchone()
    return None if row is None else SetAlarm(owner, key, row[0], Alarm(*row[1:]))


def due_alarms(
    connection: sqlite3.Connection, kinds: Sequence[str], now_ms: int, limit: int, but: Collection[Owner]
) -> Due:
    """See `Storage.due_alarms`. Each kind's come as they are due, and no more are read than are given."""
    with contextlib.ExitStack() as open_:
        rows = []
        for kind in kinds:
            ids = [id_ for other, id_ in but if other == kind]
            without = f" AND id NOT IN ({', '.join('?' * len(ids))})" if ids else ""
            cursor = connection.execute(_DUE.format(without), (kind, now_ms, *ids, limit))
            rows.append(open_.enter_context(contextlib.closing(cursor)))
        merged = itertools.islice(heapq.merge(*rows, key=_due_ms), limit)
        alarms = [SetAlarm((kind, id_), key, number, Alarm(*rest)) for kind, id_, key, number, *rest in merged]
        following = [connection.execute(_NEXT, (kind, now_ms)).fetchone()[0] for kind in kinds]
    return Due(alarms, min((due_ms for due_ms in following if due_ms is not None), default=None))


def count_alarms(connection: sqlite3.Connection, kinds: Sequence[str], due_ms: int) -> int:
    """See `Storage.count_alarms`."""
    marks = ", ".join("?" * len(kinds))
    count: int = connection.execute(_COUNT.format(marks), (*kinds, due_ms)).fetchone()[0]
    return count
