"""Commits as changes of tables: what both stores have in common, whoever opens and closes the transaction.

Each commit stands in a savepoint of its own, so that one that is refused takes no other of its transaction with it.
After its first failure an incarnation is refused for good: what follows was built on what never was.

Row numbers and sizes of objects are remembered, for as many objects as are busy at a time. What is remembered is what
the open transaction has made of it: when one is undone, it is forgotten.
"""

import sqlite3
from collections.abc import Callable, Iterable
from typing import Final

from cachetools import LRUCache

from trio_swarm.errors import StorageError
from trio_swarm.journal.clock import RESERVE_MS
from trio_swarm.settings import OBJECTS_KNOWN, REFUSED_LIVES
from trio_swarm.storage import ALARM_BYTES, OBJECT_BYTES, Alarm, Commit, Owner
from trio_swarm.storage.histories import Histories
from trio_swarm.storage.known import KnownObject

_OLD_SIZE: Final = "SELECT length(CAST(key AS BLOB)) + length(value) FROM pair WHERE object = ? AND key = ?"
_PUT: Final = "INSERT INTO pair VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value = excluded.value"
_DELETE: Final = "DELETE FROM pair WHERE object = ? AND key = ?"
_OLD_ALARM: Final = "DELETE FROM alarm WHERE object = ? AND key = ? RETURNING length(CAST(key AS BLOB)) + length(data)"
_ALARM_BYTES: Final = (
    "SELECT ifnull(sum(length(CAST(key AS BLOB)) + length(data)), 0), count(*) FROM alarm WHERE object = ?"
)


class Tables:
    """See the module.

    Args:
        connection: of the present schema; used by one thread at a time.
        explain: makes a sentence of what the database raised.
        object_bytes: values and alarms of one object; the commit that would pass it is refused.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        explain: Callable[[Exception], str],
        object_bytes: int = OBJECT_BYTES,
    ) -> None:
        self._connection = connection
        self._explain = explain
        self._object_bytes = object_bytes
        self._known: LRUCache[Owner, KnownObject] = LRUCache(OBJECTS_KNOWN)
        self._refused: LRUCache[Owner, int] = LRUCache(REFUSED_LIVES)  # the newest incarnation that was refused
        self._histories = Histories(connection)

    def apply(self, commit: Commit) -> StorageError | None:
        """Write a commit into the open transaction; an error means that nothing of it is there.

        Raises:
            sqlite3.Error: the whole transaction is lost.
        """
        if commit.incarnation <= self._refused.get(commit.owner, 0):
            return StorageError("an earlier commit of this incarnation was refused")
        self._connection.execute("SAVEPOINT turn")
        try:
            self._change(commit)
        except Exception as error:
            if not self._connection.in_transaction:
                raise  # SQLite has given up all of it, and not just this turn
            self._connection.execute("ROLLBACK TO turn")
            self._connection.execute("RELEASE turn")
            self._known.pop(commit.owner, None)
            self._refuse(commit)
            return error if isinstance(error, StorageError) else StorageError(self._explain(error))
        self._connection.execute("RELEASE turn")
        return None

    def lost(self, commits: Iterable[Commit]) -> None:
        """The transaction with these commits was undone: their incarnations are refused."""
        self._known.clear()
        for commit in commits:
            self._refuse(commit)

    def reserve_clock(self, until_ms: int) -> None:
        """Raise the clock's mark; now and then also forget what nobody has added to for longer than its age."""
        self._connection.execute(
            "INSERT INTO meta VALUES ('clock', ?) ON CONFLICT DO UPDATE SET value = max(value, excluded.value)",
            (until_ms,),
        )
        for owner in self._histories.sweep(until_ms - RESERVE_MS):
            self._known.pop(owner, None)

    def amend(self, number: int, to: Alarm | None) -> None:
        """Have this very alarm due later, or no more."""
        if to is not None:
            changes = (to.due_ms, to.attempt, number)
            self._connection.execute("UPDATE alarm SET due_ms = ?, attempt = ? WHERE number = ?", changes)
            return
        found = self._connection.execute(
            "SELECT object.kind, id, key FROM alarm JOIN object ON object.number = object WHERE alarm.number = ?",
            (number,),
        ).fetchone()
        if found is not None:
            kind, id_, key = found
            self._change(Commit((kind, id_), 0, {}, alarms={key: None}))

    def _refuse(self, commit: Commit) -> None:
        self._refused[commit.owner] = max(commit.incarnation, self._refused.get(commit.owner, 0))

    def _change(self, commit: Commit) -> None:
        known = self._find(commit.owner)
        size = self._change_values(known, commit)
        for key, alarm in commit.alarms.items():
            size += self._change_alarm(known, commit.owner[0], key, alarm)
        if size > self._object_bytes:
            kind, id_ = commit.owner
            raise StorageError(
                f"{kind}/{id_} would keep {size} bytes, and an object may keep {self._object_bytes}", too_much=True
            )
        if commit.record is not None:
            self._histories.add(known, commit.record)
        if size != known.bytes:
            self._connection.execute("UPDATE object SET bytes = ? WHERE number = ?", (size, known.number))
            known.bytes = size
        if not size and not self._histories.has_any(known):
            self._connection.execute("DELETE FROM object WHERE number = ?", (known.number,))
            self._known.pop(commit.owner, None)

    def _change_values(self, known: KnownObject, commit: Commit) -> int:
        """Answers how many bytes the object then has."""
        execute = self._connection.execute
        number, size = known.number, known.bytes
        if commit.clear:
            execute("DELETE FROM pair WHERE object = ?", (number,))
            alarm_bytes, alarms = execute(_ALARM_BYTES, (number,)).fetchone()
            size = alarm_bytes + alarms * ALARM_BYTES
        for key, value in commit.changes.items():
            if not commit.clear:
                old = execute(_OLD_SIZE, (number, key)).fetchone()
                size -= 0 if old is None else old[0]
            if value is None:
                execute(_DELETE, (number, key))
            else:
                execute(_PUT, (number, key, value))
                size += len(key.encode()) + len(value)
        return size

    def _change_alarm(self, known: KnownObject, kind: str, key: str, alarm: Alarm | None) -> int:
        """Answers how many bytes more the object has. A new row has a new number."""
        execute = self._connection.execute
        old = execute(_OLD_ALARM, (known.number, key)).fetchone()
        grown = 0 if old is None else -old[0] - ALARM_BYTES
        if alarm is not None:
            execute(
                "INSERT INTO alarm (object, key, due_ms, attempt, data, kind) VALUES (?, ?, ?, ?, ?, ?)",
                (known.number, key, alarm.due_ms, alarm.attempt, alarm.data, kind),
            )
            grown += len(key.encode()) + len(alarm.data) + ALARM_BYTES
        return grown

    def _find(self, owner: Owner) -> KnownObject:
        """The object's row, made where there is none."""
        found = self._known.get(owner)
        if found is None:
            row = self._connection.execute(
                "SELECT number, bytes FROM object WHERE kind = ? AND id = ?", owner
            ).fetchone()
            if row is None:
                row = self._connection.execute(
                    "INSERT INTO object (kind, id, bytes) VALUES (?, ?, 0) RETURNING number, bytes", owner
                ).fetchone()
            found = self._known[owner] = KnownObject(*row)
        return found
