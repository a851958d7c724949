"""Where objects keep their state when nobody says so: `serve` in a file, a library and the demo in memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from trio_swarm.cli.options import Asked
from trio_swarm.settings import Settings
from trio_swarm.settings_loading import load

COMMAND = [sys.executable, "-m", "trio_swarm.cli"]

COUNTER = """
from trio_swarm import DurableObject, exposed

class Counter(DurableObject):
    @exposed
    async def add(self) -> int:
        number = await self.storage.get("number", 0) + 1
        self.storage.put("number", number)
        return number
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory in which nobody says anything of a store."""
    monkeypatch.delenv("TRIO_SWARM_STORE")
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def add(service):
    async with httpx.AsyncClient(base_url=service.url, timeout=10) as client:
        return (await client.post("/v1/counter/a/call/add", json=[])).json()


async def test_what_objects_store_is_there_after_a_restart(child, here):
    """`serve` without a word about a store keeps it in `swarm.db`, in the working directory."""
    (here / "counting.py").write_text(COUNTER)
    for number in (1, 2):
        async with child("serve", "--bind", "127.0.0.1:0", "--objects", "counting", cwd=here) as service:
            assert {"result": number} == await add(service)
            assert 0 == await service.end()
        assert ["swarm.db"] == [path.name for path in here.glob("swarm*")]


@pytest.mark.parametrize("way", ["file", "variable", "option"])
async def test_what_is_said_wins(child, here, monkeypatch, way):
    """A setting in the file, in the environment or on the command line is what holds: also one for memory."""
    options = ["--bind", "127.0.0.1:0"]
    if way == "file":
        (here / "s.toml").write_text('store = "memory:"\n')
        options += ["--config", "s.toml"]
    elif way == "variable":
        monkeypatch.setenv("TRIO_SWARM_STORE", "memory:")
    else:
        options += ["--store", "memory:"]
    async with child("serve", *options, cwd=here) as service:
        assert 0 == await service.end()
    assert [] == list(here.glob("swarm*"))


def test_only_the_commands_have_this_default(here):
    """The settings themselves, a library's and an ASGI host's, say memory; the file beats the default."""
    assert "memory:" == Settings().store == load(None, os.environ).store
    assert "swarm.db" == Asked().settings().store
    (here / "s.toml").write_text('store = "other.db"\n')
    assert "other.db" == Asked(config="s.toml").settings().store
    assert "third.db" == Asked(config="s.toml", store="third.db").settings().store


async def test_the_demo_keeps_nothing(child, here):
    """A demonstration leaves no file behind, where it is run."""
    async with child("demo", "--bind", "127.0.0.1:0", cwd=here) as service:
        assert 0 == await service.end()
    assert [] == list(here.iterdir())


def test_check_and_budget_see_what_serve_does(invoke, here):
    """`check` speaks of the same file, and makes none; `budget` counts a file's caches, and no store in memory."""
    found = {each["what"]: each for each in json.loads(invoke("check", "--bind", "127.0.0.1:0", "--json").stdout)}
    assert ("ok", "swarm.db will be made") == (found["store"]["state"], found["store"]["says"])
    parts = [row["part"] for row in json.loads(invoke("budget", "--json").stdout)["rows"]]
    assert "the store's caches" in parts
    assert "the store" not in parts
    assert [] == list(here.iterdir())


def serve_in(folder):
    script = f"import os; os.chdir({str(folder)!r}); os.path.isdir('gone') and (os.chdir('gone'), os.rmdir('../gone'))"
    command = [sys.executable, "-c", f"{script}; os.execv({sys.executable!r}, {[*COMMAND, 'serve', *BIND]!r})"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


BIND = ["--bind", "127.0.0.1:0"]


@pytest.mark.parametrize("place", ["/sys", "gone"])
def test_a_working_directory_that_takes_no_file(here, place):
    """One that may not be written to, or is gone: one sentence, which names the ways out."""
    if place == "gone":
        (here / "gone").mkdir()
    done = serve_in(here if place == "gone" else Path(place))
    assert (2, 1) == (done.returncode, done.stderr.count("\n")), done.stderr
    assert "swarm.db cannot be opened: " in done.stderr
    assert done.stderr.endswith("; give another with --store FILE, or --store memory: to keep nothing\n")


async def test_a_second_service_in_the_same_place(child, here):
    """It would overwrite what the first one knows: it is told who has the store, and what to give."""
    async with child("serve", *BIND, cwd=here) as service:
        done = serve_in(here)
        assert 2 == done.returncode
        assert f"({service.process.pid}); a store has one owner; give another with --store FILE" in done.stderr
        assert 0 == await service.end()
