"""Standard output as a stream of lines that never holds up the loop, and knows when nobody reads any more.

A pipe that is full must not keep a command from ending at Ctrl-C or after `--seconds`, nor from answering the pings of
the service. So a write waits until the kernel says that it will take it, and gives it no more at once than a pipe then
takes without blocking.
"""

import os
import select
import stat
from typing import Final

import trio

from trio_swarm.cli.standard_output import cannot_write

_AT_ONCE: Final = select.PIPE_BUF  # a pipe that can be written to takes this much whole
_LOOK_S: Final = 0.5  # how often a command that has nothing to say sees whether somebody listens


class NobodyReads(Exception):
    """The other end of standard output is closed: what was asked for is done."""


class Output:
    """Writes to a file descriptor that somebody else owns."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._is_file = stat.S_ISREG(os.fstat(descriptor).st_mode)  # always takes all, and cannot be waited for
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    async def write(self, data: bytes) -> None:
        """Hand everything to the kernel. Cancelled, a part of it may be written.

        Raises:
            NobodyReads: and nobody will.
            click.ClickException: there is no room.
        """
        view = memoryview(data)
        while view:
            if not self._is_file and not self._poll.poll(0):
                await trio.lowlevel.wait_writable(self._descriptor)
            try:
                written = os.write(self._descriptor, view if self._is_file else view[:_AT_ONCE])
            except BlockingIOError:  # somebody made it so: it tells the truth later
                await trio.lowlevel.wait_writable(self._descriptor)
            except BrokenPipeError:
                raise NobodyReads from None
            except OSError as error:
                raise cannot_write(error) from error
            else:
                view = view[written:]

    async def watch(self) -> None:
        """Return when nobody reads any more; for ever where that cannot be seen."""
        gone = select.poll()
        gone.register(self._descriptor, 0)  # errors are told unasked
        while not gone.poll(0) or self._is_file:  # noqa: ASYNC110 - the kernel has no event for it that Trio waits for
            await trio.sleep(_LOOK_S)
