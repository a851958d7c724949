"""Hypercorn's HTTP/1.1 and WebSocket, between the socket (connection.py) and the application, with their faults mended.

What differs from the stock protocol:
- HTTP/1.1 and WebSockets only: neither the h2c upgrade nor HTTP/2 by prior knowledge; cleartext HTTP/2 has no
  backpressure here.
- No permessage-deflate: 64 KB of it inflate to 64 MB before any limit is asked.
- The reader waits for the end of a response only while bytes of a next request are there; otherwise it reads on and
  sees the peer leave. (h11 also pauses after any request with an `Upgrade` header; stock Hypercorn then stops reading
  for ever.)
- Bytes behind a request that is the last are ignored (RFC 9112, 9.6), and so are some empty lines before a request
  (2.2), which are no part of it; to h11 both are faults.
- Bytes behind an upgrade request are refused; stock Hypercorn answers them in the wrong state, and that exception
  ends the worker.
- A body is asked for (`100 Continue`) when the application reads it, and not where its head is answered with a no.
- What is no HTTP, and what heads.py refuses, is told why, in JSON as every error.
- A WebSocket that breaks the rules is closed with its code, and the application is told. A flood of pings is answered
  once for each read; a message of fragments without end has a limit in number as well as in size.
- Telling the application that its client is gone never waits for an application that does not read.
"""

from typing import Any, Final, Protocol, cast

import h11
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol import h11 as host_h11
from hypercorn.protocol import http_stream, ws_stream
from hypercorn.protocol.events import Body, Data, EndBody, Request, Response, StreamClosed
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from wsproto.connection import ConnectionState as WebSocketState
from wsproto.events import CloseConnection, Message, Ping

from trio_swarm.bounded.allowance import Share
from trio_swarm.edge import heads
from trio_swarm.edge.apps import Apps, asking
from trio_swarm.edge.transport import KEY
from trio_swarm.wire.frames import text_frame

MOST_FRAGMENTS: Final = 1_000  # of one message: 100 bytes each where it is as large as may be
EVENTS_A_TURN: Final = 64  # of one client's WebSocket, about a millisecond; then the others have their turn


class Owner(Protocol):
    """The connection, as its protocol sees it."""

    app: Any
    config: Config
    context: WorkerContext
    ended: str
    inbox: trio.MemorySendChannel[Any] | None
    reading: Share | None
    state: Any

    async def protocol_send(self, event: Event) -> None:
        """Write bytes, or end."""

    async def tell(self, message: Any) -> None:
        """Put a message into the application's inbox."""

    def head_began(self) -> None:
        """Note that bytes of a request's head are here."""

    def request_began(self) -> None:
        """Note that a request's head is whole."""

    def request_is_whole(self) -> None:
        """Note that nothing of the request is still to come."""

    def message_began(self) -> None:
        """Note that a WebSocket message, or a frame, has begun and is not whole."""

    def message_is_whole(self) -> None:
        """Note that it is."""

    def response_ends(self, *, over: bool) -> None:
        """Note that the response is about to end; `over`: by the application's own will."""

    async def finish_answer(self) -> None:
        """Wait for the rest of an answer that has begun, and read nothing meanwhile."""

    def abort(self, reason: str) -> None:
        """End at once and by force."""


