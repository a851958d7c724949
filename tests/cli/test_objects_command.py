"""`trio-swarm objects`: what a store keeps, beside whoever serves it."""

import json
import os
import subprocess
import sys
import tracemalloc
from contextlib import closing
from datetime import UTC, datetime

import httpx
import msgspec
import pytest
from stores import LEDGER, NOON, add_object, make_newer, make_store

from trio_swarm.storage.inspection import PAGE, list_objects, read_object
from trio_swarm.storage.schema import VERSION, open_reader, open_writer

COMMAND = [sys.executable, "-m", "trio_swarm.cli"]
DUE = "2030-01-01T12:00:00Z"

LOBBY = {
    "kind": "channel",
    "id": "lobby",
    "values": {"name": "Lobby"},
    "alarms": [("late", NOON + 60_000, None), ("soon", NOON, {"why": ["tea"]})],
    "topics": [("chat", 9, (7, 0)), ("mood", 1, (0, 0))],
    "events": [
        ((8, 0), "chat", "message", None, b'{ "text":\n"hi" }'),
        ((8, 1), "mood", "changed", "ann", b'"good"'),
        ((9, 0), "chat", "message", None, b"3"),
    ],
}


@pytest.fixture
def store(tmp_path):
    """Three objects of two kinds, made in another order than that of their names."""
    games = [{"kind": "game", "id": name, "values": {"score": [1, 2]}} for name in ("b", "a")]
    return make_store(tmp_path / "s.db", [*games, LOBBY])


def test_the_list(invoke, store):
    """A line an object, by kind and id: bytes, values, durable events, the next alarm in this machine's own time."""
    result = invoke("objects", "--store", str(store))
    assert (0, "") == (result.exit_code, result.stderr)
    title, *lines = result.stdout.splitlines()
    due = datetime.fromtimestamp(NOON / 1000, UTC).astimezone().isoformat(timespec="seconds")
    assert ["bytes", "values", "events", "next", "alarm", "object"] == title.split()
    assert [
        ["10", "1", "3", due, "channel/lobby"],
        ["8", "1", "0", "-", "game/a"],
        ["8", "1", "0", "-", "game/b"],
    ] == [line.split() for line in lines]


def test_the_list_for_programs(invoke, store):
    """With `--json` each line is an object, and its alarm in UTC; `--kind` leaves the others out."""
    lines = invoke("objects", "--store", str(store), "--json", "--kind", "channel").stdout.splitlines()
    assert [
        {"kind": "channel", "id": "lobby", "bytes": 10, "values": 1, "events": 3, "next_alarm": DUE},
    ] == [json.loads(line) for line in lines]
    every = [json.loads(line) for line in invoke("objects", "--store", str(store), "--json").stdout.splitlines()]
    assert [("channel", "lobby"), ("game", "a"), ("game", "b")] == [(each["kind"], each["id"]) for each in every]
    assert [DUE, None, None] == [each["next_alarm"] for each in every]


def test_all_of_one_object(invoke, store):
    """`dump` gives values, alarms by their time, durable topics and events, in one JSON document."""
    result = invoke("objects", "dump", "channel", "lobby", "--store", str(store))
    assert (0, "") == (result.exit_code, result.stderr)
    expected = {
        "kind": "channel",
        "id": "lobby",
        "bytes": 10,
        "values": {"name": "Lobby"},
        "alarms": [
            {"key": "soon", "due": DUE, "attempt": 1, "data": {"why": ["tea"]}},
            {"key": "late", "due": "2030-01-01T12:01:00Z", "attempt": 1, "data": None},
        ],
        "topics": [{"topic": "chat", "count": 9, "mark": "7-0"}, {"topic": "mood", "count": 1, "mark": "0-0"}],
        "events": [
            {"id": "8-0", "topic": "chat", "event": "message", "key": None, "data": {"text": "hi"}},
            {"id": "8-1", "topic": "mood", "event": "changed", "key": "ann", "data": "good"},
            {"id": "9-0", "topic": "chat", "event": "message", "key": None, "data": 3},
        ],
    }
    assert expected == json.loads(result.stdout)
    above = invoke("objects", "--store", str(store), "dump", "channel", "lobby")
    assert result.stdout == above.stdout


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"\x00\xff", "AP8="),
        (datetime(2030, 1, 1, 12, tzinfo=UTC), DUE),
        (msgspec.msgpack.Ext(5, b"\x01"), {"extension": 5, "data": "AQ=="}),
        ({1: "one", 2: [b"x"]}, {"1": "one", "2": ["eA=="]}),
        ({1: "one", "1": "text"}, [[1, "one"], ["1", "text"]]),
        ({(1, 2): "pair", None: 0}, [[[1, 2], "pair"], [None, 0]]),
        ({"deep": {True: 1}}, {"deep": [[True, 1]]}),
        (float("nan"), None),
        (2**64 - 1, 2**64 - 1),
    ],
)
def test_values_that_json_has_no_form_for(invoke, tmp_path, value, expected):
    """Each has one: bytes are base64, moments text, a map of other keys a list of pairs; none hides another."""
    store = make_store(tmp_path / "s.db", [{"kind": "game", "id": "a", "values": {"value": value}}])
    result = invoke("objects", "dump", "game", "a", "--store", str(store))
    assert expected == json.loads(result.stdout)["values"]["value"]


