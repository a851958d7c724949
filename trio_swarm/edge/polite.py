"""The transports as the edge makes them: a client that fan-out sends away is told so in its protocol's words.

Fan-out knows one way to end a client, `abort`. For all other reasons there is nobody left to tell. A client that fell
off the journal of a class with the policy `disconnect` is there, though, and ready to be written to: it gets the end
that says "come back" (WebSocket: 4002).

Both are made before the response begins, so that a subscription can be had while an error can still be a status.
Nothing is written before: a subscription is held until its greeting is out.
"""

from collections.abc import Callable
from typing import Any, Literal

from trio_swarm.edge.answers import Scope, Send
from trio_swarm.edge.direct import DirectTransport
from trio_swarm.edge.transport import KEY, AsgiTransport, Connection
from trio_swarm.edge.writability import Writability
from trio_swarm.fanout.sink import LAGGED


class PoliteDirect(DirectTransport):
    """Straight to the socket; see the module."""

    __slots__ = ("on_lagged",)

    def __init__(self, connection: Connection, writability: Writability) -> None:
        super().__init__(connection, writability)
        self.on_lagged: Callable[[], None] | None = None

    def abort(self, reason: str) -> None:
        """See `Transport.abort`."""
        if reason == LAGGED and self.on_lagged is not None and not self.closed:
            self.on_lagged()
        else:
            super().abort(reason)


class PoliteAsgi(AsgiTransport):
    """Through the host's `send`; see the module."""

    __slots__ = ("on_lagged",)

    def __init__(self, send: Send, kind: Literal["sse", "websocket"], connection: Connection | None) -> None:
        super().__init__(send, kind, connection)
        self.on_lagged: Callable[[], None] | None = None

    def abort(self, reason: str) -> None:
        """See `Transport.abort`."""
        if reason == LAGGED and self.on_lagged is not None and not self.closed:
            self.on_lagged()
        else:
            super().abort(reason)


def find_connection(scope: Scope) -> Any:
    """The host's connection, where the host is ours."""
    return (scope.get("state") or {}).get(KEY)


def make_transport(
    scope: Scope, send: Send, kind: Literal["sse", "websocket"], writability: Writability
) -> PoliteDirect | PoliteAsgi:
    """The best way to this client: direct where the host is ours and nothing encrypts in between.

    The connection is asked for that: a scope's scheme may be what a proxy's header says.
    """
    connection = find_connection(scope)
    if connection is None or connection.ended or connection.encrypted:
        return PoliteAsgi(send, kind, connection)
    return PoliteDirect(connection, writability)
