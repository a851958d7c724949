"""The command line as a user has it: in this process for its mistakes, as a child process for what it serves."""

import re
import signal
import subprocess
import sys
import urllib.request
from contextlib import asynccontextmanager

import click.testing
import pytest
import structlog
import trio

from trio_swarm.cli import main
from trio_swarm.wire.sse import SseParser

_READY = re.compile(r"http://127\.0\.0\.1:\d+")


@pytest.fixture
def invoke():
    """`invoke("serve", "--bind", …)` runs a command here and gives click's result."""
    yield lambda *arguments: click.testing.CliRunner().invoke(main, arguments)
    structlog.reset_defaults()


class Child:
    """A command in a process of its own. `url` is where it serves; `lines` are what it has said."""

    def __init__(self, process):
        self.process = process
        self.lines = []
        self.url = ""

    async def listen(self):
        rest = b""
        async for chunk in self.process.stdout:
            *lines, rest = (rest + chunk).split(b"\n")
            self.lines += [line.decode() for line in lines]

    async def wait_ready(self):
        with trio.fail_after(60):
            while not (found := _READY.search("\n".join(self.lines))):
                assert self.process.poll() is None, self.lines
                await trio.sleep(0.02)
        self.url = found[0]

    async def end(self):
        """Ask it to end as Ctrl-C does; its exit code."""
        self.process.send_signal(signal.SIGINT)
        with trio.fail_after(60):
            return await self.process.wait()


@pytest.fixture
def child():
    """Run a command as a child process, which ends with the scope of its `async with`."""

    @asynccontextmanager
    async def run(*arguments, cwd=None):
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "trio_swarm.cli", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=cwd,
        )
        started = Child(process)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(started.listen)
                await started.wait_ready()
                yield started
                nursery.cancel_scope.cancel()
        finally:
            if process.poll() is None:
                process.kill()
            with trio.CancelScope(shield=True), trio.move_on_after(5):
                await process.wait()
            await process.stdout.aclose()

    return run


@pytest.fixture
def read_events():
    """Read the first so many events of an SSE stream, or all until its end, with the standard library."""

    def read(url, count):
        parser, events = SseParser(), []
        with urllib.request.urlopen(url, timeout=15) as response:  # noqa: S310 - our own service
            while len(events) < count and (chunk := response.read1()):
                events += parser.feed(chunk)
        return events[:count]

    async def run(url, count):
        return await trio.to_thread.run_sync(read, url, count)

    return run
