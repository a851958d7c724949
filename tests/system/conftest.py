"""Running the commands as a user does: child processes of the installed console script."""

import os
import re
import subprocess
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

COMMAND = Path(sys.executable).with_name("trio-swarm")


@asynccontextmanager
async def running(*arguments, ready=r"(?:http|ws)://[0-9.]+:([0-9]+)", deadline=20):
    """Start `trio-swarm ARGUMENTS`, give the port that its first line with a URL names, end it with SIGTERM."""
    async with trio.open_nursery() as nursery:
        process = await nursery.start(_run, [str(COMMAND), *map(str, arguments)])
        text = b""
        try:
            with trio.fail_after(deadline):
                while (found := re.search(ready.encode(), text)) is None:
                    received = await process.stdout.receive_some(65536)
                    assert received, f"it ended before it was ready: {text.decode()}"
                    text += received
            nursery.start_soon(_drain, process.stdout)
            yield process, int(found[1])
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            with trio.CancelScope(shield=True), trio.move_on_after(10) as patience:
                await process.wait()
            if patience.cancelled_caught:
                process.kill()
            nursery.cancel_scope.cancel()


async def _run(command, *, task_status):
    process = await trio.lowlevel.open_process(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    task_status.started(process)
    await process.wait()


async def _drain(stream):
    with suppress(trio.ClosedResourceError, trio.BrokenResourceError):
        while await stream.receive_some(65536):
            pass


@pytest.fixture
def service():
    """The way to run a command: its process and port, for as long as a block lasts."""
    return running
