"""Hypercorn's HTTP/1.1 and WebSocket, between the socket (connection.py) and the application, with their faults mended.

What differs from the stock protocol:
- HTTP/1.1 and WebSockets only: neither the h2c upgrade nor HTTP/2 by prior knowledge; cleartext HTTP/2 has no
  backpressure here.
- No permessage-deflate: 64 KB of it inflate to 64 MB before any limit is asked.
- The reader waits for the end of a response only while bytes of a next request are there; otherwise it reads on and
  sees the peer leave. (h11 also pauses after any request with an `Upgrade` header; stock Hypercorn then stops reading
  for ever.)
- Bytes behind an upgrade request are refused; stock Hypercorn answers them in the wrong state, and that exception
  ends the worker.
- A WebSocket that breaks the rules is closed with its code, and the application is told.
- Telling the application that its client is gone never waits for an application that does not read.
"""

from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, cast

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event
from hypercorn.protocol import h11 as host_h11
from hypercorn.protocol import http_stream, ws_stream
from hypercorn.protocol.events import Body, Data, EndBody, Request, StreamClosed
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from wsproto.connection import ConnectionState as WebSocketState
from wsproto.events import CloseConnection, Message, Ping

KEY: Final = "trio_swarm.connection"  # where an application finds its connection in its scope's `state`


class Owner(Protocol):
    """The connection, as its protocol sees it."""

    app: Any
    config: Config
    context: WorkerContext
    inbox: trio.MemorySendChannel[Any] | None
    state: Any

    async def protocol_send(self, event: Event) -> None:
        """Write bytes, or end."""

    async def tell(self, message: Any) -> None:
        """Put a message into the application's inbox."""

    def request_began(self) -> None:
        """Note that a request's head is whole."""

    def request_is_whole(self) -> None:
        """Note that nothing of the request is still to come."""

    def response_ends(self, *, over: bool) -> None:
        """Note that the response is about to end; `over`: by the application's own will."""

    def abort(self, reason: str) -> None:
        """End at once and by force."""


class Apps(TaskGroup):
    """Hypercorn's task group over the connection's own nursery; news of the end goes through `Owner.tell`."""

    def __init__(self, connection: Owner, nursery: trio.Nursery) -> None:
        self._connection = connection
        self._nursery = nursery
        self._nursery_manager = None

    async def spawn_app(self, app: Any, config: Config, scope: Any, send: Any) -> Callable[[Any], Awaitable[None]]:
        """Start the application; what comes back puts messages into its inbox."""
        put = await super().spawn_app(app, config, scope, send)
        self._connection.inbox = put.__self__  # type: ignore[attr-defined]  # the channel that `put` is the `send` of
        return self._connection.tell


class _WebSocket(ws_stream.WSStream):
    """Hypercorn's WebSocket, which also ends one that breaks the rules: with a code, and told to the application."""

    owner: Owner
    app_put: Any

    async def _handle_events(self) -> None:
        for event in self.connection.events():
            if isinstance(event, Message):
                if self.buffer.length + len(event.data) > self.buffer.max_length:
                    await self._end(CloseConnection(code=1009))
                    return
                self.buffer.extend(event)
                if event.message_finished:
                    await self.app_put(self.buffer.to_message())
                    self.buffer.clear()
            elif isinstance(event, Ping):
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                answer = self.connection.state is WebSocketState.REMOTE_CLOSING
                await self._end(event.response() if answer else CloseConnection(code=event.code))
                return

    async def app_send(self, message: Any) -> None:
        """Take the application's message; None says that it has returned."""
        if message is None:
            self.owner.response_ends(over=True)
        await super().app_send(message)

    async def _end(self, last: CloseConnection) -> None:
        await self._send_wsproto_event(last)
        await self.send(StreamClosed(stream_id=self.stream_id))


