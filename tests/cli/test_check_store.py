"""What `trio-swarm check` says of a store: whole or damaged, also beside its owner; it changes nothing."""

import json
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
import trio
from stores import damage, make_newer, make_store

from trio_swarm.storage.integrity import check_integrity
from trio_swarm.storage.schema import APPLICATION, MIGRATIONS, VERSION, open_reader, open_writer

BIND = ("--bind", "127.0.0.1:0")
BIG = {"kind": "game", "id": "a", "values": {f"{number:04}": "x" * 500 for number in range(2_000)}}


@pytest.fixture
def said(invoke, tmp_path):
    """`said(*options)` is the exit code, and the state and words of the finding of the store `s.db`."""

    def run(*options, store=tmp_path / "s.db"):
        result = invoke("check", *BIND, "--json", "--store", str(store), *map(str, options))
        return (result.exit_code, *of_the_store(result.stdout))

    return run


def of_the_store(told):
    found = {each["what"]: each for each in json.loads(told)}["store"]
    return found["state"], found["says"]


async def said_beside(store, *options):
    """The same by a process of its own."""
    command = [sys.executable, "-m", "trio_swarm.cli", "check", *BIND, "--json", "--store", store, *options]
    done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.STDOUT, check=False)
    return (done.returncode, *of_the_store(done.stdout))


def test_a_store_that_is_whole(said, tmp_path):
    """Its size, and how many objects; and nothing is left beside it."""
    store = make_store(tmp_path / "s.db", [BIG, {"kind": "game", "id": "b"}])
    assert (0, "ok", f"{store}, 1.2 MiB, 2 objects, whole") == said()
    assert [store] == list(tmp_path.iterdir())


@pytest.mark.parametrize("is_served", [False, True])
async def test_a_store_that_is_damaged(child, tmp_path, is_served):
    """It fails, and the sentence says what to do: also beside a service that has it, and has not met the place yet."""
    store = damage(make_store(tmp_path / "s.db", [BIG]))
    if is_served:
        async with child("serve", *BIND, "--store", store, cwd=tmp_path) as service:
            found = await said_beside(store, "--held", store)
            assert 0 == await service.end()
    else:
        found = await said_beside(store)
    assert (2, "fails") == found[:2]
    assert found[2].startswith(f"store: {store} is damaged (")
    assert found[2].endswith(
        f"): end the service, and restore a backup with `trio-swarm backup {store} --store BACKUP --force`"
    )


def test_an_index_that_has_lost_an_entry(said, tmp_path):
    """Tables and their indexes are held against each other: what only one of them knows would never be found again."""
    store = make_store(tmp_path / "s.db", [{"kind": "game", "id": "a", "alarms": [("k", 5, None)]}])
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_schema SET sql = sql || ' WHERE due_ms > 5' WHERE name = 'alarm_due'")
        connection.commit()
    with closing(sqlite3.connect(store)) as connection:
        connection.execute("DELETE FROM alarm WHERE due_ms = 5")
        connection.commit()
        connection.execute("PRAGMA writable_schema=ON")
        connection.execute("UPDATE sqlite_schema SET sql = replace(sql, ' WHERE due_ms > 5', '')")
        connection.commit()
    code, state, words = said()
    assert (2, "fails") == (code, state)
    assert "alarm_due" in words


def test_a_file_that_is_cut_off(said, tmp_path):
    """Half a file is told as damage."""
    store = make_store(tmp_path / "s.db", [BIG])
    store.write_bytes(store.read_bytes()[:500_000])
    code, state, words = said()
    assert (2, "fails") == (code, state)
    assert "damaged" in words


def test_another_file(said, tmp_path):
    """What is no store is told as such, and left alone."""
    (tmp_path / "s.db").write_text("text " * 300)
    assert (2, "fails", f"store: {tmp_path}/s.db: it is not an SQLite file") == said()
    (tmp_path / "s.db").unlink()
    with closing(sqlite3.connect(tmp_path / "s.db")) as connection:
        connection.execute("CREATE TABLE t (a)")
    assert (2, "fails", f"store: {tmp_path}/s.db is a database of something else; give another file") == said()


async def test_beside_its_owner(child, tmp_path):
    """Serving from it would fail, and it is said who has it; for a reload of the owner itself it is well."""
    store = tmp_path / "s.db"
    async with child("serve", *BIND, "--store", store, cwd=tmp_path) as service:
        code, state, words = await said_beside(store)
        assert (2, "fails") == (code, state)
        assert f"{store} is in use by another process ({service.process.pid}); a store has one owner" in words
        code, state, words = await said_beside(store, "--held", store)
        assert (0, "ok") == (code, state)
        assert words.endswith(", 0 objects, whole; held by the running service")
        assert 0 == await service.end()


def test_a_store_of_a_newer_version(said, invoke, tmp_path):
    """`check` says that the program is too old for it, and `serve` does not touch it."""
    store = make_newer(tmp_path / "s.db")
    sentence = f"{store} is of version {VERSION + 1}, and this trio_swarm knows {VERSION}: it is too old for it"
    before = store.read_bytes()
    assert (2, "fails", f"store: {sentence}") == said()
    result = invoke("serve", *BIND, "--store", str(store))
    assert (2, f"Error: store: {sentence}\n") == (result.exit_code, result.stderr)
    assert before == store.read_bytes()


def test_a_store_of_an_older_version(said, tmp_path):
    """It is looked at, and stays of its version: serving changes it, and a check nothing."""
    store = tmp_path / "s.db"
    with closing(sqlite3.connect(store)) as connection:
        for statement in MIGRATIONS[0]:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={APPLICATION}")
        connection.execute("PRAGMA user_version=1")
    before = store.read_bytes()
    code, state, words = said()
    assert (0, "ok") == (code, state)
    assert words.endswith(f", 0 objects, whole; of version 1, and serving brings it to {VERSION}")
    assert before == store.read_bytes()


def test_an_empty_file(said, tmp_path):
    """It is as good as none: serving makes a store of it."""
    (tmp_path / "s.db").touch()
    assert (0, "ok", f"{tmp_path}/s.db") == said()


def test_a_disk_that_is_nearly_full(said, tmp_path, monkeypatch):
    """Where the store's log may not find room it is a warning, which stops nothing."""
    make_store(tmp_path / "s.db")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=20 * 2**20))
    code, state, words = said()
    assert (0, "warning") == (code, state)
    assert words.endswith("; the disk has 20 MiB free, and the store's log may come to 64: make room")


def test_a_look_has_an_end(said, tmp_path, monkeypatch):
    """A huge store is looked at for so long, and it is said that this was not all."""
    store = make_store(tmp_path / "s.db", [BIG])
    with closing(open_writer(store)) as connection:
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO object VALUES (NULL, 'k', ?, 0)", ((f"{n}",) for n in range(20_000)))
        connection.execute("COMMIT")
    with closing(open_reader(store)) as connection:
        found = check_integrity(connection, lambda: True)
        assert ((), False) == (found.faults, found.whole)
        assert check_integrity(connection, lambda: False).whole
    monkeypatch.setattr("trio_swarm.cli.store_checks.LOOK_S", 0.0)
    code, state, words = said()
    assert (0, "ok") == (code, state)
    assert words.endswith("no fault in the 0 s of this look, and a backup looks at all of it")