def test_a_value_that_is_none(invoke, tmp_path):
    """What no program of ours has written is named."""
    store = make_store(tmp_path / "s.db", [{"kind": "game", "id": "a", "values": {"key": 1}}])
    with closing(open_writer(store)) as connection:
        connection.execute("UPDATE pair SET value = x'c1'")
    result = invoke("objects", "dump", "game", "a", "--store", str(store))
    assert (2, 1) == (result.exit_code, result.stderr.count("\n"))
    assert "the value of 'key' cannot be read" in result.stderr


def test_names_that_steer_a_terminal(invoke, tmp_path):
    """They are escaped, in the list and in JSON, where they still mean the same."""
    name = "a\u202eb\U000e0001"
    objects = [{"kind": "game", "id": name, "values": {name: name}, "alarms": [(name, NOON, name)]}]
    store = str(make_store(tmp_path / "s.db", objects))
    said = [
        invoke("objects", "--store", store).stdout,
        invoke("objects", "--store", store, "--json").stdout,
        invoke("objects", "dump", "game", name, "--store", store).stdout,
        invoke("objects", "dump", "game", f"{name}!", "--store", store).stderr,
    ]
    assert [True] * 4 == [text.replace("\n", "").isprintable() for text in said]
    assert name == json.loads(said[1])["id"]
    assert {name: name} == json.loads(said[2])["values"]


def test_an_object_that_is_not_there(invoke, store):
    """One sentence, with where to look."""
    result = invoke("objects", "dump", "game", "c", "--store", str(store))
    assert (2, "") == (result.exit_code, result.stdout)
    assert (
        f"Error: objects: {store} keeps nothing of game/c: `trio-swarm objects` lists what it does\n" == result.stderr
    )


@pytest.mark.parametrize(
    ("options", "words"), [([], "no object:"), (["--kind", "game"], "no object of the kind game:")]
)
def test_a_store_without_objects(invoke, tmp_path, options, words):
    """It is no mistake; it is said when there will be one. What a program reads stays empty."""
    store = make_store(tmp_path / "s.db")
    result = invoke("objects", "--store", str(store), *options)
    assert (0, "") == (result.exit_code, result.stdout)
    assert words in result.stderr


COMMANDS = (["objects"], ["objects", "dump", "game", "a"], ["backup", "copy.db"])


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    ("store", "words"),
    [
        ("memory:", "is inside the process that serves it, and ends with it: serve with --store FILE"),
        ("none.db", "there is no none.db here: give --store FILE, or have `trio-swarm serve` make it first"),
        ("s.db/x", "there is no s.db/x here"),
        (".", ". is a folder: give a file"),
        ("redis://h", "'redis://h' is not a store this version knows"),
        ("text.txt", "text.txt: it is not an SQLite file"),
        (
            "newer.db",
            f"newer.db is of version {VERSION + 1}, and this trio_swarm knows {VERSION}: it is too old for it",
        ),
    ],
)
def test_stores_that_cannot_be_looked_into(invoke, tmp_path, monkeypatch, store, words, command):
    """One sentence says what is there, and what to do; nothing is made."""
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "s.db")
    make_newer(tmp_path / "newer.db")
    (tmp_path / "text.txt").write_text("text " * 300)
    before = sorted(tmp_path.iterdir())
    result = invoke(*command, "--store", store)
    assert (2, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n"))
    assert words in result.stderr
    assert before == sorted(tmp_path.iterdir())


def test_the_settings_name_the_store(invoke, store, tmp_path, monkeypatch):
    """Without `--store` it is what `serve` would have: by the file, by the environment, else `swarm.db` here."""
    monkeypatch.delenv("TRIO_SWARM_STORE")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.toml").write_text(f'store = "{store}"\n')
    assert "there is no swarm.db here" in invoke("objects").stderr
    assert "game/a" in invoke("objects", "--config", "c.toml").stdout
    assert '"score"' in invoke("objects", "dump", "game", "a", "--config", "c.toml").stdout
    monkeypatch.setenv("TRIO_SWARM_CONFIG", "c.toml")
    assert "game/a" in invoke("objects").stdout
    monkeypatch.setenv("TRIO_SWARM_STORE", "memory:")
    assert "is inside the process" in invoke("objects").stderr


def test_options_of_the_list_are_not_for_one_object(invoke, store):
    """`--kind` before `dump` would mean nothing, and is refused."""
    result = invoke("objects", "--store", str(store), "--kind", "game", "dump", "game", "a")
    assert 2 == result.exit_code
    assert "not for `dump`" in result.stderr


def many(path, count):
    with closing(open_writer(path)) as connection:
        connection.execute("BEGIN")
        for number in range(count):
            add_object(connection, ("a", "b", "c")[number % 3], f"{number:06}", {"n": number})
        connection.execute("COMMIT")
    return path


def test_a_long_list_is_never_in_memory(tmp_path):
    """It comes in pages, each of bounded size, in order, none twice; and no transaction is open in between."""
    store = many(tmp_path / "s.db", 5 * PAGE + 1)
    with closing(open_reader(store)) as connection:
        tracemalloc.start()
        names, largest = [], 0
        for page in list_objects(connection, store):
            assert not connection.in_transaction
            largest = max(largest, len(page))
            names += [(row.kind, row.id) for row in page]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert sorted(names) == names
    assert 5 * PAGE + 1 == len(set(names)) == len(names)
    assert PAGE == largest
    assert peak < 3_000_000


def test_the_list_is_read_by_its_index(tmp_path):
    """No page is made by sorting all objects, or by looking through tables."""
    with closing(open_writer(tmp_path / "s.db")) as connection:
        asked = []
        connection.set_trace_callback(asked.append)
        for kind in (None, "game"):
            assert [] == list(list_objects(connection, tmp_path, kind))
        connection.set_trace_callback(None)
        for query in asked:
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}")]
            assert [] == [step for step in plan if step.startswith("SCAN") or "TEMP B-TREE" in step], plan


