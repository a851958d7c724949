"""What a peer answers to a WebSocket's handshake when it does not accept. No I/O.

trio-websocket keeps the body of a refusal until it ends, which it need not do. Here the refusal is complete when more
came than anybody writes into one; an answer that accepts, or is no HTTP, is left to wsproto, which bounds its head.
"""

import h11
import trio_websocket
import wsproto.utilities

from trio_swarm.settings import KIB

_REFUSAL_BYTES = 64 * KIB  # as much of an answer over HTTP is read for its sentence
_WORDS = 200  # of what a peer's own text may say in a reason


class Answer:
    """The bytes so far of one answer."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._judged = False

    def take(self, data: bytes | bytearray) -> trio_websocket.ConnectionRejected | None:
        """Take the next piece. The refusal, when there is more of it than is read."""
        if self._judged:
            return None
        self._bytes += data
        if len(self._bytes) <= _REFUSAL_BYTES:
            return None
        self._judged = True
        refusal = _read(bytes(self._bytes[:_REFUSAL_BYTES]))
        self._bytes.clear()
        return refusal


def why_broken(error: BaseException) -> str:
    """What the peer did, from what the library raised: it tries to answer as only a server can, and fails at that."""
    each: BaseException | None = error
    while each is not None and not isinstance(each, wsproto.utilities.RemoteProtocolError):
        each = each.__context__
    said = str(error if each is None else each) or type(error).__name__
    if each is not None and isinstance(each.__context__, h11.RemoteProtocolError):
        said = f"its answer is no HTTP ({each.__context__})"
    return said[:_WORDS]


def _read(answer: bytes) -> trio_websocket.ConnectionRejected | None:
    """The refusal that an answer begins with; None where it is none."""
    reader = h11.Connection(h11.CLIENT)
    upgrade = [("host", "any"), ("connection", "upgrade"), ("upgrade", "websocket")]  # else a 101 would be an error
    reader.send(h11.Request(method="GET", target="/", headers=upgrade))
    reader.send(h11.EndOfMessage())
    reader.receive_data(answer)
    try:
        event = reader.next_event()
        if not isinstance(event, h11.Response):
            return None
        body = reader.next_event()
    except h11.RemoteProtocolError:
        return None
    said = bytes(body.data) if isinstance(body, h11.Data) else b""
    return trio_websocket.ConnectionRejected(event.status_code, tuple(event.headers), said)
