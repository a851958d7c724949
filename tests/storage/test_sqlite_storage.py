"""The SQLite store against a plain dict, and what it does when a commit, a batch or the whole file is refused."""

import fcntl
import os
import sqlite3
import threading
from contextlib import asynccontextmanager

import pytest
import structlog
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from trio_swarm.errors import SettingsError, StorageError
from trio_swarm.settings import Limits
from trio_swarm.storage import Commit
from trio_swarm.storage.opening import open_storage
from trio_swarm.storage.schema import VERSION, Ownership
from trio_swarm.storage.sqlite import SqliteStorage

KEYS = st.text("aé\U0010ffff\0", min_size=1, max_size=2)
CHANGES = st.dictionaries(KEYS, st.none() | st.binary(max_size=4), max_size=4)
GAME, ROOM = ("game", "a"), ("room", "a")
OWNERS = [GAME, ("game", "b"), ROOM]


@asynccontextmanager
async def opened(path, **options):
    """A store that is closed at the end."""
    store = await SqliteStorage.open(path, **options)
    try:
        yield store
    finally:
        with trio.CancelScope(shield=True), trio.fail_after(10):
            await store.aclose()


class Outcomes:
    """What became of commits, in the order in which it was told."""

    def __init__(self, store):
        self.store = store
        self.told = []
        self.submitted = 0
        self._news = trio.Event()

    def submit(self, owner, changes, *, clear=False, incarnation=1):
        number = self.submitted
        self.submitted += 1

        def done(error):
            self.told.append((number, error))
            self._news.set()

        self.store.submit(Commit(owner, incarnation, changes, clear), done)

    async def all(self):
        """Every error, by submission; None where it is safe."""
        with trio.fail_after(10):
            while len(self.told) < self.submitted:
                self._news = trio.Event()
                await self._news.wait()
        return [error for _, error in sorted(self.told, key=lambda told: told[0])]


async def commit(store, owner, changes, **options):
    """One commit and its outcome."""
    outcomes = Outcomes(store)
    outcomes.submit(owner, changes, **options)
    return (await outcomes.all())[0]


@settings(max_examples=60, deadline=None)
@given(
    commits=st.lists(st.tuples(st.sampled_from(OWNERS), CHANGES, st.booleans(), st.booleans()), max_size=12),
    prefix=KEYS | st.just(""),
    start=st.none() | KEYS,
)
@example(commits=[(GAME, {"a": b"1", "aa": b"2"}, False, True)], prefix="a", start="a")  # the first key that may come
def test_it_holds_what_a_plain_dict_holds(tmp_path_factory, commits, prefix, start):
    """After any commits, waited for or not, reads and scans give what a dict gives; and so after opening it again."""
    path = tmp_path_factory.mktemp("model") / "swarm.db"
    model = {owner: {} for owner in OWNERS}

    async def check(store):
        for owner, pairs in model.items():
            assert pairs == await store.get_many(owner, [*pairs, "nowhere"])
            for reverse in (False, True):
                wanted = sorted(
                    (
                        (key, value)
                        for key, value in pairs.items()
                        if key.startswith(prefix) and (start is None or (key <= start if reverse else key >= start))
                    ),
                    reverse=reverse,
                )
                for limit in (2, 100):
                    assert wanted[:limit] == await store.scan(owner, prefix, start, limit, reverse=reverse)

    async def main():
        async with opened(path, synchronous="OFF") as store:
            outcomes = Outcomes(store)
            for owner, changes, clear, waits in commits:
                outcomes.submit(owner, changes, clear=clear)
                if clear:
                    model[owner].clear()
                for key, value in changes.items():
                    if value is None:
                        model[owner].pop(key, None)
                    else:
                        model[owner][key] = value
                if waits:
                    await outcomes.all()
            assert [None] * len(commits) == await outcomes.all()
            assert list(range(len(commits))) == [number for number, _ in outcomes.told]
            await check(store)
        async with opened(path, synchronous="OFF") as store:
            await check(store)
        with sqlite3.connect(path) as connection:
            kept = connection.execute("SELECT kind, id, bytes FROM object").fetchall()
        connection.close()
        sizes = {
            owner: sum(len(key.encode()) + len(value) for key, value in pairs.items()) for owner, pairs in model.items()
        }
        assert {owner: size for owner, size in sizes.items() if size} == {(kind, id_): size for kind, id_, size in kept}

    trio.run(main)


