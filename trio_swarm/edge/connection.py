"""One accepted connection: Hypercorn's class, hardened.

- **One end.** `abort(reason)` closes the socket by force and cancels the connection's nursery, in which the reader
  and the application run. A failed or cancelled write, a stall, bytes where none may be: all of them are `abort`.
  What escapes the connection's own code stops at the barrier in `run`.
- **One clock.** The deadline of the connection's nursery is the only timer: for a request's head, its body, the pause
  between two requests, a closing handshake. A stream has none; fan-out and liveness watch it.
- **Writes in turn.** Every write of Hypercorn's passes the gate (write_gate.py), under a deadline that counts the
  wait for its turn and starts again with each piece that went out. A cancelled write aborts: the protocol above
  thinks that its bytes are out.

A connection costs two tasks (this reader, the application's) and no more; in its scope's `state` it gives itself to
the application.
"""

import contextlib
import copy
import os
import socket
import struct
import weakref
from collections.abc import Callable, Generator
from typing import Any, ClassVar, Final

import attrs
import h11
import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol import h11 as host_h11
from hypercorn.trio import tcp_server
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import parse_socket_addr

from trio_swarm.edge.listeners import tune, tuned
from trio_swarm.edge.protocol import Apps, HostProtocol
from trio_swarm.edge.transport import DirectTransport
from trio_swarm.edge.writability import Writability
from trio_swarm.edge.write_gate import WriteGate
from trio_swarm.settings import Settings

log = structlog.get_logger()

RECEIVE_BYTES: Final = 16 * 1024  # one read; a client's message is seldom larger
PIECE_BYTES: Final = 64 * 1024  # a write's deadline starts again after each piece: 2 KB/s is slow, not stalled
CLOSING_S: Final = 2.0  # a closing handshake, and bytes still on the way when we close; well under the shutdown's 5 s
DISCARD_BYTES: Final = 4 * 1024 * 1024  # read and dropped while closing, so that the last answer is not lost to a reset

NEVER: Final = trio.CancelScope().deadline


@attrs.frozen
class WorkerStatistics:
    """What one connection class holds and has done."""

    connections: int
    refused: int
    aborted: dict[str, int]  # by reason; the reasons are ours, so they are few


class Host:
    """One running server: what its connections share."""

    def __init__(self, config: Config, settings: Settings) -> None:
        self.config = tighten(config, settings)
        self.live: set[Connection] = set()


class Ending:
    """Stands in for Hypercorn's `terminated` event, and tells idle connections, which have no task to wait for it."""

    def __init__(self, event: Any, live: set["Connection"]) -> None:
        self._event = event
        self._live = live

    async def set(self) -> None:
        """End the serving."""
        await self._event.set()
        for connection in list(self._live):
            connection.close_if_idle()

    async def clear(self) -> None:
        """Part of the interface; Hypercorn never does it."""
        await self._event.clear()

    async def wait(self) -> None:
        """Wait for the end of the serving."""
        await self._event.wait()

    def is_set(self) -> bool:
        """Has the serving ended?"""
        return bool(self._event.is_set())


def tighten(config: Config, settings: Settings) -> Config:
    """Copy Hypercorn's configuration, with the limits that a hardened connection stands on whoever wrote it."""
    config = copy.copy(config)
    config.websocket_max_message_size = settings.limits.message_bytes
    config.websocket_ping_interval = None  # ours look at the answers
    config.alpn_protocols = ["http/1.1"]
    return config


def _send_now(sock: trio.socket.SocketType) -> Callable[[bytes | memoryview], int]:
    """Find a `send` that does not wait: of the socket below Trio's if it is where it used to be, else by number."""
    below = getattr(sock, "_sock", None)
    if isinstance(below, socket.socket):
        return below.send
    return lambda data: os.write(sock.fileno(), data)


