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
async def running(
    *arguments,
    ready=r"(?:http|ws)://[0-9.]+:([0-9]+)",
    deadline=60,
    launcher=(),
    environment=None,
    said=None,
    **options,
):
    """Start `trio-swarm ARGUMENTS`, give the port that its first line with a URL names, end it with SIGTERM.

    `launcher` is put before the command; what it writes is added to `said`, a bytearray.
    """
    said = bytearray() if said is None else said
    async with trio.open_nursery() as nursery:
        command = [*launcher, str(COMMAND), *map(str, arguments)]
        process = await nursery.start(_run, command, environment or {}, options)
        text = b""
        try:
            with trio.fail_after(deadline):
                while (found := re.search(ready.encode(), text)) is None:
                    received = await process.stdout.receive_some(65536)
                    assert received, f"it ended before it was ready: {text.decode()}"
                    text += received
            said += text
            nursery.start_soon(_drain, process.stdout, said)
            yield process, int(found[1])
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            with trio.CancelScope(shield=True), trio.move_on_after(60) as patience:
                await process.wait()
            if patience.cancelled_caught:
                process.kill()
            nursery.cancel_scope.cancel()


async def _run(command, environment, options, *, task_status):
    process = await trio.lowlevel.open_process(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
        **options,
    )
    task_status.started(process)
    await process.wait()


async def _drain(stream, said):
    with suppress(trio.ClosedResourceError, trio.BrokenResourceError):
        while received := await stream.receive_some(65536):
            said += received


@pytest.fixture
def service():
    """The way to run a command: its process and port, for as long as a block lasts."""
    return running
