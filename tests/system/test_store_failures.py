"""A service whose store fails under it: a full disk, a file system that may only be read, a damaged file. All real.

The file systems are mounted in a namespace of the service's own; the test reaches into it by its `/proc`.
"""

import os
import shutil
import signal
import sqlite3
import subprocess
from pathlib import Path

import httpx
import pytest
import trio

from conftest import COMMAND
from trio_swarm.storage.schema import VERSION

MODULE = """
from trio_swarm import DurableObject, exposed

class Ledger(DurableObject):
    durable = {"*"}

    async def start(self):
        self.count = await self.storage.get("count", 0)

    @exposed
    async def enter(self, size: int) -> int:
        self.storage.put_many({"count": self.count + 1, f"page:{self.count % 50}": [self.count, "x" * size]})
        self.publish("entered", self.count + 1)
        self.set_alarm("last", after=3600, data=self.count + 1)
        self.count += 1
        return self.count

    @exposed
    async def look(self) -> int:
        return self.count

    async def on_alarm(self, key, data, attempt):
        pass
"""
IN_A_TMPFS = 'mount -t tmpfs -o size={size} tmpfs {place} && cp -r {files} {place}/ && cd {place} && exec "$@"'


class Books:
    """What the calls of a few ledgers were answered, kept outside of the service."""

    def __init__(self, port):
        self.base = f"http://127.0.0.1:{port}"
        self.entered = dict.fromkeys("abcd", 0)
        self.refused = 0

    async def enter(self, client, name, size=30_000):
        """One entry; answers its status."""
        answer = await client.post(f"{self.base}/v1/ledger/{name}/call/enter", json=[size])
        if answer.status_code == 200:
            assert self.entered[name] + 1 == answer.json()["result"]
            self.entered[name] += 1
        else:
            self.refused += 1
            assert (503, True) == (
                answer.status_code,
                answer.json()["error"]["code"] in {"storage_error", "object_restarted"},
            )
        return answer.status_code

    async def ready(self, client):
        """What the service says of itself."""
        answer = await client.get(f"{self.base}/readyz")
        return answer.status_code, answer.json().get("reason")

    async def check(self, client):
        """Each ledger holds exactly what it has acknowledged, in its values and in its events."""
        for name, count in self.entered.items():
            answer = await client.post(f"{self.base}/v1/ledger/{name}/call/look")
            assert {"result": count} == answer.json()
            answer = await client.get(f"{self.base}/v1/ledger/{name}/history", params={"since": "0-0", "limit": 1000})
            assert list(range(1, count + 1))[-900:] == [event["data"] for event in answer.json()["events"]][-900:]
            assert not answer.json()["gap"]


async def until(condition):
    with trio.fail_after(60):
        while True:
            if await condition():
                return
            await trio.sleep(0.05)


async def test_a_full_disk(service, tmp_path):
    """Turns that cannot be kept are refused and nothing of them is seen; what only reads goes on, and so does all once

    there is room again. After a `kill -9` exactly what was acknowledged is there.
    """
    place, files = tmp_path / "disk", tmp_path / "files"
    place.mkdir()
    files.mkdir()
    (files / "books.py").write_text(MODULE)
    (files / "ballast").write_bytes(bytes(4 << 20))
    launcher = ["unshare", "-m", "sh", "-c", IN_A_TMPFS.format(size="9m", place=place, files=f"{files}/*"), "sh"]
    arguments = ["serve", "--store", "swarm.db", "--objects", "books", "--bind", "127.0.0.1:0"]
    async with service(*arguments, launcher=launcher) as (process, port), httpx.AsyncClient() as client:
        disk = Path(f"/proc/{process.pid}/root") / place.relative_to("/")
        books = Books(port)
        with trio.fail_after(60):
            while await books.enter(client, "abcd"[sum(books.entered.values()) % 4]) == 200:
                pass
        assert (503, "storage_error") == await books.ready(client)
        for name in "abcd":
            answer = await client.post(f"{books.base}/v1/ledger/{name}/call/look")
            assert {"result": books.entered[name]} == answer.json()
            await books.enter(client, name, 60_000)
        refused = books.refused
        assert refused >= 4
        (disk / "ballast").unlink()
        await until(lambda: _is_ready(books, client))
        for name in "abcd":
            assert 200 == await books.enter(client, name)
        await books.check(client)
        kept = tmp_path / "kept"
        kept.mkdir()
        os.kill(process.pid, signal.SIGSTOP)  # the copy is that of one moment
        for file in disk.glob("swarm.db*"):
            shutil.copy(file, kept)
        process.kill()
    arguments[2] = kept / "swarm.db"
    async with service(*arguments, cwd=files) as (_, port), httpx.AsyncClient() as client:
        books.base = f"http://127.0.0.1:{port}"
        await books.check(client)