class Connection(tcp_server.TCPServer):
    """One accepted socket; see the module. `make_connection_class` gives it its numbers."""

    __slots__ = (
        "_closing", "_discard", "_http", "_nursery", "_over", "_quiet", "_said", "_socket", "_streaming", "_tls",
        "app", "client", "config", "context", "ended", "gate", "host", "inbox", "last_byte_at", "send_now", "state",
        "stream",
    )  # fmt: skip

    settings: ClassVar[Settings]
    stall_s: ClassVar[float]  # may be changed while running: it is shorter under pressure
    most: ClassVar[int]
    refused: ClassVar[int]
    aborted: ClassVar[dict[str, int]]
    hosts: ClassVar["weakref.WeakKeyDictionary[WorkerContext, Host]"]
    on_context: ClassVar[Callable[[WorkerContext], None] | None]

    def __init__(self, app: Any, config: Config, context: WorkerContext, state: Any, stream: Any) -> None:
        # The parent's __init__ is left out: its locks and its idle task, 2 KB a connection, have no use here.
        self.host = self._meet(context, config)
        self.app = app
        self.config = self.host.config
        self.context = context
        self.state = state
        self.stream = stream
        self.gate = WriteGate()
        self.client: tuple[str, int] | None = None
        self.last_byte_at: float | None = None
        self.ended = ""  # the reason, once it has
        self.inbox: trio.MemorySendChannel[Any] | None = None
        self._http: HostProtocol | None = None
        self._nursery: trio.Nursery | None = None
        self._tls = isinstance(stream, trio.SSLStream)
        self._socket: trio.socket.SocketType = (stream.transport_stream if self._tls else stream).socket
        self.send_now = _send_now(self._socket)
        self._quiet = False  # between two requests, and no byte of the next one has come
        self._streaming = False  # a response without an end: no byte may follow its request
        self._over = False  # the application has said all it has to say
        self._closing = False  # we have said goodbye and wait for the peer's end
        self._said = False  # our goodbye is with the kernel, and everything before it
        self._discard = DISCARD_BYTES

    @classmethod
    def _meet(cls, context: WorkerContext, config: Config) -> Host:
        host = cls.hosts.get(context)
        if host is None:
            host = cls.hosts[context] = Host(config, cls.settings)
            context.terminated = Ending(context.terminated, host.live)
            if cls.on_context is not None:
                cls.on_context(context)
        return host

    # -- what the edge asks of it

    def fileno(self) -> int:
        """The socket's number now; -1 when it is closed."""
        return self._socket.fileno()

    def direct(self, writability: Writability) -> DirectTransport | None:
        """Make a transport that writes to this socket without waiting; None under TLS, for HTTP/1.0, and after the end.

        Call it when the head of the response has been sent (or the WebSocket accepted), once a request.

        Raises:
            RuntimeError: it is too early, or there is one already.
        """
        if self._tls or self._http is None or self.ended or self._closing:
            return None
        if self.gate.direct is not None:
            raise RuntimeError("this connection has its direct transport already")
        below = self._http.connection
        if isinstance(below, host_h11.H11WSConnection):
            begun = self._http.accepted
        elif below.their_http_version != b"1.1":
            return None
        else:
            begun = below.our_state is h11.SEND_BODY
        if not begun:
            raise RuntimeError("send http.response.start or websocket.accept first: its bytes go out before ours")
        return DirectTransport(self, writability)

    def streaming(self) -> None:
        """Abort at any byte of the client's from now on, or already here: a stream's response begins."""
        self._streaming = True
        if self._http is not None and self._http.pipelined:
            self.abort("bytes behind a stream's request")

    def abort(self, reason: str) -> None:
        """Close the socket by force and cancel everything that runs for this connection. Idempotent, never raises.

        A goodbye that has been said is not taken back: what the client has not read of it still comes, then the end.
        """
        if self.ended:
            return
        counts = self.aborted
        counts[reason] = counts.get(reason, 0) + 1
        if not self._said:
            with contextlib.suppress(OSError):  # what the client has not read is dropped by the kernel at once
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._end(reason)

    @classmethod
    def statistics(cls) -> WorkerStatistics:
        """Count what this class holds, over all servers that use it."""
        return WorkerStatistics(sum(len(host.live) for host in cls.hosts.values()), cls.refused, dict(cls.aborted))

    # -- its life

    def __await__(self) -> Generator[Any, Any, None]:
        return self.run().__await__()

    async def run(self) -> None:
        """Serve the connection to its end. Lets nothing out but cancellation."""
        live = self.host.live
        if len(live) >= self.most or self.context.terminated.is_set():
            type(self).refused += 1
            self._end("refused")
            return
        live.add(self)
        try:
            await self._serve()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as errors:
            log.debug("connection lost", errors=[repr(error) for error in errors.exceptions])
        except* Exception:
            log.exception("connection ended by an error")
        finally:
            live.discard(self)
            self._end("closed")
            self._http = self._nursery = self.inbox = None  # breaks cycles: its memory goes now, not with a collection

    async def _serve(self) -> None:
        liveness = self.settings.liveness
        if self._tls:
            # Under a plain `hypercorn` the context is not ours; it is asked for its protocols only in the handshake.
            self.stream.context.set_alpn_protocols(["http/1.1"])
            with trio.move_on_after(liveness.header_s) as patience:
                await self.stream.do_handshake()
            if patience.cancelled_caught:
                return
        if not tuned(self._socket):
            tune(self._socket, self.stall_s)
        self.client = parse_socket_addr(self._socket.family, self._socket.getpeername())
        server = parse_socket_addr(self._socket.family, self._socket.getsockname())
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._http = HostProtocol(self, Apps(self, nursery), ssl=self._tls, client=self.client, server=server)
            self._limit(liveness.header_s)
            await self._read(self._http)

    async def _read(self, http: HostProtocol) -> None:
        """Read until the peer has left; then tell the application, which has as long to end as a write may stall."""
        while True:
            try:
                data = await self.stream.receive_some(RECEIVE_BYTES)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                break
            if not data:
                break
            self.last_byte_at = trio.current_time()
            if self._closing:
                self._discard -= len(data)
                if self._discard < 0:
                    break
                continue
            if self._streaming:
                self.abort("bytes behind a stream's request")
                return
            if self._quiet:
                self._quiet = False
                self._limit(self.settings.liveness.header_s)
            await http.handle(RawData(bytes(data)))
            del data  # a waiting reader would keep the request's bytes for as long as its stream lasts
        self._detach()
        self._limit(self.stall_s)
        await http.handle(Closed())

    def _limit(self, seconds: float | None) -> None:
        """Give the connection this long, from now, for what it is at; None: for ever."""
        if self._nursery is not None:
            self._nursery.cancel_scope.deadline = NEVER if seconds is None else trio.current_time() + seconds

    def _detach(self) -> None:
        if isinstance(self.gate.direct, DirectTransport):
            self.gate.direct.detach()

    def _end(self, reason: str) -> None:
        if self.ended:
            return
        self.ended = reason
        if isinstance(self.gate.direct, DirectTransport):
            self.gate.direct.lost(reason)
        self._socket.close()
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    # -- what its protocol, and the end of the serving, tell it

    def close_if_idle(self) -> None:
        """Go now, because the serving ends, unless a request is being answered."""
        if self._http is not None and self._http.stream is None and not self._closing:
            self._end("the serving ends")

    def request_began(self) -> None:
        """Give a request, whose head is whole, the time for its body."""
        self._over = False
        self._limit(self.settings.liveness.body_s)

    def request_is_whole(self) -> None:
        """Stop the clock: how long the answer to a whole request takes is the application's affair."""
        if not self._closing:
            self._limit(None)

    def response_ends(self, *, over: bool) -> None:
        """Write nothing directly from here on. `over`: the application has said all that it has to say."""
        self._over = self._over or over
        self._detach()

    async def tell(self, message: Any) -> None:
        """Put a message into the application's inbox. News of the end never waits for one that does not read."""
        if self.inbox is None:
            return
        if not message["type"].endswith(".disconnect"):
            await self.inbox.send(message)
            return
        try:
            self.inbox.send_nowait(message)
        except trio.WouldBlock:
            if not self._over:  # it would wait for the news for ever; one that has answered does not
                self.abort("the application does not read")

    async def protocol_send(self, event: Event) -> None:
        """Do what Hypercorn's protocol asks: write bytes, close, or note that a request is over."""
        if isinstance(event, RawData):
            if event.data:
                await self._write(event.data)
        elif isinstance(event, Closed):
            await self._say_goodbye()
            if self._http is not None:
                await self._http.handle(Closed())
        elif isinstance(event, Updated) and event.idle:
            self._quiet = True
            self._limit(self.settings.liveness.keep_alive_s)

    async def _write(self, data: bytes) -> None:
        goodbye = data[0] == 0x88 and self._http is not None and self._http.accepted  # a WebSocket's close frame
        if goodbye:
            self._detach()
        with trio.move_on_after(self.stall_s) as patience:
            try:
                await self.gate.enter()
                for start in range(0, len(data), PIECE_BYTES):
                    await self.stream.send_all(memoryview(data)[start : start + PIECE_BYTES])
                    patience.deadline = trio.current_time() + self.stall_s
            except trio.Cancelled:
                self.abort("stalled" if patience.cancel_called else "a write was cancelled")
                raise
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                self.abort("the peer is gone")
            else:
                self.gate.leave()  # only here: after a failed write nothing may follow
                if goodbye:
                    self._limit(CLOSING_S)
        if self.ended:
            await trio.lowlevel.checkpoint()  # lets the cancellation in
            raise trio.BrokenResourceError(self.ended)  # for one that has shielded itself: it must not write on and on

    async def _say_goodbye(self) -> None:
        """Close our half and read on until the peer closes its own: a close over unread bytes would drop our answer."""
        if self._closing or self.ended:
            return
        self._closing = True
        self._detach()
        self._limit(CLOSING_S)
        await self.gate.enter()
        try:
            if self._tls:
                await self.stream.aclose()
            else:
                self._socket.shutdown(socket.SHUT_WR)
                self._said = True
        except (OSError, trio.BrokenResourceError):
            log.debug("the peer left before our goodbye", client=self.client)
        finally:
            self.gate.leave()