class _WebSocket(ws_stream.WSStream):
    """Hypercorn's WebSocket, which also ends one that breaks the rules: with a code, and told to the application."""

    owner: Owner
    app_put: Any
    fragments = 0  # of the message that is not whole yet
    in_message = False
    in_frame = False  # a part of a frame came, and nothing has come of it yet

    async def _handle_events(self) -> None:
        ping: Ping | None = None  # the last one: to answer it answers those before it (RFC 6455, 5.5.3)
        for count, event in enumerate(self.connection.events(), 1):
            self._note(in_message=not event.message_finished if isinstance(event, Message) else self.in_message)
            if isinstance(event, Message):
                if not await self._take(event):
                    return
            elif isinstance(event, Ping):
                ping = event
            elif isinstance(event, CloseConnection):
                answer = self.connection.state is WebSocketState.REMOTE_CLOSING
                await self._end(event.response() if answer else CloseConnection(code=event.code))
                return
            if count % EVENTS_A_TURN == 0:
                await trio.lowlevel.checkpoint()
                if self.closed:
                    return
        # Whatever stood before it in the same read: wsproto keeps a frame's header to itself.
        rest = cast("Any", self.connection)._proto._frame_decoder  # noqa: SLF001 - there is no other way to it
        self._note(in_message=self.in_message, in_frame=rest.header is not None or len(rest.buffer) > 0)
        if ping is not None:
            await self._send_wsproto_event(ping.response())

    def _note(self, *, in_message: bool, in_frame: bool = False) -> None:
        """Keep the clock of what has begun: it runs from the first byte to the last, whatever comes between."""
        was, is_now = self.in_message or self.in_frame, in_message or in_frame
        if is_now and not was:
            self.owner.message_began()
        elif was and not is_now:
            self.owner.message_is_whole()
        self.in_message, self.in_frame = in_message, in_frame

    async def _take(self, part: Message[Any]) -> bool:
        """Keep a part of a message, and give the whole to the application; False when that ended the WebSocket."""
        if code := self._why_too_much(part):
            await self._end(CloseConnection(code=code))
            return False
        self.buffer.extend(part)
        if part.message_finished:
            self.fragments = 0
            await self.app_put(self.buffer.to_message())
            self.buffer.clear()
        return True

    def _why_too_much(self, part: Message[Any]) -> int:
        """Count a part of a message; the code to close with where that is too much, else 0."""
        self.fragments += part.frame_finished
        if self.buffer.length + len(part.data) > self.buffer.max_length or self.fragments > MOST_FRAGMENTS:
            return 1009
        return 0 if self._count(part) else 1013

    def _count(self, part: Message[Any]) -> bool:
        """Count an unfinished message among all that requests hold; False when that is too much."""
        reading = self.owner.reading
        if reading is None:
            return True
        if part.message_finished:
            reading.give()
            return True
        return reading.take(_memory(part.data))

    async def app_send(self, message: Any) -> None:
        """Take the application's message; None says that it has returned."""
        if message is None:
            self.owner.response_ends(over=True)
        elif message["type"] == "websocket.send" and message.get("text") is not None and self._is_open:
            # What the rest of the way would make of it, in two thirds of the time (a client over TLS).
            await self.owner.protocol_send(RawData(data=text_frame(message["text"].encode())))
            return
        await super().app_send(message)

    @property
    def _is_open(self) -> bool:
        """Has neither side said goodbye?"""
        accepted = self.state is ws_stream.ASGIWebsocketState.CONNECTED and not self.closed
        return accepted and self.connection.state is WebSocketState.OPEN

    async def _end(self, last: CloseConnection) -> None:
        await self._send_wsproto_event(last)
        await self.send(StreamClosed(stream_id=self.stream_id))


def _memory(data: str | bytes) -> int:
    """What a part of a message costs while the rest is awaited."""
    return len(data) * (4 if isinstance(data, str) and not data.isascii() else 1)