async def _is_ready(books, client):
    return await books.ready(client) == (200, None)


def test_a_disk_that_may_only_be_read(tmp_path):
    """It is said at the start, in one sentence."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "files").mkdir()
    script = IN_A_TMPFS.format(size="1m", place=tmp_path / "disk", files=tmp_path / "files")
    script = script.replace("exec", f"mount -o remount,ro {tmp_path / 'disk'} && exec")
    command = [
        "unshare",
        "-m",
        "sh",
        "-c",
        script,
        "sh",
        COMMAND,
        "serve",
        "--store",
        "swarm.db",
        "--bind",
        "127.0.0.1:0",
    ]
    said = subprocess.run(command, capture_output=True, check=False, timeout=30)
    store = tmp_path / "disk" / "swarm.db"
    way_out = "give another with --store FILE, or --store memory: to keep nothing"
    sentence = f"Error: store: {store} cannot be opened: Read-only file system; {way_out}\n"
    assert (2, sentence) == (said.returncode, said.stderr.decode())


async def test_a_damaged_page(service, tmp_path):
    """What lies on it is refused and never made up, and what does not need it goes on."""
    (tmp_path / "books.py").write_text(MODULE)
    store = tmp_path / "swarm.db"
    arguments = ["serve", "--store", store, "--objects", "books", "--bind", "127.0.0.1:0"]
    async with service(*arguments, cwd=tmp_path) as (_, port), httpx.AsyncClient() as client:
        books = Books(port)
        for name in "abcd":
            assert 200 == await books.enter(client, name)
    with sqlite3.connect(store) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'pair'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    connection.close()
    with store.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(os.urandom(size))
    async with service(*arguments, cwd=tmp_path) as (_, port), httpx.AsyncClient() as client:
        base = f"http://127.0.0.1:{port}/v1"
        answer = await client.post(f"{base}/ledger/a/call/look")
        assert (503, "storage_error") == (answer.status_code, answer.json()["error"]["code"])
        answer = await client.post(f"{base}/channel/lobby/publish", json={"data": 1, "durable": True})
        assert 200 == answer.status_code


@pytest.mark.parametrize("command", [["serve"], ["check"]])
@pytest.mark.parametrize("what", ["damaged", "newer", "foreign", "folder"])
def test_a_file_that_cannot_be_used(tmp_path, what, command):
    """Each command says what is wrong with it in one sentence, with exit code 2, and leaves it as it is."""
    store = tmp_path / "swarm.db"
    if what == "folder":
        store.mkdir()
        sentence = f"{store} is a folder: give a file"
    elif what == "damaged":
        store.write_bytes(b"SQLite format 3\0" + os.urandom(8000))
        sentence = "it is not an SQLite file"
    else:
        with sqlite3.connect(store) as connection:
            connection.execute("CREATE TABLE anything (x)")
            if what == "newer":
                connection.execute(f"PRAGMA application_id={0x7472_7377}")
                connection.execute(f"PRAGMA user_version={VERSION + 1}")
        connection.close()
        sentence = f"is of version {VERSION + 1}" if what == "newer" else "is a database of something else"
    before = None if store.is_dir() else store.read_bytes()
    arguments = [COMMAND, *command, "--store", store, "--bind", "127.0.0.1:0"]
    said = subprocess.run(arguments, capture_output=True, check=False, timeout=30, cwd=tmp_path)
    text = (said.stdout + said.stderr).decode()
    assert (2, True) == (said.returncode, sentence in text), text
    assert "Traceback" not in text
    assert before is None or before == store.read_bytes()
