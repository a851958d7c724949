"""Lines from a file descriptor, as they come, in batches that make one request each.

A batch is what a read gave, so that a slow source is published at once and a quick one in large pieces; it is bounded
in lines and bytes, and so is a line that does not end.
"""

import os
from functools import partial
from typing import Final

import attrs
import trio

from trio_swarm.settings import KIB, MIB

MOST_LINES: Final = 250  # a quarter of what a journal keeps, so that readers have their time
MOST_BYTES: Final = 128 * KIB
LONGEST_LINE: Final = 1 * MIB  # a service takes no larger request
_READ_BYTES: Final = 64 * KIB


class InputFailed(Exception):
    """The descriptor cannot be read; `reason` is the system's."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class LineTooLong(Exception):
    """A line has no end within what a service takes. `number` counts from 1."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@attrs.frozen
class Batch:
    """Lines as they stand in the input. `first` is the number of the first one, from 1."""

    first: int
    lines: list[bytes]


class Lines:
    """Reads a descriptor to its end. It is read in threads, for a file cannot be waited for."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""
        self._number = 1  # of the next line

    async def next(self) -> list[Batch]:
        """The next lines, in batches; none at the end. Cancelled, it is of no further use.

        Raises:
            LineTooLong: after everything before that line was given.
            InputFailed: likewise.
        """
        while True:
            if len(self._rest) > LONGEST_LINE:
                raise LineTooLong(self._number)
            chunk = await self._read()
            if not chunk:
                last, self._rest = self._rest, b""
                return self._batches([last]) if last else []
            *lines, self._rest = (self._rest + chunk).split(b"\n")
            if lines:
                return self._batches(lines)

    async def _read(self) -> bytes:
        read = partial(os.read, self._descriptor, _READ_BYTES)
        while True:
            try:
                return await trio.to_thread.run_sync(read, abandon_on_cancel=True)
            except BlockingIOError:  # whoever else has it open may have made it so; no file that cannot be waited for
                await trio.lowlevel.wait_readable(self._descriptor)
            except OSError as error:
                raise InputFailed(error.strerror or str(error)) from error

    def _batches(self, lines: list[bytes]) -> list[Batch]:
        batches: list[Batch] = []
        size = 0
        for line in lines:
            if not batches or len(batches[-1].lines) == MOST_LINES or size + len(line) > MOST_BYTES:
                batches.append(Batch(self._number, []))
                size = 0
            batches[-1].lines.append(line)
            size += len(line)
            self._number += 1
        return batches