def test_the_writer_is_not_held_up_by_a_pager(tmp_path):
    """Between two pages the owner may empty its log wholly, although the list is not over."""
    store = many(tmp_path / "s.db", 2 * PAGE)
    with closing(open_writer(store)) as owner, closing(open_reader(store)) as reader:
        pages = list_objects(reader, store)
        next(pages)
        owner.execute("INSERT INTO object VALUES (NULL, 'd', 'new', 0)")
        busy, _, _ = owner.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert 0 == busy
        assert "new" in [row.id for page in pages for row in page]


def test_one_object_is_read_at_one_moment(tmp_path):
    """What a writer commits in the middle of it is in none of its parts."""
    store = make_store(tmp_path / "s.db", [LOBBY])
    with closing(open_writer(store)) as owner, closing(open_reader(store)) as reader:

        def write(statement):
            if "FROM alarm" in statement:
                owner.execute("DELETE FROM event")

        reader.set_trace_callback(write)
        found = read_object(reader, store, ("channel", "lobby"))
        assert 3 == len(found.events)
        assert not reader.in_transaction
        assert [] == read_object(reader, store, ("channel", "lobby")).events


async def test_beside_the_owner(child, invoke, tmp_path):
    """While a service holds the store, its objects are listed with what they stored last, and it serves on."""
    (tmp_path / "ledgers.py").write_text(LEDGER)
    store = tmp_path / "s.db"
    arguments = ("--bind", "127.0.0.1:0", "--objects", "ledgers", "--store", store)
    async with child("serve", *arguments, cwd=tmp_path) as service:
        async with httpx.AsyncClient(base_url=service.url, timeout=10) as client:
            for number in (1, 2):
                assert {"result": number} == (await client.post("/v1/ledger/a/call/enter", json=[number])).json()
                listed = [
                    json.loads(line) for line in invoke("objects", "--store", str(store), "--json").stdout.splitlines()
                ]
                assert [("ledger", "a", 3)] == [(each["kind"], each["id"], each["values"]) for each in listed]
                dumped = json.loads(invoke("objects", "dump", "ledger", "a", "--store", str(store)).stdout)
                assert (number, number) == (dumped["values"]["left"], dumped["values"]["right"])
        assert 0 == await service.end()


@pytest.mark.parametrize("as_json", [[], ["--json"]], ids=["plain", "json"])
def test_a_reader_that_has_enough(tmp_path, as_json):
    """`objects | head -1` is over when `head` is, without a word."""
    store = many(tmp_path / "s.db", 20 * PAGE)
    reading, writing = os.pipe()
    with subprocess.Popen(
        [*COMMAND, "objects", "--store", store, *as_json], stdout=writing, stderr=subprocess.PIPE
    ) as process:
        os.close(writing)
        os.read(reading, 100)
        os.close(reading)
        said = process.stderr.read()
    assert (0, b"") == (process.returncode, said)
