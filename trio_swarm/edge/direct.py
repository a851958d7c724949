"""The direct way to a client: straight to the socket, without waiting; transport.py has what all ways share.

`DirectTransport.write` is the hottest code of the project, one call a delivery. It keeps no descriptor's number: over
a close that would write into a stranger's socket. The socket's own `send` knows whether it is closed, and a bound
method in C costs nothing beside the system call; asking Trio's socket for its number costs 1 µs of 7.
"""

import trio

from trio_swarm.edge.headway import time_for, unacknowledged, why_lost
from trio_swarm.edge.reasons import SLOW_READER, STALLED
from trio_swarm.edge.transport import DETACHED, Connection, Transport
from trio_swarm.edge.writability import Writability


class DirectTransport(Transport):
    """Bytes straight to the socket below an HTTP/1.1 connection without TLS; payloads are whole chunks or frames."""

    __slots__ = ("_connection", "_gate", "_owed", "_rest", "_send_now", "_writability")

    def __init__(self, connection: Connection, writability: Writability) -> None:
        super().__init__()
        self._connection = connection
        self._send_now = connection.send_now
        self._gate = connection.gate
        self._rest: memoryview | None = None
        self._owed: int | None = None  # what the peer had not acknowledged at the last look, since the last headway
        self._writability = writability
        self._gate.direct = self
        self.ready = self._gate.open

    @property
    def last_byte_at(self) -> float | None:
        """Trio time of the last byte received from the peer."""
        return self._connection.last_byte_at

    @property
    def outstanding(self) -> bool:
        """Is a part of a payload still to be written? Until then the host must not write."""
        return self._rest is not None

    def write(self, payload: bytes) -> None:
        """See `Transport.write`."""
        if not self.ready:
            self._misused()
            return
        try:
            sent = self._send_now(payload)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.abort(why_lost(error))
            return
        if sent != len(payload):
            self.ready = False
            self._rest = memoryview(payload)[sent:]
            self._began = trio.current_time()
            self._size = len(self._rest) + (unacknowledged(self._connection.fileno()) or 0)
            self._wait_writable()

    def fault(self, now: float, stall_s: float, bytes_per_s: float) -> str:
        """See `Transport.fault`."""
        since = self.blocked_since
        if since is None:
            return ""
        owed, before = unacknowledged(self._connection.fileno()), self._owed
        self._owed = owed
        if before is not None and owed is not None and owed < before:
            self.blocked_since = now
            self._connection.writes.moved()
        elif now - since > stall_s:
            return STALLED
        return SLOW_READER if now - self._began > time_for(self._size, stall_s, bytes_per_s) else ""

    def abort(self, reason: str) -> None:
        """See `Transport.abort`. After `detach` the connection is the host's, and this does nothing."""
        if not self.closed or self._rest is not None:
            self._connection.abort(reason)
            self.lost(reason)

    def detach(self) -> None:
        """See `Transport.detach`. A payload that is partly out still goes out whole, before any byte of the host's."""
        self._end(DETACHED)
        if self._rest is None and self._gate.direct is self:
            self._gate.direct = None

    def lost(self, reason: str) -> None:
        """The connection tells that its socket is about to close, or is closed: forget it. Idempotent."""
        if self._rest is not None:
            self._rest = None
            self._writability.forget(self._connection.fileno())
        if self._gate.direct is self:
            self._gate.direct = None
        self._end(reason)

    def gate_opened(self) -> None:
        """The gate tells that the host has left."""
        if self.closed:
            self.detach()
        else:
            self._give_turns()

    def _wait_writable(self) -> None:
        self.blocked_since = trio.current_time()
        self._owed = None
        try:
            self._writability.watch(self._connection.fileno(), self._flush)
        except (OSError, ValueError):
            self.abort("the socket cannot be waited for")

    def _flush(self) -> None:
        """The socket takes bytes again, or has failed: the next write tells which."""
        rest = self._rest
        if rest is None:
            return
        try:
            sent = self._send_now(rest)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self.abort(why_lost(error))
            return
        if sent:
            self._connection.writes.moved()
        if sent < len(rest):
            since, owed = self.blocked_since, self._owed
            self._rest = rest[sent:]
            self._wait_writable()
            if not sent and self._rest is not None:
                self.blocked_since, self._owed = since, owed  # woken for nothing is no headway
            return
        self._rest = None
        self.blocked_since = None
        self._gate.settled()
