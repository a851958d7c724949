"""Standard output that takes nothing: a service goes on without it, and a command says so in one sentence."""

import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest
import trio
from trio_websocket import open_websocket_url

from trio_swarm.cli.serve import _addresses
from trio_swarm.settings import FeedSettings, Settings
from trio_swarm.upstream.capture import CaptureWriter

COMMAND = [sys.executable, "-m", "trio_swarm.cli"]
NO_ROOM = "Error: cannot write the output: No space left on device\n"


def no_room():
    return Path("/dev/full").open("w")


class Running:
    """A process, and its log: an entry for each line of stderr."""

    def __init__(self, process):
        self.process = process
        self.log = []

    async def read(self):
        rest = b""
        async for chunk in self.process.stderr:
            *lines, rest = (rest + chunk).split(b"\n")
            self.log += [json.loads(line) if line.startswith(b"{") else {"event": line.decode()} for line in lines]

    async def until(self, event, count=1):
        with trio.fail_after(60):
            while [each["event"] for each in self.log].count(event) < count:
                assert self.process.poll() is None, self.log
                await trio.sleep(0.02)

    async def port(self):
        """Where it listens, as the kernel knows it: it cannot say so itself."""
        with trio.fail_after(60):
            while True:
                assert self.process.poll() is None, self.log
                for each in psutil.Process(self.process.pid).net_connections():
                    if each.status == psutil.CONN_LISTEN:
                        return each.laddr.port
                await trio.sleep(0.02)

    async def end(self):
        self.process.send_signal(signal.SIGINT)
        with trio.fail_after(60):
            return await self.process.wait()


@asynccontextmanager
async def running(stdout, *arguments, env=None):
    process = await trio.lowlevel.open_process(
        [*COMMAND, *arguments], stdout=stdout, stderr=subprocess.PIPE, env={**os.environ, **(env or {})}
    )
    started = Running(process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(started.read)
            yield started
            nursery.cancel_scope.cancel()
    finally:
        if process.poll() is None:
            process.kill()
        with trio.CancelScope(shield=True), trio.move_on_after(5):
            await process.wait()
        await process.stderr.aclose()


def complaints(log):
    return [each["event"] for each in log if each.get("level") != "info"]


@pytest.mark.parametrize("buffered", ["", "1"], ids=["buffered", "unbuffered"])
async def test_a_reload_whose_reader_has_gone(buffered):
    """`serve | head -1`, then SIGHUP: it begins again, serves, and ends when told to."""
    reading, writing = os.pipe()
    async with running(writing, "serve", "--bind", "127.0.0.1:0", env={"PYTHONUNBUFFERED": buffered}) as service:
        os.close(writing)
        await service.until("service_ready")
        assert b"trio-swarm serves on" in os.read(reading, 4096)
        os.close(reading)
        service.process.send_signal(signal.SIGHUP)
        await service.until("service_ready", 2)
        service.process.send_signal(signal.SIGHUP)
        await service.until("service_ready", 3)
        assert 0 == await service.end()
    assert [] == complaints(service.log)


@pytest.mark.parametrize("command", ["serve", "demo"])
async def test_no_room_for_the_address(command):
    """A full disk behind stdout does not end what serves."""
    with no_room() as full:
        async with running(full, command, "--bind", "127.0.0.1:0", "--control", "off") as service:
            await service.until("service_ready")
            assert 0 == await service.end()
    assert [] == complaints(service.log)


async def test_a_replay_that_nobody_hears(tmp_path):
    """`replay` too plays on: it listens for longer than it takes to say so."""
    capture = tmp_path / "a.jsonl"
    reading, writing = os.pipe()
    os.close(reading)
    with CaptureWriter(capture, name="a", url="ws://h") as writer:
        writer.write(0.0, "in", "1")
    async with running(writing, "replay", str(capture), "--bind", "127.0.0.1:0") as service:
        os.close(writing)
        async with open_websocket_url(f"ws://127.0.0.1:{await service.port()}") as socket:
            assert "1" == await socket.get_message()
        assert 0 == await service.end()
    assert [] == complaints(service.log)


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["serve", "--help"], ["--version"], ["budget"], ["check", "--bind", "127.0.0.1:0"]],
    ids=" ".join,
)
def test_no_room_for_the_output(arguments, unbuffered):
    """Where the output is the work, its loss is one sentence and code 1."""
    with no_room() as full:
        done = subprocess.run(
            [*COMMAND, *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
            timeout=30,
            check=False,
        )
    assert (1, NO_ROOM) == (done.returncode, done.stderr)


@pytest.mark.parametrize("arguments", [["tail", "--since", "0-0"], ["top", "--once"]], ids=" ".join)
async def test_no_room_for_what_is_read_of_a_service(child, arguments, tmp_path, monkeypatch):
    """`tail` and `top` the same."""
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    async with child("serve", "--bind", "127.0.0.1:0") as service:
        await trio.run_process([*COMMAND, "publish", f"{service.url}/channel/a", "1"], capture_stdout=True)
        name, *options = arguments
        where = f"{service.url}/channel/a" if name == "tail" else service.url
        with no_room() as full, trio.fail_after(60):
            done = await trio.run_process(
                [*COMMAND, name, where, *options], stdout=full, capture_stderr=True, check=False
            )
        assert (1, NO_ROOM) == (done.returncode, done.stderr.decode())


def test_addresses_are_as_a_client_needs_them():
    """A feed's name that is no part of a URL as it is, is percent-encoded."""
    settings = Settings(feed=(FeedSettings("a b/c", "ws://h", "coinbase"),))
    assert "  http://h/v1/hub/a%20b%2Fc/events" in _addresses(settings, [], ["http://h"])
