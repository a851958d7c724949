"""Lines on their way to a descriptor, which may be a pipe that nobody reads.

A write to a full pipe, to a terminal stopped with Ctrl-S or to a hanging disk waits; on Trio's own thread it would stop
the whole service for as long. So lines are taken into a buffer, and one thread of this sink's own writes them: what
blocks, blocks that thread. The buffer has a bound in bytes. Lines beyond it are dropped and counted, and once the
descriptor takes bytes again a remark says how many.

`write` takes a line, `flush` hurries: what was only written goes out within `GATHER_S`, or with the next
`WRITE_BYTES`, many lines in one system call.

In a forked child the thread does not exist. There each line is written at once by the one who logs it: a child may end
by `os._exit` right behind the line that says why, and what blocks there, blocks that child alone.
"""

import threading
import time
from collections.abc import Callable
from typing import Final

import attrs

from trio_swarm.health.forks import anew_in_children

BUFFER_BYTES: Final = 1024 * 1024  # 5,000 lines of access log: a second of the busiest service
GATHER_S: Final = 0.5  # well under the second within which a line is promised
WRITE_BYTES: Final = 64 * 1024  # at once: what a pipe holds
CLOSE_S: Final = 1.0  # at the end, for a descriptor that does not take what is left
FULL_S: Final = 0.05  # between two tries at a descriptor that somebody has made non-blocking

Write = Callable[[bytes], int]


@attrs.frozen
class SinkStatistics:
    """What a sink holds and has done; `dropped` counts lines that found no room, or no reader."""

    held_bytes: int
    limit_bytes: int
    lines: int
    dropped: int


class LineSink:
    """See the module. Has the two methods of a file that structlog's `BytesLogger` calls.

    Args:
        write: takes bytes, may block, gives how many it took, raises OSError.
        remark: asked about twice a second, on the sink's thread, with the number of lines dropped that no remark
            has told of; gives lines of its own, or nothing. What it raises is a line dropped.
        limit_bytes: what is held at most.
    """

    def __init__(self, write: Write, remark: Callable[[int], bytes], *, limit_bytes: int = BUFFER_BYTES) -> None:
        self._write = write
        self._remark = remark
        self._limit = limit_bytes
        self._in_child = False
        self._begin()
        self._lines = 0
        self._dropped = 0
        self._told = 0  # of those dropped, how many a remark has told of
        self._closing = False
        anew_in_children(self)
        self._thread = threading.Thread(target=self._run, name="trio_swarm log", daemon=True)
        self._thread.start()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._hurry = threading.Event()
        self._pending: list[bytes] = []
        self._waiting = 0  # bytes of them
        self._held = 0  # what is being written still counts

    def begin_in_child(self) -> None:
        """Forget what the parent's thread writes, and write from now on without one."""
        self._begin()
        self._in_child = True

    def write(self, line: bytes) -> None:
        """Take one line, its newline included. Never raises, and never waits but in a child."""
        size = len(line)
        with self._lock:
            if self._held + size > self._limit or self._closing:
                self._dropped += 1
                return
            self._pending.append(line)
            self._held += size
            self._lines += 1
            self._waiting += size
            if self._waiting >= WRITE_BYTES and not self._hurry.is_set():
                self._hurry.set()
        if self._in_child:
            self._empty()

    def flush(self) -> None:
        """Have what was written go out now. Does not wait for it."""
        self._hurry.set()

    def close(self) -> None:
        """Write what is left, for `CLOSE_S` at most; further lines are dropped. Idempotent."""
        self._closing = True
        if self._in_child:
            self._empty()
            return
        self._hurry.set()
        self._thread.join(CLOSE_S)

    def statistics(self) -> SinkStatistics:
        """A moment of this sink."""
        return SinkStatistics(self._held, self._limit, self._lines, self._dropped)

    def _run(self) -> None:
        while not self._closing:
            self._hurry.wait(GATHER_S)
            self._hurry.clear()
            self._empty()
        self._empty()

    def _empty(self) -> None:
        with self._lock:
            lines, self._pending = self._pending, []
            size, self._waiting = self._waiting, 0
            dropped = self._dropped
        remarks, has_remarked = self._ask_remarks(dropped - self._told)
        try:
            self._write_all(memoryview(b"".join(lines)))
            self._write_all(memoryview(remarks))
        except Exception:  # noqa: BLE001 - nobody reads, the disk is full, the stream is closed: the thread lives on
            with self._lock:
                self._dropped += len(lines)
        else:
            self._told = dropped if has_remarked else self._told
        with self._lock:
            self._held -= size

    def _ask_remarks(self, untold: int) -> tuple[bytes, bool]:
        try:
            return self._remark(untold), True
        except Exception:  # noqa: BLE001 - the log must outlive a defect in what renders it; there is no place to tell of it
            with self._lock:
                self._dropped += 1
            return b"", False

    def _write_all(self, data: memoryview) -> None:
        while data:
            try:
                data = data[self._write(bytes(data[:WRITE_BYTES])) :]
            except BlockingIOError:
                time.sleep(FULL_S)
