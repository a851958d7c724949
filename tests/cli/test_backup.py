"""`trio-swarm backup FILE`: a whole copy or none, while the store is served."""

import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
import time
from contextlib import closing

import httpx
import msgspec
import pytest
import trio
from stores import LEDGER, NOON, damage, make_store

from trio_swarm.errors import StorageError
from trio_swarm.storage.backup import Backup
from trio_swarm.storage.schema import APPLICATION, MIGRATIONS, VERSION, Ownership, open_reader, open_writer

COMMAND = [sys.executable, "-m", "trio_swarm.cli"]
BIND = ("--bind", "127.0.0.1:0")
WRITERS = 8

LOBBY = {
    "kind": "channel",
    "id": "lobby",
    "values": {"name": "Lobby"},
    "alarms": [("soon", NOON, "tea")],
    "topics": [("chat", 9, (7, 0))],
    "events": [((8, 0), "chat", "message", None, b'"hi"')],
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with `swarm.db` in it."""
    monkeypatch.delenv("TRIO_SWARM_STORE")
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "swarm.db", [LOBBY])
    return tmp_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refused(result, words):
    assert (2, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n"))
    assert words in result.stderr


def rows(path):
    """All of a store, table by table; opened as its owner would."""
    with closing(open_writer(path)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for name in tables}  # noqa: S608


class Writing:
    """Calls that store, one after the other for each object, and the last number of each that was acknowledged."""

    def __init__(self, url):
        self.url = url
        self.acknowledged = dict.fromkeys((f"l{n}" for n in range(WRITERS)), 0)
        self.enough = False

    async def run(self, name):
        async with httpx.AsyncClient(base_url=self.url, timeout=30) as client:
            while not self.enough:  # cancelled in the middle of a request, httpx leaves a generator behind
                number = self.acknowledged[name] + 1
                answer = await client.post(f"/v1/ledger/{name}/call/enter", json=[number])
                assert {"result": number} == answer.json()
                self.acknowledged[name] = number


def ledgers(path):
    """What each ledger of a copy has on its left and right; the copy is opened as an owner, and looked through."""
    with closing(open_writer(path)) as connection:
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
        found = {}
        for name, value in connection.execute(
            "SELECT id, value FROM pair JOIN object ON number = object WHERE key IN ('left', 'right') ORDER BY id, key"
        ):
            found.setdefault(name, []).append(msgspec.msgpack.decode(value))
    return found


@pytest.mark.slow
async def test_while_a_service_stores_at_full_speed(child, tmp_path):
    """The copy has every turn that was acknowledged before the backup began, and of no turn a half; it is served on."""
    (tmp_path / "ledgers.py").write_text(LEDGER)
    store = tmp_path / "s.db"
    arguments = (*BIND, "--objects", "ledgers", "--store")
    async with child("serve", *arguments, store, cwd=tmp_path) as service, trio.open_nursery() as nursery:
        writing = Writing(service.url)
        for name in writing.acknowledged:
            nursery.start_soon(writing.run, name)
        while min(writing.acknowledged.values()) < 5:
            assert service.process.poll() is None
            await trio.sleep(0.02)
        for number in range(3):
            before = dict(writing.acknowledged)
            copy = tmp_path / f"copy{number}.db"
            with trio.fail_after(60):
                await trio.run_process([*COMMAND, "backup", copy, "--store", store], capture_stdout=True)
            after = dict(writing.acknowledged)
            assert sum(after.values()) > sum(before.values())  # it went on storing
            found = ledgers(copy)
            for name, (left, right) in found.items():
                assert left == right
                assert before[name] <= left <= after[name] + 1
            assert set(before) == set(found)
        writing.enough = True
    async with child("serve", *arguments, copy, cwd=tmp_path) as service:
        async with httpx.AsyncClient(base_url=service.url, timeout=30) as client:
            assert {"result": 7} == (await client.post("/v1/ledger/l0/call/enter", json=[7])).json()
        assert 0 == await service.end()
    assert [7, 7] == ledgers(copy)["l0"]


def test_everything_is_in_the_copy(invoke, here):
    """All tables, row by row; the marks by which it is known as a store; and it becomes a log's store once served."""
    result = invoke("backup", "copy.db")
    assert (0, "", 1) == (result.exit_code, result.stderr, result.stdout.count("\n"))
    assert result.stdout.startswith("copy.db: ")
    assert ["copy.db", "swarm.db"] == names(here)
    with closing(open_reader(here / "copy.db")) as connection:
        asked = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
        assert [APPLICATION, VERSION] == asked
    before = rows(here / "swarm.db")
    assert before == rows(here / "copy.db")
    assert ["hi"] == [msgspec.json.decode(row[7]) for row in before["event"]]
    assert "sqlite_sequence" in before
    with closing(open_writer(here / "copy.db")) as connection:
        assert "wal" == connection.execute("PRAGMA journal_mode").fetchone()[0]


def test_what_is_only_in_the_log_is_copied_too(invoke, here):
    """A commit that is not in the store's own file yet is in the copy."""
    with closing(open_writer(here / "swarm.db")) as owner:
        owner.execute("UPDATE object SET bytes = 77")
        assert 0 == invoke("backup", "copy.db").exit_code
    with closing(open_reader(here / "copy.db")) as connection:
        assert 77 == connection.execute("SELECT bytes FROM object").fetchone()[0]


def test_a_copy_is_no_more_readable_than_the_store(invoke, here):
    """Who may not read the store may not read its copy."""
    (here / "swarm.db").chmod(0o640)
    assert 0 == invoke("backup", "copy.db").exit_code
    assert 0o640 == stat.S_IMODE((here / "copy.db").stat().st_mode)


def test_a_store_of_an_older_version(invoke, here):
    """It is copied as it is: before a new version of the program changes it is when a backup is wanted."""
    (here / "swarm.db").unlink()
    with closing(sqlite3.connect(here / "swarm.db")) as connection:
        for statement in MIGRATIONS[0]:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id={APPLICATION}")
        connection.execute("PRAGMA user_version=1")
    assert 0 == invoke("backup", "copy.db").exit_code
    with closing(sqlite3.connect(here / "copy.db")) as connection:
        assert 1 == connection.execute("PRAGMA user_version").fetchone()[0]


def test_nothing_is_replaced_unless_told(invoke, here):
    """What has the name stays; with `--force` it is replaced, with what a database of that name left beside it."""
    copy = here / "copy.db"
    copy.write_text("precious")
    refused(invoke("backup", "copy.db"), "copy.db is there already: give another name, or --force to replace it")
    assert "precious" == copy.read_text()
    (here / "copy.db-wal").write_text("of another one")
    assert 0 == invoke("backup", "copy.db", "--force").exit_code
    assert ["copy.db", "swarm.db"] == names(here)
    assert rows(here / "swarm.db") == rows(copy)


def test_a_name_that_is_taken_meanwhile(invoke, here, monkeypatch):
    """Somebody else's file that came while the copy was made is not replaced either."""
    monkeypatch.setattr(Backup, "_examine", lambda *_: (here / "copy.db").write_text("precious"))
    refused(invoke("backup", "copy.db"), "copy.db is there already")
    assert "precious" == (here / "copy.db").read_text()
    assert ["copy.db", "swarm.db"] == names(here)


@pytest.mark.parametrize("side", ["-wal", "-shm", "-journal"])
def test_a_log_of_another_database(invoke, here, side):
    """SQLite would take it for the copy's own, and change the copy by it: it is refused, or removed with `--force`."""
    (here / f"copy.db{side}").write_text("old")
    refused(invoke("backup", "copy.db"), f"copy.db{side} is left of another database")
    assert [f"copy.db{side}", "swarm.db"] == names(here)
    assert 0 == invoke("backup", "copy.db", "--force").exit_code
    assert ["copy.db", "swarm.db"] == names(here)


@pytest.mark.parametrize("name", ["swarm.db", "./swarm.db", "link.db", "hard.db", "f/../swarm.db", "swarm.db-wal"])
def test_the_store_itself(invoke, here, name):
    """By whatever name, and with `--force`, a store is not replaced by its own copy, nor is its log."""
    (here / "f").mkdir()
    (here / "link.db").symlink_to("swarm.db")
    os.link(here / "swarm.db", here / "hard.db")
    before = names(here), (here / "swarm.db").read_bytes()
    refused(invoke("backup", name, "--force"), "the store itself: give another file")
    assert before == (names(here), (here / "swarm.db").read_bytes())


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("no/copy.db", "no/copy.db cannot be made: there is no folder "),
        ("f", "f is a folder: give a file"),
        ("/sys/copy.db", "/sys/copy.db cannot be opened: "),
    ],
)
def test_places_for_no_file(invoke, here, file, words):
    """One sentence says why."""
    (here / "f").mkdir()
    refused(invoke("backup", file), words)