class HostProtocol(host_h11.H11Protocol):
    """HTTP/1.1 and WebSockets only, and a reader that parks only while bytes of a next request wait."""

    def __init__(self, connection: Owner, apps: Apps, *, ssl: bool, client: Any, server: Any) -> None:
        state = ConnectionState({**connection.state, KEY: connection})
        super().__init__(
            connection.app, connection.config, connection.context, apps, state, ssl, client, server,
            connection.protocol_send,
        )  # fmt: skip
        self._owner = connection

    async def _handle_events(self) -> None:  # noqa: C901 - a protocol's events, one branch each
        while True:
            if self.connection.they_are_waiting_for_100_continue:
                headers = self.config.response_headers("h11")
                await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=headers))
            try:
                event = self.connection.next_event()
            except h11.RemoteProtocolError as error:
                await self._refuse(error.error_status_hint)
                return
            if isinstance(event, h11.Request):
                self._owner.request_began()
                await self._create_stream(event)
            elif event is h11.PAUSED:
                if not self.pipelined:
                    return  # an upgrade that we ignore pauses h11 too, with nothing behind it
                await self.can_read.clear()
                await self.can_read.wait()
            elif isinstance(event, h11.ConnectionClosed) or event is h11.NEED_DATA or self.stream is None:
                return
            elif isinstance(event, h11.Data):
                await self.stream.handle(Body(stream_id=host_h11.STREAM_ID, data=event.data))
            elif isinstance(event, h11.EndOfMessage):
                self._owner.request_is_whole()
                await self.stream.handle(EndBody(stream_id=host_h11.STREAM_ID))
            elif isinstance(event, Data):
                if not self.accepted:
                    self._owner.abort("bytes before the upgrade was accepted")
                    return
                await self.stream.handle(event)

    @property
    def accepted(self) -> bool:
        """Is this a WebSocket that the application has accepted?"""
        return isinstance(self.stream, _WebSocket) and self.stream.handshake.accepted

    @property
    def pipelined(self) -> bool:
        """Are bytes here that belong to no request yet begun?"""
        return bool(self.connection.trailing_data[0])

    async def _create_stream(self, request: h11.Request) -> None:
        if request.http_version not in {b"1.0", b"1.1"}:
            await self._refuse(505)
            return
        headers = request.headers.raw_items() if self.config.h11_pass_raw_headers else list(request.headers)
        kind: type[Any] = http_stream.HTTPStream
        if _asks_for_websocket(request):
            if self.pipelined:  # a client must wait for our answer (RFC 6455, 4.1): stock Hypercorn dies of these bytes
                await self._refuse(400)
                return
            self.connection = host_h11.H11WSConnection(cast("h11.Connection", self.connection))
            self._owner.request_is_whole()
            # Without this header nothing is negotiated: compression costs 200 KB a client and inflates unbounded.
            headers = [item for item in headers if item[0].lower() != b"sec-websocket-extensions"]
            kind = _WebSocket
        self.stream = stream = kind(
            self.app, self.config, self.context, self.task_group, self.ssl, self.client, self.server, self.stream_send,
            host_h11.STREAM_ID,
        )  # fmt: skip
        if isinstance(stream, _WebSocket):
            stream.owner = self._owner
        await stream.handle(
            Request(
                stream_id=host_h11.STREAM_ID,
                headers=headers,
                http_version=request.http_version.decode("ascii"),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1
        await self.context.mark_request()
        if stream.closed and self.stream is stream:
            await self.send(Closed())  # refused by Hypercorn itself, which would leave the connection open

    async def _refuse(self, status: int) -> None:
        if self.connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            await self._send_error_response(status)
        await self.send(Closed())

    async def stream_send(self, event: Any) -> None:
        """Write what the application's stream says; its end is noted before its last bytes wait for their turn."""
        if isinstance(event, (EndBody, StreamClosed)):
            self._owner.response_ends(over=isinstance(event, EndBody))
        await super().stream_send(event)


def _asks_for_websocket(request: h11.Request) -> bool:
    tokens: list[bytes] = []
    upgrade = b""
    for name, value in request.headers:  # h11 has lowered the names
        if name == b"connection":
            tokens += [token.strip() for token in value.lower().split(b",")]
        elif name == b"upgrade":
            upgrade = value.strip().lower()
    return request.method == b"GET" and upgrade == b"websocket" and b"upgrade" in tokens