async def test_one_refused_turn_takes_no_other_with_it(tmp_path):
    """In one batch, the commit that would pass the object's bound is undone; those before, between and after stay."""
    async with opened(tmp_path / "swarm.db", object_bytes=1000) as store:
        outcomes = Outcomes(store)
        outcomes.submit(GAME, {"a": b"1"})
        outcomes.submit(ROOM, {"a": b"1"})
        outcomes.submit(GAME, {"a": b"2", "b": b"x" * 1000})
        outcomes.submit(ROOM, {"a": b"2"})
        outcomes.submit(GAME, {"a": b"3"})
        outcomes.submit(GAME, {"c": b"4"}, incarnation=2)
        errors = await outcomes.all()
        assert [None, None, "StorageError", None, "StorageError", None] == [
            error and type(error).__name__ for error in errors
        ]
        assert "game/a would keep" in str(errors[2])
        assert {"a": b"1", "c": b"4"} == await store.get_many(GAME, ["a", "b", "c"])
        assert {"a": b"2"} == await store.get_many(ROOM, ["a"])


async def test_an_object_whose_first_turn_was_refused_begins_anew(tmp_path):
    """Nothing of the refused turn is remembered: the next life's pairs are its own, and no other object's."""
    async with opened(tmp_path / "swarm.db", object_bytes=1000) as store:
        assert isinstance(await commit(store, GAME, {"large": b"x" * 1000}), StorageError)
        assert await commit(store, ROOM, {"a": b"1"}) is None
        assert await commit(store, GAME, {"a": b"2"}, incarnation=2) is None
        assert {"a": b"1"} == await store.get_many(ROOM, ["a"])
        assert {"a": b"2"} == await store.get_many(GAME, ["a", "large"])


async def test_what_sqlite_cannot_take_is_refused_and_the_writer_goes_on(tmp_path):
    """A turn with a key that is no text, and a number that is none of 64 bits, each get an error, and nobody else."""
    with structlog.testing.capture_logs() as entries:
        async with opened(tmp_path / "swarm.db") as store:
            assert isinstance(await commit(store, GAME, {"a": b"1", "\ud800": b"2"}), StorageError)
            with pytest.raises(StorageError):
                await store.reserve_clock(2**70)
            assert await commit(store, GAME, {"b": b"3"}, incarnation=2) is None
            assert {"b": b"3"} == await store.get_many(GAME, ["a", "b"])
    said = ["commit_failed", "commit_failed", "store_failed", "store_recovered"]
    assert said == [entry["event"] for entry in entries]


async def test_commits_that_wait_together_share_one_sync(tmp_path):
    """A thousand commits of a moment are a few batches."""
    async with opened(tmp_path / "swarm.db") as store:
        outcomes = Outcomes(store)
        for n in range(1000):
            outcomes.submit(("game", str(n)), {"a": b"%d" % n})
        assert {None} == set(await outcomes.all())
        writer = store.statistics().writer
        assert (1000, 0, None) == (writer.commits, writer.refused, writer.error)
        assert writer.batches <= 100