def test_a_store_that_is_served_is_not_replaced(invoke, here):
    """Whoever restores over a store that is in use is told so, and nothing is changed."""
    make_store(here / "other.db")
    ownership = Ownership(here / "other.db")
    before = (here / "other.db").read_bytes()
    refused(invoke("backup", "other.db", "--force"), "other.db is in use by another process")
    ownership.release()
    assert before == (here / "other.db").read_bytes()
    assert 0 == invoke("backup", "other.db", "--force").exit_code


def test_by_a_symbolic_link(invoke, here):
    """The copy is where the link leads, and the link stays one."""
    (here / "f").mkdir()
    (here / "copy.db").symlink_to("f/real.db")
    assert 0 == invoke("backup", "copy.db").exit_code
    assert (here / "copy.db").is_symlink()
    assert ["real.db"] == names(here / "f")


def test_a_damaged_store(invoke, here):
    """It is not copied over a backup that is whole: the sentence says so, and what was there stays."""
    big = {"kind": "game", "id": "a", "values": {f"{n:04}": "x" * 500 for n in range(2_000)}}
    damage(make_store(here / "big.db", [big]))
    assert 0 == invoke("backup", "copy.db").exit_code
    before = (here / "copy.db").read_bytes()
    refused(invoke("backup", "copy.db", "--store", "big.db", "--force"), "big.db: it is damaged: restore a backup")
    assert before == (here / "copy.db").read_bytes()
    assert ["big.db", "copy.db", "swarm.db"] == names(here)