class HostProtocol(host_h11.H11Protocol):
    """HTTP/1.1 and WebSockets only, and a reader that parks only while bytes of a next request wait."""

    method = b""  # of the request under way
    _skipped = 0  # bytes of empty lines before it
    endless = False  # the response is a stream of events
    encoded = False  # the response's head announces an encoding (not ours: a middleware's), for all that follows

    def __init__(self, connection: Owner, apps: Apps, *, ssl: bool, client: Any, server: Any) -> None:
        state = ConnectionState({**connection.state, KEY: connection})
        super().__init__(
            connection.app, connection.config, connection.context, apps, state, ssl, client, server,
            connection.protocol_send,
        )  # fmt: skip
        self._owner = connection

    async def _handle_events(self) -> None:  # noqa: C901 - a protocol's events, one branch each
        while True:
            if self.final or (self.connection.their_state is h11.IDLE and not self._find_head()):
                return
            try:
                event = self.connection.next_event()
            except h11.RemoteProtocolError as error:
                error.__traceback__ = None  # h11 raises it as `self`: a cycle by that frame, and in it the connection
                await self._refuse(heads.not_http(error, self.connection.trailing_data[0]))
                return
            if isinstance(event, h11.Request):
                self._skipped = 0
                self._owner.request_began()
                await self._create_stream(event)
            elif event is h11.PAUSED:
                if not heads.has_begun(self.connection.trailing_data[0]):
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
    def begun(self) -> bool:
        """Is the answer's head out, so that bytes may follow it as they are?

        Not while somebody between the application and us holds it back, nor where they have announced an encoding.
        """
        if isinstance(self.connection, host_h11.H11WSConnection):
            return self.accepted
        return self.connection.our_state is h11.SEND_BODY and not self.encoded

    @property
    def upgraded(self) -> bool:
        """Is this a WebSocket, accepted or not?"""
        return isinstance(self.connection, host_h11.H11WSConnection)

    @property
    def accepted(self) -> bool:
        """Is this a WebSocket that the application has accepted?"""
        return isinstance(self.stream, _WebSocket) and self.stream.handshake.accepted

    @property
    def pipelined(self) -> bool:
        """Are bytes here that belong to no request yet begun?"""
        return bool(self.connection.trailing_data[0])

    @property
    def final(self) -> bool:
        """Is the last request whole, so that nothing counts that still comes? Behind a stream's it does."""
        return self.connection.their_state is h11.MUST_CLOSE and not self.endless

    def _find_head(self) -> bool:
        """Skip the empty lines before a head; False where nothing of it is here."""
        received = self.connection.trailing_data[0]
        head = heads.behind_empty_lines(received)
        self._skipped += len(received) - len(head)
        if self._skipped > heads.MOST_EMPTY_BYTES:
            return True  # h11 says why it takes none
        if len(head) < len(received):  # there is no other way to take bytes from it
            self.connection = h11.Connection(h11.SERVER, max_incomplete_event_size=self.config.h11_max_incomplete_size)
            if head:  # none would be the end
                self.connection.receive_data(head)
        if head in {b"", b"\r"}:
            return False
        self._owner.head_began()
        return True

    async def _create_stream(self, request: h11.Request) -> None:
        if request.http_version not in {b"1.0", b"1.1"}:
            await self._refuse(heads.NO_VERSION, request.method)
            return
        refusal = heads.judge(request)
        if refusal is not None:
            await self._refuse(refusal, request.method)
            return
        headers = request.headers.raw_items() if self.config.h11_pass_raw_headers else list(request.headers)
        kind: type[Any] = http_stream.HTTPStream
        if heads.asks_for_websocket(request):
            if self.pipelined:  # a client must wait for our answer (RFC 6455, 4.1): stock Hypercorn dies of these bytes
                await self._refuse(heads.EARLY_BYTES)
                return
            self.connection = host_h11.H11WSConnection(cast("h11.Connection", self.connection))
            self._owner.request_is_whole()
            # Without this header nothing is negotiated: compression costs 200 KB a client and inflates unbounded.
            headers = [item for item in headers if item[0].lower() not in {b"sec-websocket-extensions", b"upgrade"}]
            headers.append((b"upgrade", b"websocket"))  # of a list Hypercorn finds nothing
            kind = _WebSocket
        self.method, self.endless = request.method, False
        app = self.app
        if self.connection.they_are_waiting_for_100_continue:
            app = asking(app, self._ask_for_body)
        self.stream = stream = kind(
            app, self.config, self.context, self.task_group, self.ssl, self.client, self.server, self.stream_send,
            host_h11.STREAM_ID,
        )  # fmt: skip
        if isinstance(stream, _WebSocket):
            stream.owner = self._owner
        await stream.handle(
            Request(
                stream_id=host_h11.STREAM_ID,
                headers=headers,
                http_version=request.http_version.decode("ascii"),
                # As it came: `head` is not HEAD, and to h11, which asks the same bytes, its answer has a body.
                method=request.method.decode("ascii"),
                raw_path=heads.origin_form(request.target),
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1
        await self.context.mark_request()
        if stream.closed and self.stream is stream:
            await self.send(Closed())  # refused by Hypercorn itself, which would leave the connection open

    async def _ask_for_body(self) -> None:
        # It may have come unasked meanwhile, or been refused, or its client have left.
        if self.connection.they_are_waiting_for_100_continue and self.stream is not None:
            headers = self.config.response_headers("h11")
            await self._send_h11_event(h11.InformationalResponse(status_code=100, headers=headers))

    async def _refuse(self, refusal: heads.Refusal, method: bytes = b"") -> None:
        if self.stream is not None:
            method = self.method  # what is refused is the rest of a request that has begun
        if self.connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            body = refusal.body
            headers = [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % len(body)),
                (b"connection", b"close"),
                *refusal.headers,
                *self.config.response_headers("h11"),
            ]
            # In one piece: an application that is answering meanwhile would find its turn between head and body.
            answer = h11.Response(status_code=refusal.status, headers=headers)
            body_events = [] if method == b"HEAD" else [h11.Data(data=body)]
            events = [answer, *body_events, h11.EndOfMessage()]
            await self.send(RawData(data=b"".join(self.connection.send(event) or b"" for event in events)))
        elif self.connection.our_state is h11.SEND_BODY and not self.endless:
            await self._owner.finish_answer()  # it began before its request broke off, and is not torn for that
        await self.send(Closed())

    async def stream_send(self, event: Any) -> None:
        """Write what the application's stream says; its end is noted before its last bytes wait for their turn."""
        if isinstance(event, (EndBody, StreamClosed)):
            self._owner.response_ends(over=isinstance(event, EndBody))
        elif isinstance(event, Response):
            if self._owner.ended:  # a head failed on its way, and Hypercorn answers 500 behind it
                await trio.lowlevel.checkpoint()
                raise trio.BrokenResourceError(self._owner.ended)
            self.endless = any(
                name.lower() == b"content-type" and value.lower().startswith(b"text/event-stream")
                for name, value in event.headers
            )
            if self.context.terminated.is_set() and not any(name.lower() == b"connection" for name, _ in event.headers):
                headers = [*event.headers, (b"connection", b"close")]  # Hypercorn closes, and does not say so
                event = Response(stream_id=event.stream_id, headers=headers, status_code=event.status_code)
            self.encoded = any(name.lower() == b"content-encoding" for name, _ in event.headers)
        await super().stream_send(event)
