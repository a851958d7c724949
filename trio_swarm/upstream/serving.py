"""The other side of a WebSocket: what plays a feed (a replay, a test's script) talks through this.

trio-websocket's own server lets what one peer provokes end the server for all; here each connection ends alone.
"""

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
import trio
import trio_websocket
import wsproto.utilities

HANDSHAKE_S = 10.0
CLOSE_S = 1.0  # how long a peer may take to answer a close
MESSAGE_BYTES = 1024 * 1024  # subscriptions come in; data only goes out

_PEERS_FAULT = (
    trio_websocket.ConnectionClosed,
    trio_websocket.HandshakeError,
    wsproto.utilities.ProtocolError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
)

log = structlog.get_logger(__name__)


class ServedConnection:
    """One accepted connection. `send` and `receive` raise `trio.BrokenResourceError` when it has ended."""

    def __init__(self, websocket: Any) -> None:
        self._websocket = websocket

    async def send(self, data: str | bytes) -> None:
        """Send one frame."""
        try:
            await self._websocket.send_message(data)
        except (trio_websocket.ConnectionClosed, wsproto.utilities.ProtocolError) as error:
            raise trio.BrokenResourceError(str(error)) from error

    async def receive(self) -> str | bytes:
        """The next frame."""
        try:
            frame: str | bytes = await self._websocket.get_message()
        except trio_websocket.ConnectionClosed as error:
            raise trio.BrokenResourceError(str(error)) from error
        return frame

    async def drain(self) -> None:
        """Read until the peer has gone: pings are answered only where frames are taken."""
        with contextlib.suppress(trio.BrokenResourceError):
            while True:
                await self.receive()

    async def close(self, code: int = 1000, reason: str | None = None) -> None:
        """Say goodbye, and wait for the answer for at most `CLOSE_S`."""
        with trio.move_on_after(CLOSE_S), contextlib.suppress(wsproto.utilities.ProtocolError):
            await self._websocket.aclose(code, reason)


async def serve_stream(
    stream: trio.abc.Stream,
    handler: Callable[[ServedConnection], Awaitable[None]],
    *,
    refuse: int | None = None,
) -> None:
    """Shake hands, run the handler, close, and close the stream whatever happened.

    Args:
        stream: the accepted byte stream.
        handler: the connection ends when it returns; `trio.BrokenResourceError` out of it means that the peer has gone.
        refuse: answer the handshake with this HTTP status instead.
    """
    try:
        async with trio.open_nursery() as nursery:
            websocket = None
            with trio.move_on_after(HANDSHAKE_S):
                request = await trio_websocket.wrap_server_stream(nursery, stream, max_message_size=MESSAGE_BYTES)
                if refuse is None:
                    websocket = await request.accept()
                else:
                    await request.reject(refuse, body=b"refused")
            if websocket is not None:
                connection = ServedConnection(websocket)
                with contextlib.suppress(trio.BrokenResourceError):
                    await handler(connection)
                await connection.close()
            nursery.cancel_scope.cancel()
    except* _PEERS_FAULT as errors:
        log.info("peer_broke_off", reason=repr(errors.exceptions[0]))
    finally:
        await trio.aclose_forcefully(stream)
