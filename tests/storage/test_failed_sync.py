"""A disk that takes what is written and then says that it cannot keep it: a real process, whose `fdatasync` fails.

SQLite leaves such a commit in its log, whole and readable: who opens the store after a crash would find it there.
"""

import contextlib
import sqlite3
import subprocess
import sys
from pathlib import Path

import attrs
import msgspec
import pytest
import trio

from trio_swarm.storage import Alarm, Commit, SetAlarm
from trio_swarm.storage.schema import open_writer
from trio_swarm.storage.sqlite import SqliteStorage

WORKLOAD = Path(__file__).with_name("failed_sync_workload.py")
FIRST = 12  # the sync that fails first, of its thread: opening takes fewer, so it is one of the writer's


@attrs.define
class Told:
    """What the process said before it was killed: its words, each with its numbers."""

    words: dict[str, list[int]] = attrs.Factory(dict)

    def __getitem__(self, word):
        return self.words.get(word, [])


def run_until_killed(path, faults, *arguments):
    """Run the workload with those syncs failing; gives what it said."""
    traced = [sys.executable, WORKLOAD, path, *arguments]
    inject = ["-e", "trace=fdatasync", "-e", f"inject=fdatasync:error=EIO:when={faults}"]
    log = path.with_name("strace.log")
    run = subprocess.run(
        ["strace", "-f", "--seccomp-bpf", "-o", log, *inject, *traced], capture_output=True, check=False, timeout=60
    )
    told = Told()
    for line in run.stdout.decode().splitlines():
        word, *numbers = line.split()
        told.words.setdefault(word, []).extend(map(int, numbers))
    assert "(INJECTED)" in log.read_text(), run.stderr.decode()
    return told


def read_book(path):
    """The numbers that a store holds after a crash: as values, and as events."""
    with contextlib.closing(open_writer(path)) as connection:
        values = [int(key) for (key,) in connection.execute("SELECT key FROM pair ORDER BY key")]
        events = [
            msgspec.json.decode(data) for (data,) in connection.execute("SELECT data FROM event ORDER BY ms, counter")
        ]
    return values, events


@pytest.mark.parametrize("arguments", [(), ("on",)])
def test_a_turn_that_was_told_as_failed_is_not_there_after_a_crash(tmp_path, arguments):
    """One sync fails: the object begins again without that turn, and so does the next process."""
    path = tmp_path / "swarm.db"
    told = run_until_killed(path, FIRST, *arguments)
    (failed,) = told["failed"]
    before = list(range(1, failed))
    assert (before, before, []) == (told["held"], told["seen"], told["uncertain"])
    assert (told["entered"], told["entered"]) == read_book(path)


def test_while_the_disk_goes_on_failing_a_failed_turn_is_uncertain_and_whole(tmp_path):
    """Every sync fails from one on: the error says that a crash may bring the turn back; then all of it."""
    path = tmp_path / "swarm.db"
    told = run_until_killed(path, f"{FIRST}+")
    (uncertain,) = told["uncertain"]
    before = list(range(1, uncertain))
    assert (before, before, []) == (told["held"], told["seen"], told["failed"])
    values, events = read_book(path)
    assert values == events
    assert values in (before, [*before, uncertain])


def test_a_later_commit_makes_an_uncertain_turn_a_failed_one(tmp_path):
    """Two syncs in a row fail, then the disk does as it is asked: only what was acknowledged is there."""
    path = tmp_path / "swarm.db"
    told = run_until_killed(path, f"{FIRST}..{FIRST + 1}", "on")
    assert 1 == len(told["uncertain"])
    assert (told["entered"], told["entered"]) == read_book(path)


class FailingCommits:
    """The writer's connection, of which so many COMMITs fail."""

    def __init__(self, connection, failures):
        self._connection = connection
        self._failures = failures

    def execute(self, statement):
        if statement == "COMMIT" and self._failures:
            self._failures -= 1
            raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(statement)

    def __getattr__(self, name):
        return getattr(self._connection, name)


@pytest.mark.parametrize(("failures", "uncertain"), [(1, False), (2, True)])
async def test_a_commit_that_failed_has_another_in_its_place(tmp_path, failures, uncertain):
    """At once; else in the next one that goes well, even if that has nothing to write."""
    path = tmp_path / "swarm.db"
    store = await SqliteStorage.open(path)
    store._writer._connection = FailingCommits(store._writer._connection, failures)  # the writer waits for work
    errors, told = [], trio.Event()
    store.submit(Commit(("book", "a"), 1, {"a": b"1"}), lambda error: (errors.append(error), told.set()))
    await told.wait()
    assert [(uncertain, uncertain)] == [(error.uncertain, "may be kept" in str(error)) for error in errors]
    await store.amend(SetAlarm(("book", "a"), "no such alarm", 1, Alarm(0, b"")), None)
    await store.aclose()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert [(1,)] == connection.execute("SELECT value FROM meta WHERE name = 'failures'").fetchall()
