"""Stores for tests of what looks into them, made by the program's own writer and by SQL."""

import sqlite3
from contextlib import closing

import msgspec

from trio_swarm.storage.schema import VERSION, open_writer

NOON = 1_893_499_200_000  # 2030-01-01T12:00:00Z


def make_store(path, objects=()):
    """A store with such objects: `{"kind", "id", "values", "alarms", "topics", "events"}`; gives its path."""
    with closing(open_writer(path)) as connection:
        connection.execute("BEGIN")
        for each in objects:
            add_object(connection, **each)
        connection.execute("COMMIT")
    return path


def add_object(connection, kind, id, values=None, alarms=(), topics=(), events=()):
    """`alarms`: (key, due, data). `topics`: (name, count, mark). `events`: (id, topic's name, type, key, JSON)."""

    def insert(table, *row):
        places = ", ".join("?" * len(row))
        return connection.execute(f"INSERT INTO {table} VALUES ({places})", row).lastrowid  # noqa: S608

    encoded = {key: msgspec.msgpack.encode(value) for key, value in (values or {}).items()}
    size = sum(len(key.encode()) + len(value) for key, value in encoded.items())
    number = insert("object", None, kind, id, size)
    for key, value in encoded.items():
        insert("pair", number, key, value)
    for key, due_ms, data in alarms:
        insert("alarm", None, number, key, due_ms, 1, msgspec.msgpack.encode(data), kind)
    numbers = {name: insert("topic", None, number, name, count, *mark) for name, count, mark in topics}
    for (ms, counter), topic, type_, key, data in events:
        insert("event", number, ms, counter, numbers[topic], type_, key, None, data)


def make_newer(path):
    """A store of the program's next version."""
    make_store(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version={VERSION + 1}")
    return path


def damage(path):
    """Have a page in the middle of the file say what it should not; the header and the schema stay as they were."""
    data = bytearray(path.read_bytes())
    size = int.from_bytes(data[16:18], "big")
    middle = len(data) // size // 2 * size
    data[middle : middle + size] = b"\xa5" * size
    path.write_bytes(data)
    return path


LEDGER = """
from trio_swarm import DurableObject, exposed

class Ledger(DurableObject):
    @exposed
    async def enter(self, number: int) -> int:
        self.storage.put_many({"left": number, "pad": "x" * 3000, "right": number})
        return number
"""
