"""Signals that come while a reload is under way: none is lost, and none is taken for more than it says."""

import os
import signal
from contextlib import asynccontextmanager

import pytest
import trio
from returning_clients import wait_for
from test_reload import ask, reads_until, sayings, streaming

MODULE = """
import sys
import time
from pathlib import Path

import trio

from trio_swarm import exposed
from trio_swarm.objects.durable import DurableObject

if sys.argv[1] == "check":
    found = Path("found").read_text()
    Path("looked").touch()
    while not Path("go_on").exists():
        time.sleep(0.01)
    if found == "wrong":
        raise ValueError("found wrong")


class Child(DurableObject):
    @exposed
    async def wait(self) -> str:
        Path("called").touch()
        while not Path("answer").exists():
            await trio.sleep(0.01)
        return "waited"
"""


@asynccontextmanager
async def serving(service, directory, said):
    (directory / "signalled.py").write_text(MODULE)
    (directory / "found").write_text("right")
    arguments = ("serve", "--bind", "127.0.0.1:0", "--objects", "signalled")
    environment = {"TRIO_SWARM_LIVENESS__SHUTDOWN_S": "60"}  # nothing ends here because its time is over
    async with service(*arguments, said=said, cwd=directory, environment=environment) as (process, port):
        yield process, port


@pytest.mark.parametrize(("first", "then", "serves"), [("wrong", "right", 2), ("right", "wrong", 1)])
async def test_asked_again_while_the_check_runs(service, tmp_path, first, then, serves):
    """A check that has looked before the last change decides nothing: another one does, whatever the first found."""
    said = bytearray()
    async with serving(service, tmp_path, said) as (process, port):
        (tmp_path / "found").write_text(first)
        os.kill(process.pid, signal.SIGHUP)
        await wait_for((tmp_path / "looked").exists)
        (tmp_path / "found").write_text(then)
        os.kill(process.pid, signal.SIGHUP)
        assert 200 == (await ask(port))[0]  # by now it has the signal
        (tmp_path / "go_on").touch()
        await wait_for(lambda: sayings(said, "reload_refused") and sayings(said, "serves on") == serves)
        assert 1 == sayings(said, "reload_refused")
        assert 200 == (await ask(port))[0]
    assert serves == sayings(said, "serves on")
    assert 0 == process.returncode


@asynccontextmanager
async def ended_while_it_reloads(service, directory, said):
    """A service in the drain of a reload that was then told to end; gives it, a stream, and a call that waits."""
    async with (
        serving(service, directory, said) as (process, port),
        streaming(port) as stream,
        await trio.open_tcp_stream("127.0.0.1", port) as call,
    ):
        await call.send_all(b"POST /v1/child/a/call/wait HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")
        await wait_for((directory / "called").exists)
        (directory / "go_on").touch()
        os.kill(process.pid, signal.SIGHUP)
        await wait_for(lambda: sayings(said, "shutdown_begun"))
        process.terminate()
        with trio.fail_after(20), pytest.raises(OSError, match=r"failed|refused"):  # so it has the signal
            while True:
                await (await trio.open_tcp_stream("127.0.0.1", port)).aclose()
        yield process, stream, call


async def test_told_to_end_while_it_reloads(service, tmp_path):
    """It is the first time that it is told: it ends politely, and does not begin again."""
    said = bytearray()
    async with ended_while_it_reloads(service, tmp_path, said) as (process, stream, call):
        (tmp_path / "answer").touch()
        await reads_until(call, b'{"result":"waited"}')
        await reads_until(stream, b"retry: ")
        await wait_for(lambda: process.poll() is not None)
    assert (0, 1) == (process.returncode, sayings(said, "serves on"))


async def test_told_twice_to_end_while_it_reloads(service, tmp_path):
    """The second time is the second time: nobody is waited for."""
    said = bytearray()
    async with ended_while_it_reloads(service, tmp_path, said) as (process, _, _):
        process.terminate()
        with trio.fail_after(10):
            await process.wait()
    assert (0, 1) == (process.returncode, sayings(said, "serves on"))
