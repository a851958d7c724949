"""The way out to one client, as fan-out sees it.

Fan-out decides *what* goes to whom; a sink knows *how* bytes leave. A sink takes one payload at a time: `write` never
waits, and what the kernel did not take stays with the sink (never more than that one payload), which is then not
`ready` until the rest has gone. When it is ready again it calls `on_ready`. After its end (`abort`, or a peer that
went away) it is never ready again and `write` does nothing.
"""

from collections.abc import Callable
from typing import Any, Final, Protocol

LAGGED: Final = "lagged"  # why a reader is aborted whose class sends away who falls off the journal


class Sink(Protocol):
    """One client's way out; see the module. `edge/direct.py`, `edge/transport.py` and `fanout/reader.py` fill it."""

    ready: bool
    on_ready: Callable[[], None] | None

    def write(self, payload: Any) -> None:
        """Take one encoded payload, without waiting; only while `ready`. Never raises: a dead peer is `abort`ed."""

    def abort(self, reason: str) -> None:
        """End this client at once and for good. Idempotent, never raises."""
