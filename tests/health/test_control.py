"""The control socket: who may open it, what it tells, and what is left of it."""

import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_swarm.errors import SettingsError
from trio_swarm.health.control import (
    answers,
    find_folder,
    find_sockets,
    open_control,
    prepare_folder,
    run_found_control,
)
from trio_swarm.settings import VIEWERS
from trio_swarm.testing.leaks import assert_no_leaks

PATIENCE_S = 60.0


class Teller:
    """Counts how often it is asked; a line of it can be made large."""

    def __init__(self):
        self.looks = 0
        self.padding = ""

    def __call__(self, with_tree):
        self.looks += 1
        return {"look": self.looks, "padding": self.padding, **({"tree": {}} if with_tree else {})}


class Lines:
    """A viewer's end."""

    def __init__(self, stream):
        self.stream = stream
        self.rest = b""

    async def next(self):
        with trio.fail_after(PATIENCE_S):
            while b"\n" not in self.rest:
                try:
                    received = await self.stream.receive_some(65536)
                except trio.BrokenResourceError:
                    return None
                if not received:
                    return None
                self.rest += received
        line, _, self.rest = self.rest.partition(b"\n")
        return json.loads(line)

    async def ask(self, word):
        await self.stream.send_all(word + b"\n")
        return await self.next()


async def view(path):
    return Lines(await trio.open_unix_socket(str(path)))


async def test_lines_unasked_and_asked(tmp_path):
    """A line comes at once and then others; who asks gets one line for each, with the tree when that is the word."""
    path = tmp_path / "service.sock"
    with assert_no_leaks():
        async with open_control(path, Teller()):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            viewer = await view(path)
            async with viewer.stream:
                first, second = await viewer.next(), await viewer.next()
                assert (first["look"], second["look"]) == (1, 2)
                assert "tree" in await viewer.ask(b"tree")
                assert "tree" not in await viewer.ask(b"")
        assert not path.exists()


async def test_many_viewers_cost_one_look_and_no_more_than_eight_come(tmp_path):
    """What is told unasked is made once for all; the ninth is told that there are enough."""
    path, teller = tmp_path / "service.sock", Teller()
    async with open_control(path, teller):
        viewers = [await view(path) for _ in range(VIEWERS)]
        lines = [await viewer.next() for viewer in viewers]
        assert max(line["look"] for line in lines) <= 2
        ninth = await view(path)
        assert "error" in await ninth.next()
        assert await ninth.next() is None
        for viewer in [*viewers, ninth]:
            await viewer.stream.aclose()


async def test_a_viewer_that_does_not_read_is_dropped(tmp_path, monkeypatch):
    """It loses its place, and others are told as before."""
    monkeypatch.setattr("trio_swarm.health.control.SEND_S", 0.1)
    monkeypatch.setattr("trio_swarm.health.control.EVERY_S", 0.05)
    path, teller = tmp_path / "service.sock", Teller()
    teller.padding = "x" * 1_000_000
    async with open_control(path, teller):
        deaf = [await view(path) for _ in range(VIEWERS)]
        with trio.fail_after(PATIENCE_S):
            while "look" not in await (other := await view(path)).next():
                await other.stream.aclose()
                await trio.sleep(0.02)
        await other.stream.aclose()
        for viewer in deaf:
            await viewer.stream.aclose()


async def test_words_without_an_end(tmp_path):
    """A viewer that writes on and on without ending a line is dropped."""
    path = tmp_path / "service.sock"
    async with open_control(path, Teller()):
        viewer = await view(path)
        async with viewer.stream:
            await viewer.next()
            await viewer.stream.send_all(b"x" * 5_000)
            with trio.fail_after(PATIENCE_S):
                while await viewer.next() is not None:
                    pass


async def test_what_is_there_already(tmp_path):
    """A dead process's socket is replaced; a live one's, a file and a link are not."""
    path = tmp_path / "service.sock"
    script = "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); os.kill(os.getpid(), 9)"
    await trio.run_process([sys.executable, "-c", script, str(path)], check=False)
    assert path.is_socket()
    async with open_control(path, Teller()):
        with pytest.raises(SettingsError, match="another service's socket"):
            async with open_control(path, Teller()):
                pass
        viewer = await view(path)
        assert await viewer.next()
        await viewer.stream.aclose()
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("file", "link"):
        with pytest.raises(SettingsError, match="is no socket"):
            async with open_control(tmp_path / name, Teller()):
                pass
    assert (tmp_path / "file").read_text() == "mine"


