"""Does a client that is owed bytes still take them? Two limits hold for every way out.

- **Stalled**: no headway for `stall.seconds`. Headway is what the client's kernel acknowledges. What ours takes from us
  is no measure: it takes lumps of up to a third of its buffer, and between two of them a client on a bad line would
  look dead.
- **Slow reader**: fewer than `stall.bytes_per_s` on average, once that same time is over, of what is owed when a write
  has to wait: its own bytes, and those before it that the kernel still has. Whoever takes a byte now and then makes
  headway; without this limit it would hold its place and a range of the journal for ever. A client that is faster
  than this and slower than its stream lives on: it falls off the journal, and its class's policy says what then.
"""

import contextlib
import errno
from typing import Final

import trio

from trio_swarm.edge.reasons import GONE, SLOW_READER, STALLED, UNACKNOWLEDGED

try:
    from fcntl import ioctl
    from termios import TIOCOUTQ
except ImportError:  # not on this system: lumps are all there is to see
    ioctl = None  # type: ignore[assignment]

# At what the peer has acknowledged, in one `stall.seconds`: a limit is overrun by an eighth of itself, or by two where
# headway showed between two looks.
LOOKS: Final = 8


def unacknowledged(fd: int) -> int | None:
    """How many bytes of a TCP socket its peer has not acknowledged; None where the kernel does not tell."""
    if ioctl is None or fd < 0:
        return None
    answer = bytearray(4)
    with contextlib.suppress(OSError):
        ioctl(fd, TIOCOUTQ, answer)
        return int.from_bytes(answer, "little")
    return None


def time_for(size: int, stall_s: float, bytes_per_s: float) -> float:
    """How many seconds so many bytes may take in all."""
    return stall_s + size / bytes_per_s


def why_lost(error: BaseException | None) -> str:
    """Name the reason why a socket failed: did the peer go, or did nobody answer?"""
    while error is not None:
        if isinstance(error, OSError) and error.errno == errno.ETIMEDOUT:
            return UNACKNOWLEDGED
        error = error.__cause__
    return GONE


class Patience:
    """The time that one write of the host's has, its wait for its turn included."""

    __slots__ = ("_begun", "_bytes_per_s", "_size", "_stall_s", "_until", "scope")

    def __init__(self, size: int, stall_s: float, bytes_per_s: float) -> None:
        self._size = size
        self._stall_s = stall_s
        self._bytes_per_s = bytes_per_s
        self._begun = False
        self._until: float | None = None
        self.scope = trio.CancelScope(deadline=trio.current_time() + stall_s)

    def begin(self) -> None:
        """Note that its turn has come: from here its size counts, and until here that of whoever was before it."""
        self._begun = True
        self.moved()

    def blocked(self, queued: int) -> None:
        """Note that the socket is full, and of how many bytes."""
        if self._begun and self._until is None:
            size = queued + self._size
            self._until = trio.current_time() + time_for(size, self._stall_s, self._bytes_per_s)
            self.moved()

    def moved(self) -> None:
        """Note headway: of this write, or of one that it waits for."""
        deadline = trio.current_time() + self._stall_s
        self.scope.deadline = deadline if self._until is None else min(deadline, self._until)

    @property
    def fault(self) -> str:
        """Why its time is over; empty while it is not."""
        if not self.scope.cancel_called:
            return ""
        return SLOW_READER if self._until is not None and trio.current_time() >= self._until else STALLED


class Writes:
    """The host's writes to one socket: the one under way, and those that wait for their turn."""

    __slots__ = ("_patiences",)

    def __init__(self) -> None:
        self._patiences: list[Patience] = []

    def __bool__(self) -> bool:
        return bool(self._patiences)

    def add(self, size: int, stall_s: float, bytes_per_s: float) -> Patience:
        """Give a write its time; pair with `remove`."""
        patience = Patience(size, stall_s, bytes_per_s)
        self._patiences.append(patience)
        return patience

    def remove(self, patience: Patience) -> None:
        """Note that the write is over, however it went."""
        self._patiences.remove(patience)

    def moved(self) -> None:
        """Note headway on this socket, whoever writes: those who wait for their turn are given their time anew."""
        for patience in self._patiences:
            patience.moved()

    def blocked(self, queued: int) -> None:
        """Note that the socket is full, with so many bytes that the peer has not acknowledged."""
        for patience in self._patiences:
            patience.blocked(queued)