def large(path, megabytes):
    """A store that takes a while to copy."""
    make_store(path, [{"kind": "game", "id": "a"}])
    with closing(open_writer(path)) as connection:
        connection.execute("BEGIN")
        values = ((f"{n:06}", os.urandom(10_000)) for n in range(megabytes * 100))
        connection.executemany("INSERT INTO pair VALUES (1, ?, ?)", values)
        connection.execute("COMMIT")
    return path


def limit_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))


def test_a_disk_that_takes_no_more(here):
    """One sentence, and no rest of it; what had the name is as it was."""
    large(here / "large.db", 5)
    (here / "copy.db").write_text("precious")
    command = [*COMMAND, "backup", "copy.db", "--store", "large.db", "--force"]
    done = subprocess.run(command, preexec_fn=limit_files, capture_output=True, text=True, timeout=60, check=False)
    assert (2, "") == (done.returncode, done.stdout)
    assert "Error: backup: copy.db: the disk does not do what it is asked\n" == done.stderr
    assert ["copy.db", "large.db", "swarm.db"] == names(here)
    assert "precious" == (here / "copy.db").read_text()


@pytest.mark.parametrize("error", ["SQLITE_FULL", "ENOSPC"])
def test_a_full_disk_is_no_mistake(invoke, here, monkeypatch, error):
    """There may be room tomorrow: exit code 1, whoever noticed it."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("PRAGMA max_page_count=1")
        with pytest.raises(sqlite3.OperationalError) as raised:
            connection.execute("CREATE TABLE t (a)")
    full = raised.value if error == "SQLITE_FULL" else OSError(28, "No space left on device")

    def copy(backup, temporary):
        with backup._told(here):
            raise full

    monkeypatch.setattr(Backup, "_copy", copy)
    result = invoke("backup", "copy.db")
    assert (1, 1) == (result.exit_code, result.stderr.count("\n"))
    assert "copy.db" in result.stderr
    assert ["swarm.db"] == names(here)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(here, number):
    """It ends soon, without a word, and nothing is left behind."""
    large(here / "large.db", 100)
    before = names(here)
    with subprocess.Popen(
        [*COMMAND, "backup", "copy.db", "--store", "large.db"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        deadline = time.monotonic() + 20
        while not any(path.stat().st_size > 1_000_000 for path in here.glob(".copy.db.*")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(number)
        begun = time.monotonic()
        said = process.communicate(timeout=20)[0]
    assert (130, b"") == (process.returncode, said)
    assert time.monotonic() - begun < 5
    assert before == names(here)


def test_an_interruption_ends_the_copying_itself(here, monkeypatch):
    """Not only what comes after it: a copy that takes an hour is not waited for."""
    many = [{"kind": "game", "id": f"{number}"} for number in range(20_000)]
    backup = Backup(make_store(here / "many.db", many), here / "copy.db")
    reached = []
    monkeypatch.setattr(Backup, "_examine", lambda *_: reached.append(True))
    backup.interrupt()
    with pytest.raises(StorageError):
        backup.run()
    assert [] == reached
    assert ["many.db", "swarm.db"] == names(here)


def test_the_order_of_what_reaches_the_disk(here):
    """The copy is synced before it has its name, and the folder afterwards: a power cut leaves a whole file or none."""
    command = ["strace", "-f", "-qq", "-y", "-e", "trace=fsync,fdatasync,rename,unlink", "-o", "trace", *COMMAND]
    subprocess.run([*command, "backup", "copy.db"], capture_output=True, timeout=60, check=True)
    steps = []
    for line in (here / "trace").read_text().splitlines():
        if " fsync(" in line and ".part>" in line:  # SQLite's own is an fdatasync, and not of every version
            steps.append("file")
        elif "rename(" in line and "copy.db" in line:
            steps.append("name")
        elif "sync(" in line and line.split("<", 1)[1].startswith(f"{here}>"):
            steps.append("folder")
    assert "file name folder" == " ".join(steps[-3:]), steps


def test_restoring(invoke, here):
    """A backup of the backup into the store's place: refused while somebody serves it, and then it is all there."""
    before = rows(here / "swarm.db")
    assert 0 == invoke("backup", "monday.db").exit_code
    damage(here / "swarm.db")
    (here / "swarm.db-wal").write_text("of the damaged one")
    ownership = Ownership(here / "swarm.db")
    refused(invoke("backup", "swarm.db", "--store", "monday.db", "--force"), "is in use by another process")
    ownership.release()
    assert 0 == invoke("backup", "swarm.db", "--store", "monday.db", "--force").exit_code
    assert ["monday.db", "swarm.db"] == names(here)
    assert before == rows(here / "swarm.db")