async def test_a_full_disk_fails_the_batch_and_the_store_goes_on(tmp_path):
    """Nothing of the batch is kept, its incarnations are refused, the sentence says why; what fits is taken again."""
    path = tmp_path / "swarm.db"
    async with opened(path) as store:
        assert await commit(store, GAME, {"kept": b"1"}) is None
        store._writer._connection.execute("PRAGMA max_page_count=12")  # the writer waits for work: nobody uses it
        outcomes = Outcomes(store)
        outcomes.submit(ROOM, {"small": b"1"})
        outcomes.submit(GAME, {"large": b"x" * 100_000})
        errors = await outcomes.all()
        assert all("the disk is full" in str(error) for error in errors if error is not None)
        assert isinstance(errors[1], StorageError)
        assert isinstance(await commit(store, GAME, {"kept": b"2"}), StorageError)
        assert await commit(store, GAME, {"kept": b"3"}, incarnation=2) is None
        assert await commit(store, ROOM, {"small": b"2"}, incarnation=2) is None
        assert store.statistics().writer.error is None
    async with opened(path) as store:
        assert {"kept": b"3"} == await store.get_many(GAME, ["kept", "large"])
        assert {"small": b"2"} == await store.get_many(ROOM, ["small"])


async def test_a_lock_of_somebody_else_fails_what_waits_and_no_more(tmp_path, monkeypatch):
    """While a shell holds the database, commits fail with that reason; reads and later commits go well."""
    monkeypatch.setattr("trio_swarm.storage.schema.BUSY_S", 0.05)
    path = tmp_path / "swarm.db"
    async with opened(path) as store:
        assert await commit(store, GAME, {"a": b"1"}) is None
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert "another program holds a lock" in str(await commit(store, GAME, {"a": b"2"}))
        assert "another program holds a lock" in store.statistics().writer.error
        assert {"a": b"1"} == await store.get_many(GAME, ["a"])
        with pytest.raises(StorageError, match="another program"):
            await store.reserve_clock(5)
        other.execute("COMMIT")
        other.close()
        assert await commit(store, GAME, {"a": b"3"}, incarnation=2) is None


async def test_the_clock_mark_only_rises_and_is_kept(tmp_path):
    """A lower reservation changes nothing, and the next process finds the highest."""
    path = tmp_path / "swarm.db"
    async with opened(path) as store:
        assert 0 == await store.clock_mark()
        await store.reserve_clock(10)
        await store.reserve_clock(5)
    async with opened(path) as store:
        assert 10 == await store.clock_mark()


async def test_a_store_has_one_owner(tmp_path):
    """A second one is told who has it; after the first has closed it may."""
    path = tmp_path / "swarm.db"
    async with opened(path):
        with pytest.raises(StorageError, match=rf"in use by another process \({os.getpid()}\)"):
            await SqliteStorage.open(path)
    async with opened(path):
        pass
    assert [] == list(tmp_path.glob("*.lock"))


async def test_a_lock_whose_file_has_gone_is_no_lock(tmp_path, monkeypatch):
    """Who got the lock of an owner that left meanwhile, and took the file with it, tries again: never are there two."""
    path = tmp_path / "swarm.db"
    left = Ownership(path)
    opened_files = []
    real = Ownership._open

    def late(self, path):
        fd = os.open(self._lock, os.O_RDWR) if not opened_files else None
        opened_files.append(fd)
        if fd is None:
            return real(self, path)
        left.release()  # between the opening and the lock
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd

    monkeypatch.setattr(Ownership, "_open", late)
    owner = Ownership(path)
    assert 2 == len(opened_files)
    with pytest.raises(StorageError, match="in use"):
        real(owner, path)
    owner.release()


async def test_a_closed_store_says_so(tmp_path):
    """What was taken before the close is written; after it, nothing is taken or read. Closing twice is one close."""
    path = tmp_path / "swarm.db"
    store = await SqliteStorage.open(path)
    outcomes = Outcomes(store)
    outcomes.submit(GAME, {"a": b"1"})
    await store.aclose()
    assert [None] == await outcomes.all()
    await store.aclose()
    with pytest.raises(StorageError, match="is closed"):
        store.submit(Commit(GAME, 1, {}), print)
    with pytest.raises(StorageError, match="is closed"):
        await store.get_many(GAME, ["a"])
    async with opened(path) as store:
        assert {"a": b"1"} == await store.get_many(GAME, ["a"])