@contextmanager
def without_permission(path):
    """As a user who may not connect: root is another one for the time of the block."""
    if os.geteuid():
        path.chmod(0)
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_another_user_s_socket_stays():
    """In a folder that all may write to: what may not be tried is not taken for dead."""

    async def enter(path):
        async with open_control(path, Teller()):
            pass

    with tempfile.TemporaryDirectory() as name, socket.socket(socket.AF_UNIX) as listener:
        folder = Path(name)
        folder.chmod(0o777)  # and not sticky
        path = folder / "service.sock"
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen()
        before = path.stat().st_ino
        with without_permission(path), pytest.raises(SettingsError, match="another service's socket"):
            trio.run(enter, path)
        assert [before] == [each.stat().st_ino for each in folder.iterdir()]


async def test_at_the_end_only_its_own_file_is_removed(tmp_path):
    """Somebody removed ours and put another in its place."""
    path = tmp_path / "service.sock"
    with socket.socket(socket.AF_UNIX) as another:
        async with open_control(path, Teller()):
            path.unlink()
            another.bind(str(path))
        assert [path] == list(tmp_path.iterdir())


async def test_while_its_file_is_there_it_answers(tmp_path):
    """Also between its cancellation and its end, or the next service would take the file for a dead one's."""
    path = tmp_path / "service.sock"
    with trio.CancelScope() as scope:
        async with open_control(path, Teller()):
            scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.testing.wait_all_tasks_blocked()
                assert path.exists()
                assert answers(path)
    assert [] == list(tmp_path.iterdir())


async def test_a_socket_that_cannot_be_made_leaves_nothing(tmp_path, monkeypatch):
    """Neither where its path is too long for a socket, nor where it cannot have its name."""

    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    with pytest.raises(SettingsError, match="path too long"):
        async with open_control(tmp_path / ("x" * 110), Teller()):
            pass
    monkeypatch.setattr(Path, "rename", refuse)
    with assert_no_leaks(), pytest.raises(SettingsError, match="Operation not permitted"):
        async with open_control(tmp_path / "service.sock", Teller()):
            pass
    assert [] == list(tmp_path.iterdir())


async def test_other_threads_keep_their_umask(tmp_path, monkeypatch):
    """It is the whole process's, and a file made meanwhile would have modes of ours."""
    changed = []
    monkeypatch.setattr(os, "umask", lambda mask: changed.append(mask) or 0o022)
    async with open_control(tmp_path / "service.sock", Teller()):
        assert 0o600 == stat.S_IMODE((tmp_path / "service.sock").stat().st_mode)
    assert [] == changed


def test_the_folder(tmp_path):
    """It is made for this user alone; one that others may write to, and a link, are refused."""
    prepare_folder(tmp_path / "own")
    assert stat.S_IMODE((tmp_path / "own").stat().st_mode) == 0o700
    prepare_folder(tmp_path / "own")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path / "own")
    for name in ("open", "link", "absent/below"):
        with pytest.raises(SettingsError, match="control"):
            prepare_folder(tmp_path / name)
    if os.getuid() == 0:
        os.chown(tmp_path / "own", 12345, 12345)
        with pytest.raises(SettingsError, match="only this user"):
            prepare_folder(tmp_path / "own")


def test_where_the_folder_is(tmp_path):
    """The service manager's folder before the user's, and that before one of our own making."""
    user = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert find_folder({"RUNTIME_DIRECTORY": "/run/swarm", **user}).as_posix() == "/run/swarm"
    assert find_folder(user) == tmp_path / "trio-swarm"
    assert find_folder({"XDG_RUNTIME_DIR": "/absent"}).name == f"trio-swarm-{os.getuid()}"


async def test_without_a_place_the_service_runs_on(tmp_path):
    """A folder that cannot be trusted costs the window, not the service; else services are found by their sockets."""
    (tmp_path / "trio-swarm").mkdir()
    (tmp_path / "trio-swarm").chmod(0o777)
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    async with trio.open_nursery() as nursery:
        await nursery.start(run_found_control, 8000, Teller(), environment)
        assert find_sockets(environment) == []
        (tmp_path / "trio-swarm").chmod(0o700)
        await nursery.start(run_found_control, 8001, Teller(), environment)
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / "trio-swarm" / "8002.sock"))
        assert [path.name for path in find_sockets(environment)] == ["8001.sock"]
        await nursery.start(run_found_control, 8003, Teller(), environment)
        assert {path.name for path in (tmp_path / "trio-swarm").iterdir()} == {"8001.sock", "8003.sock"}
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_after_kill_nine(tmp_path):
    """A service killed by force leaves its socket's file, and the next one takes its place."""
    path = tmp_path / "window.sock"
    command = [sys.executable, "-m", "trio_swarm.cli", "serve", "--bind", "127.0.0.1:0", "--control", str(path)]
    for sign in (9, 15):
        process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        with trio.fail_after(20):
            assert await process.stdout.receive_some(4096)
            viewer = await view(path)
            assert "statistics" in await viewer.next()
            await viewer.stream.aclose()
            process.send_signal(sign)
            await process.wait()
        await process.stdout.aclose()
        assert path.exists() == (sign == 9)
