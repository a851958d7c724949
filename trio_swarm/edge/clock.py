"""The one clock of a connection: how long the client has for what it is at, and why it is cut off when that is over.

Its hand is the deadline of the connection's nursery; docs/deadlines.md has the table of all times. It stands still
while a request is answered, and for a stream, which fan-out and liveness watch. Once a goodbye has its time, no message
gives more.
"""

import trio

from trio_swarm.edge import reasons
from trio_swarm.edge.last_answer import NEVER
from trio_swarm.settings import LivenessSettings


class Clock:
    """See the module."""

    __slots__ = ("_quiet", "_scope", "_times", "parting", "why")

    def __init__(self, times: LivenessSettings) -> None:
        self._times = times
        self._scope: trio.CancelScope | None = None
        self._quiet = False  # between two requests, and no byte of the next one has come
        self.parting = False  # one goodbye has its time: a WebSocket's close, or the connection's own
        self.why = ""  # the reason of an abort, should the time now running be over

    def start(self, scope: trio.CancelScope) -> None:
        """Begin, with the time for the first request's head; `scope` is what is cancelled."""
        self._scope = scope
        self.allow(self._times.header_s, reasons.SLOW_HEAD)

    def forget(self) -> None:
        """Let go of the scope: its tasks refer to the connection."""
        self._scope = None

    def allow(self, seconds: float, reason: str) -> None:
        """Give this long, from now; else the connection is aborted for this reason."""
        self.why = reason
        if self._scope is not None:
            self._scope.deadline = trio.current_time() + seconds

    def stop(self) -> None:
        """Stop, unless a goodbye has been said."""
        if self._scope is not None and not self.parting:
            self._scope.deadline = NEVER

    def idle(self) -> None:
        """A request is over: give the pause before the next one."""
        self._quiet = True
        self.allow(self._times.keep_alive_s, reasons.IDLE)

    def head_began(self) -> None:
        """Bytes of a head are here: the first of them end the pause."""
        if self._quiet:
            self._quiet = False
            self.allow(self._times.header_s, reasons.SLOW_HEAD)

    def request_began(self) -> None:
        """Give a request, whose head is whole, the time for its body."""
        self.allow(self._times.body_s, reasons.SLOW_BODY)

    def message_began(self) -> None:
        """Give a WebSocket message, or a frame, that has begun and is not whole the time for its rest."""
        if not self.parting:
            self.allow(self._times.body_s, reasons.SLOW_MESSAGE)

    def part(self) -> None:
        """Begin the time for the peer's half of a goodbye: once, however many goodbyes there are."""
        if not self.parting:
            self.parting = True
            self.allow(self._times.closing_s, reasons.UNANSWERED)

    def serving_ends(self) -> None:
        """Give a connection without a request no more than if it had had `closing_s` when it was accepted."""
        self.why = reasons.IDLE
        if self._scope is not None:
            self._scope.deadline -= max(0.0, self._times.header_s - self._times.closing_s)