async def test_a_close_waits_for_the_reads_that_have_begun(tmp_path):
    """More of them than there are readers: each is answered, none is told of the close."""
    store = await SqliteStorage.open(tmp_path / "swarm.db")
    assert await commit(store, GAME, {"a": b"1"}) is None
    answers = []

    async def read():
        answers.append(await store.get_many(GAME, ["a"]))

    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(read)
        for _ in range(2):  # the first may come before theirs
            await trio.lowlevel.checkpoint()
        await store.aclose()
    assert [{"a": b"1"}] * 50 == answers
    await store.aclose()


async def test_after_a_cancelled_close_no_thread_is_left(tmp_path):
    """Nobody waits for them, and they end by themselves."""
    store = await SqliteStorage.open(tmp_path / "left.db")
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.aclose()
    with trio.fail_after(10):
        for thread in threading.enumerate():
            if "left.db" in thread.name:
                await trio.to_thread.run_sync(thread.join)
    await store.aclose()


async def test_one_file_has_one_owner_by_whatever_name(tmp_path):
    """A symbolic link leads to the same lock; a hard link is refused."""
    path = tmp_path / "swarm.db"
    (tmp_path / "link.db").symlink_to(path)
    async with opened(path):
        with pytest.raises(StorageError, match="in use"):
            await SqliteStorage.open(tmp_path / "link.db")
    (tmp_path / "hard.db").hardlink_to(path)
    with pytest.raises(StorageError, match="hard link"):
        await SqliteStorage.open(path)


async def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    """The lock is given back although somebody else has the descriptor still."""
    path = tmp_path / "swarm.db"
    async with opened(path) as store:
        kept = os.dup(store._ownership._fd)
    try:
        async with opened(path):
            pass
    finally:
        os.close(kept)


def _write(path, content):
    path.write_bytes(content)


def _other_database(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (a)")
    connection.close()


def _newer(path):
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE later (a)")
        connection.execute("PRAGMA application_id=1953657719")
        connection.execute(f"PRAGMA user_version={VERSION + 1}")
    connection.close()


@pytest.mark.parametrize(
    ("prepare", "sentence"),
    [
        (lambda path: _write(path, b"not a database, but a text of some length" * 40), "is not an SQLite file"),
        (_other_database, "is a database of something else"),
        (_newer, f"is of version {VERSION + 1}, and this trio_swarm knows {VERSION}"),
        (lambda path: path.mkdir(), "is a folder: give a file"),
    ],
    ids=["no database", "another's", "newer", "a folder"],
)
async def test_what_is_no_store_is_refused_and_left_alone(tmp_path, prepare, sentence):
    """The error names the file and what is wrong with it; the file is as it was, and nothing holds it."""
    path = tmp_path / "swarm.db"
    prepare(path)
    before = path.read_bytes() if path.is_file() else None
    for _ in range(2):
        with pytest.raises(SettingsError, match=sentence) as caught:
            await open_storage(str(path), Limits())
        assert "store" == caught.value.where
        assert str(path) in str(caught.value)
    assert before == (path.read_bytes() if path.is_file() else None)
    assert [path] == list(tmp_path.iterdir())


async def test_a_store_that_nobody_knows_is_refused():
    """The error says what may be given."""
    for store in ("", "redis://localhost", "nosuch:", "sqlite:x"):
        with pytest.raises(SettingsError, match=r"give memory: or the path of a file"):
            await open_storage(store, Limits())
    for folder in (".", "..", "/"):
        with pytest.raises(SettingsError, match="is a folder"):
            await open_storage(folder, Limits())
    with pytest.raises(SettingsError, match="cannot be opened: No such file or directory"):
        await open_storage("no/such/folder/swarm.db", Limits())
