"""Durable histories as tables: what is added, what goes with time, and the marks of what is gone.

A history is bounded as a journal is, by events, bytes and age, and what is beyond that goes when something is added. It
is let grow by a sixteenth more, so that not every event has to make room for itself; a journal that is filled from it
keeps what it may. Of a `latest` topic only the newest event of each key is there: the others nobody can miss.

An object that nobody adds to any more keeps its history until its newest event has outlived its age. Then all of it
goes, marks too: a journal without a history takes everything before itself for lost, which is certain as well.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from trio_swarm.journal.event import Draft, EventId
from trio_swarm.journal.history import KeptMessage, Losses
from trio_swarm.journal.journal import OVERHEAD_BYTES
from trio_swarm.settings import REPEATS, JournalSettings
from trio_swarm.storage import Owner, Record
from trio_swarm.storage.known import KnownHistory, KnownObject

SLACK: Final = 16  # a sixteenth, and as many events at least
LONGEST_S: Final = 10_000_000_000.0  # 300 years: an age beyond that, or without a limit, has no place in a table
MESSAGES_MS: Final = 120_000  # a repeat comes within a minute of a restart, and is of the minute before it
MESSAGES_SLACK: Final = 64  # about so many more than `REPEATS` of them are let be
SWEPT_EVENTS: Final = 10_000  # at a time: some 30 ms of the writer's

_ADD: Final = "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_ADD_MESSAGE: Final = "INSERT INTO message VALUES (?, ?, ?, ?, ?)"
_TRIM_MESSAGES: Final = "DELETE FROM message WHERE object = ? AND ms < ?"
_OLD_MESSAGE: Final = "SELECT ms, counter FROM message WHERE object = ? ORDER BY ms DESC, counter DESC LIMIT 1 OFFSET ?"
_COUNT: Final = "UPDATE topic SET count = count + ? WHERE object = ? AND name = ? RETURNING number"
_BEGIN: Final = (
    "INSERT INTO topic (object, name, count, mark_ms, mark_counter) VALUES (?, ?, 0, ?, ?) ON CONFLICT DO NOTHING"
)
_REPLACE: Final = "DELETE FROM event WHERE topic = ? AND slot = ? RETURNING length(data)"
_OLDEST: Final = "SELECT ms, counter, topic, length(data) FROM event WHERE object = ? ORDER BY ms, counter"
_SUMS: Final = (
    "SELECT events, bytes, ifnull((SELECT min(ms) FROM event WHERE event.object = history.object), until_ms)"
    " FROM history WHERE object = ?"
)
_END: Final = "DELETE FROM topic WHERE object = ? AND name = ? RETURNING number, mark_ms, mark_counter"
_END_EVENTS: Final = "DELETE FROM event WHERE object = ? AND topic = ? RETURNING ms, counter, length(data)"
_RAISE_FLOOR: Final = (
    "UPDATE history SET floor_ms = ?1, floor_counter = ?2 WHERE object = ?3 AND (floor_ms, floor_counter) < (?1, ?2)"
)


class Histories:
    """See the module. Writes into the transaction that is open."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def has_any(self, known: KnownObject) -> bool:
        """Whether the object has a history."""
        return known.history is not None or self._look(known) is not None

    def add(self, known: KnownObject, record: Record) -> None:
        """Add a turn's events and what it says about losses, and let go what is too much."""
        history = known.history or self._look(known)
        if history is None:
            history = self._begin(known, record)
        elif record.losses is not None:
            floor = record.losses.floor
            self._connection.execute(
                "UPDATE history SET floor_ms = ?, floor_counter = ?, lossy = ? WHERE object = ?",
                (*floor, record.losses.lossy, known.number),
            )
        self._end(known.number, history, record.ended)
        until_ms: int | None = None
        if record.events:
            topics = self._count(known.number, record)
            for id_, draft in record.events:
                self._insert(known.number, history, id_, draft, topics[draft.topic], record)
            newest_ms = record.events[-1][0].ms
            self._trim(known.number, history, record.keep, newest_ms)
            until_ms = newest_ms + _age_ms(record.keep)
        if record.message is not None:
            self._note(known.number, record.message)
        if record.events or record.ended:
            self._connection.execute(
                "UPDATE history SET events = ?, bytes = ?, until_ms = ifnull(?, until_ms) WHERE object = ?",
                (history.events, history.bytes, until_ms, known.number),
            )

    def sweep(self, now_ms: int) -> list[Owner]:
        """Forget histories whose newest event has outlived its age, some at a time; answers whose they were."""
        execute = self._connection.execute
        rows = execute(
            "SELECT number, kind, id, object.bytes, events FROM history JOIN object ON number = object"
            " WHERE until_ms < ? ORDER BY until_ms LIMIT 1000",
            (now_ms,),
        ).fetchall()
        swept: list[Owner] = []
        events = 0
        for number, kind, id_, kept, count in rows:
            events += count
            if swept and events > SWEPT_EVENTS:
                break
            swept.append((kind, id_))
            for table in ("event", "topic", "message", "history"):
                execute(f"DELETE FROM {table} WHERE object = ?", (number,))  # noqa: S608 - names of our own
            if not kept:
                execute("DELETE FROM object WHERE number = ?", (number,))
        return swept

    def _look(self, known: KnownObject) -> KnownHistory | None:
        row = self._connection.execute(_SUMS, (known.number,)).fetchone()
        known.history = None if row is None else KnownHistory(*row)
        return known.history

    def _begin(self, known: KnownObject, record: Record) -> KnownHistory:
        # Without a word about losses there was a history, which has outlived its age: what was in it is lost, too.
        losses = record.losses or Losses(_before(record), record.lossy)
        ms, counter = losses.floor
        self._connection.execute(
            "INSERT INTO history VALUES (?, ?, ?, ?, 0, 0, ?)",
            (known.number, ms, counter, losses.lossy, ms + _age_ms(record.keep)),
        )
        known.history = KnownHistory(0, 0, ms)
        return known.history

    def _count(self, number: int, record: Record) -> Mapping[str, int]:
        """Count the events of each topic; answers the topics' numbers."""
        execute = self._connection.execute
        numbers: dict[str, int] = {}
        for name, count in Counter(draft.topic for _, draft in record.events).items():
            arguments = (count, number, name)
            begun = record.begun.get(name)
            row = None if begun is not None else execute(_COUNT, arguments).fetchone()
            if row is None:
                execute(_BEGIN, (number, name, *(begun or _before(record))))
                row = execute(_COUNT, arguments).fetchone()
            numbers[name] = row[0]
        return numbers

    def _end(self, number: int, history: KnownHistory, topics: Iterable[str]) -> None:
        """Forget these topics: what they had is then lost as that of any other is."""
        execute = self._connection.execute
        for name in topics:
            for topic, *mark in execute(_END, (number, name)).fetchall():
                gone = execute(_END_EVENTS, (number, topic)).fetchall()
                newest = max([tuple(mark), *((ms, counter) for ms, counter, _ in gone)])
                execute(_RAISE_FLOOR, (*newest, number))
                history.events -= len(gone)
                history.bytes -= sum(size + OVERHEAD_BYTES for _, _, size in gone)

    def _insert(
        self, number: int, history: KnownHistory, id_: EventId, draft: Draft, topic: int, record: Record
    ) -> None:
        execute = self._connection.execute
        slot = None
        if draft.topic in record.latest:
            slot = "" if draft.key is None else f"={draft.key}"  # no key and an empty one are two
        if slot is not None:
            for (size,) in execute(_REPLACE, (topic, slot)).fetchall():
                history.events -= 1
                history.bytes -= size + OVERHEAD_BYTES
        execute(_ADD, (number, *id_, topic, draft.type, draft.key, slot, draft.data))
        if not history.events:
            history.oldest_ms = id_.ms
        history.events += 1
        history.bytes += len(draft.data) + OVERHEAD_BYTES

    def _note(self, number: int, message: KeptMessage) -> None:
        """Keep a publication's message id for a while; and of many, the newest."""
        execute = self._connection.execute
        execute(_ADD_MESSAGE, (number, *message.id, message.message, message.count))
        execute(_TRIM_MESSAGES, (number, message.id.ms - MESSAGES_MS))
        if not sum(message.id) % MESSAGES_SLACK:  # now and then, for it walks over all of them
            old = execute(_OLD_MESSAGE, (number, REPEATS)).fetchone()
            if old is not None:
                execute("DELETE FROM message WHERE object = ? AND (ms, counter) <= (?, ?)", (number, *old))

    def _trim(self, number: int, history: KnownHistory, keep: JournalSettings, newest_ms: int) -> None:
        age_ms = _age_ms(keep)
        if not (
            history.events > keep.events + max(SLACK, keep.events // SLACK)
            or history.bytes > keep.bytes + keep.bytes // SLACK
            or history.oldest_ms < newest_ms - age_ms - age_ms // SLACK
        ):
            return
        last: EventId | None = None
        marks: dict[int, EventId] = {}
        for ms, counter, topic, size in self._connection.execute(_OLDEST, (number,)):
            history.oldest_ms = ms
            fits = history.events <= keep.events and history.bytes <= keep.bytes and ms >= newest_ms - age_ms
            if fits or history.events <= 1:
                break
            last = marks[topic] = EventId(ms, counter)
            history.events -= 1
            history.bytes -= size + OVERHEAD_BYTES
        if last is None:
            return
        self._connection.execute("DELETE FROM event WHERE object = ? AND (ms, counter) <= (?, ?)", (number, *last))
        for topic, mark in marks.items():
            self._connection.execute("UPDATE topic SET mark_ms = ?, mark_counter = ? WHERE number = ?", (*mark, topic))


def _age_ms(keep: JournalSettings) -> int:
    return round(min(keep.age_s, LONGEST_S) * 1000)


def _before(record: Record) -> EventId:
    """The last id that may have been given before this record."""
    ms, counter = record.events[0][0] if record.events else EventId(0, 1)
    return EventId(ms, counter - 1) if counter else EventId(max(0, ms - 1), 2**62)
