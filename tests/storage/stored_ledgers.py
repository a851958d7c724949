"""What must hold of the tables of a store with ledgers, whatever was cut off and when: no turn stands by half."""

import msgspec
from ledgers import COUNTED, LATE, PAGES, alarm_key, has_spare

from trio_swarm.journal.journal import OVERHEAD_BYTES
from trio_swarm.settings import JournalSettings
from trio_swarm.storage import ALARM_BYTES

ALWAYS = ("turns", "rung", "reminded", "ticks")  # topics that are durable from their first event on
_FIELDS = {"turns": "turn", "rung": "rung", "reminded": "reminded", "ticks": "tick", "late": "late"}
_SUMS = """
    SELECT kind || '/' || id, object.bytes, events, history.bytes,
        (SELECT ifnull(sum(length(CAST(key AS BLOB)) + length(value)), 0) FROM pair WHERE object = number)
        + (SELECT ifnull(sum(length(CAST(key AS BLOB)) + length(data) + ?), 0) FROM alarm WHERE object = object.number),
        (SELECT count(*) FROM event WHERE object = number),
        (SELECT ifnull(sum(length(data) + ?), 0) FROM event WHERE object = number)
    FROM object LEFT JOIN history ON history.object = number
"""
_STRAYS = """
    SELECT 'pair' FROM pair WHERE object NOT IN (SELECT number FROM object)
    UNION SELECT 'alarm' FROM alarm WHERE object NOT IN (SELECT number FROM object)
    UNION SELECT 'history' FROM history WHERE object NOT IN (SELECT number FROM object)
    UNION SELECT 'topic' FROM topic WHERE object NOT IN (SELECT object FROM history)
    UNION SELECT 'event' FROM event WHERE (object, topic) NOT IN (SELECT object, number FROM topic)
"""


class Stored:
    """One ledger as the tables hold it."""

    def __init__(self, connection, number):
        self.values = {
            key: msgspec.msgpack.decode(value)
            for key, value in connection.execute("SELECT key, value FROM pair WHERE object = ?", (number,))
        }
        self.alarms = {
            key: msgspec.msgpack.decode(data)
            for key, data in connection.execute("SELECT key, data FROM alarm WHERE object = ?", (number,))
        }
        self.topics = {}  # name to count and mark
        self.events = {}  # name to (id, number), in order
        names = {}
        for topic, name, count, *mark in connection.execute(
            "SELECT number, name, count, mark_ms, mark_counter FROM topic WHERE object = ?", (number,)
        ):
            names[topic] = name
            self.topics[name] = (count, tuple(mark))
            self.events[name] = []
        for ms, counter, topic, data in connection.execute(
            "SELECT ms, counter, topic, data FROM event WHERE object = ? ORDER BY ms, counter", (number,)
        ):
            name = names[topic]
            self.events[name].append(((ms, counter), msgspec.json.decode(data)[_FIELDS[name]]))

    @property
    def left(self):
        """Its newest turn."""
        return self.values.get("left", 0)


def read_ledgers(connection):
    """Every ledger, by its id."""
    rows = connection.execute("SELECT id, number FROM object WHERE kind = 'ledger'").fetchall()
    return {id_: Stored(connection, number) for id_, number in rows}


def what_is_wrong(connection, keep=JournalSettings()):  # noqa: B008 - frozen
    """None where the database is whole, its sums agree with its rows, and no ledger holds half of a turn."""
    (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
    if verdict != "ok":
        return verdict
    strays = connection.execute(_STRAYS).fetchall()
    if strays:
        return f"rows that belong to nothing: {strays}"
    for name, size, events, event_bytes, *found in connection.execute(_SUMS, (ALARM_BYTES, OVERHEAD_BYTES)):
        if [size, events or 0, event_bytes or 0] != found:
            return f"{name} has sums of {[size, events, event_bytes]}, and its rows of {found}"
    for id_, stored in read_ledgers(connection).items():
        wrong = what_is_half(stored) or what_is_trimmed(stored, keep)
        if wrong is not None:
            return f"{id_} holds half of a turn: {wrong}"
    return None


def what_is_half(stored):
    """None where the values, the events and the alarms of a ledger are those of the same turns."""
    values, alarms, left = stored.values, stored.alarms, stored.left
    if not left:
        return None if not (set(values) - {"jotted"} or alarms or stored.topics) else "things before the first turn"
    if left != values["right"] or values[f"page:{left % PAGES}"][0] != left:
        return f"{values.keys()} of {left}"
    rung, rung_sum, reminded, ticks = (values.get(name, 0) for name in COUNTED)
    own = {key: number for key, number in alarms.items() if key == alarm_key(number)}
    if (rung + len(own), rung_sum + sum(own.values())) != (left, left * (left + 1) // 2):
        return f"{left} turns set an alarm each: {rung} rang (their sum is {rung_sum}), and there are {sorted(own)}"
    expected = {
        "reminder": None if reminded == left else left,
        "spare": left if has_spare(left) else None,
    }
    if expected != {key: alarms.get(key) for key in expected} or set(alarms) - set(own) - set(expected) - {"tick"}:
        return f"turn {left}, reminded of {reminded}, has {alarms}"
    if alarms.get("tick", ticks) != ticks:
        return f"{ticks} ticks, and {alarms['tick']} when the next is due"
    return what_is_half_published(stored, rung, reminded, ticks)


def what_is_half_published(stored, rung, reminded, ticks):
    """None where the events of a ledger are those of its values."""
    left = stored.left
    counts = {name: stored.topics.get(name, (0,))[0] for name in ("turns", "late", "rung", "ticks")}
    if counts != {"turns": left, "late": max(0, left - LATE + 1), "rung": rung, "ticks": ticks}:
        return f"turn {left}, {rung} rung, {ticks} ticks, and events: {counts}"
    for name, last in (("turns", left), ("late", left), ("ticks", ticks), ("reminded", reminded)):
        numbers = [number for _, number in stored.events.get(name, ())]
        if name != "reminded" and numbers != list(range(last - len(numbers) + 1, last + 1)):
            return f"the events of {name} up to {last}: {numbers}"
        if numbers and numbers[-1] != last:
            return f"the newest event of {name} is {numbers[-1]}, and not {last}"
    return None


def what_is_trimmed(stored, keep):
    """None where no more events are gone than may be, and marks tell of all that are."""
    kept = sorted(id_ for events in stored.events.values() for id_, _ in events)
    for name, (count, mark) in stored.topics.items():
        events = stored.events[name]
        if events and mark >= events[0][0]:
            return f"{name} begins with {events[0]}, and its mark is {mark}"
        if count == len(events):
            continue
        outlived = kept[-1][0] - keep.age_s * 1000
        if len(kept) < keep.events and mark[0] >= outlived:
            return f"{count - len(events)} of {name} are gone, and there are {len(kept)} of {keep.events} events"
        if not (0, 0) < mark < kept[-1]:
            return f"{count - len(events)} of {name} are gone, and its mark is {mark}"
    return None
