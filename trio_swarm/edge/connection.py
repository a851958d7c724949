"""One accepted connection: Hypercorn's class, hardened.

- **One end.** `abort(reason)` closes the socket by force and cancels the connection's nursery, in which the reader
  and the application run. A failed or cancelled write, a stall, bytes where none may be, a time that is over: all of
  them are `abort`, and counted. What escapes the connection's own code stops at the barrier in `run`.
- **One clock** (clock.py), the deadline of the connection's nursery, is the only timer of what the client says: a
  request's head, its body, a WebSocket message, the pause between two requests, the answer to our goodbye.
- **Reads in turn** (readability.py): nothing is read before it is this connection's turn.
- **Writes in turn.** Every write of Hypercorn's passes the gate (write_gate.py), with the time that headway.py gives
  it. A cancelled write aborts: the protocol above thinks that its bytes are out.
- **Half a close** behind a whole request is no end yet (last_answer.py).

A connection costs two tasks (this reader, the application's) and no more; in its scope's `state` it gives itself to
the application. docs/deadlines.md has the table of all times.
"""

import weakref
from collections.abc import Callable, Generator
from typing import Any, ClassVar, Final

import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio import tcp_server
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import parse_socket_addr

from trio_swarm.bounded.allowance import Share
from trio_swarm.edge import reasons
from trio_swarm.edge.apps import Apps
from trio_swarm.edge.clock import Clock
from trio_swarm.edge.direct import DirectTransport
from trio_swarm.edge.headway import LOOKS, Patience, Writes, why_lost
from trio_swarm.edge.last_answer import LastAnswer
from trio_swarm.edge.listeners import tune, tuned
from trio_swarm.edge.outlet import drop_unsent, find_send, say_closed, shake_hands, with_outlet
from trio_swarm.edge.protocol import HostProtocol
from trio_swarm.edge.readability import Readability
from trio_swarm.edge.serving import Ending, Host, WorkerStatistics
from trio_swarm.edge.write_gate import WriteGate
from trio_swarm.settings import Settings

log = structlog.get_logger()

RECEIVE_BYTES: Final = 16 * 1024  # one read; a client's message is seldom larger
PIECE_BYTES: Final = 64 * 1024  # handed to TLS at once: what is encrypted and not sent yet is a copy
DISCARD_BYTES: Final = 4 * 1024 * 1024  # read and dropped behind the last request: a reset would lose its answer


class Connection(tcp_server.TCPServer):
    """One accepted socket; see the module. `make_connection_class` gives it its numbers."""

    __slots__ = (
        "_clock", "_closing", "_discard", "_http", "_last_answer", "_nursery", "_over",
        "_said", "_socket", "_streaming", "_tls", "_whole", "app", "client", "config", "context", "ended",
        "gate", "host", "inbox", "last_byte_at", "reading", "send_now", "state", "stream", "writes",
    )  # fmt: skip

    settings: ClassVar[Settings]
    stall_s: ClassVar[float]  # may be changed while running: it is shorter under pressure
    most: ClassVar[int]
    refused: ClassVar[int]
    aborted: ClassVar[dict[str, int]]
    hosts: ClassVar["weakref.WeakKeyDictionary[WorkerContext, Host]"]
    on_context: ClassVar[Callable[[WorkerContext], None] | None]
    readability: ClassVar[Readability]

    def __init__(self, app: Any, config: Config, context: WorkerContext, state: Any, stream: Any) -> None:
        # The parent's __init__ is left out: its locks and its idle task, 2 KB a connection, have no use here.
        self.host = self._meet(context, config)
        self.app = app
        self.config = self.host.config
        self.context = context
        self.state = state
        self.gate = WriteGate()
        self.client: tuple[str, int] | None = None
        self.last_byte_at: float | None = None
        self.ended = ""  # the reason, once it has
        self.inbox: trio.MemorySendChannel[Any] | None = None
        self.reading: Share | None = None  # of what all requests may hold: a WebSocket's unfinished message
        self._http: HostProtocol | None = None
        self._nursery: trio.Nursery | None = None
        self._tls = isinstance(stream, trio.SSLStream)
        self._socket: trio.socket.SocketType = (stream.transport_stream if self._tls else stream).socket
        self.send_now = find_send(self._socket)
        self.writes = Writes()
        self.stream: Any = with_outlet(stream, self.send_now, self.writes, self.stall_s / LOOKS, self.readability)
        self._streaming = False  # a response without an end: no byte may follow its request
        self._over = False  # the application has said all it has to say
        self._whole = False  # nothing of the request is still to come
        self._clock = Clock(self.settings.liveness)
        self._closing = False  # our half is closed, and we wait for the peer's
        self._said = False  # our goodbye is with the kernel, and everything before it
        self._last_answer: LastAnswer | None = None  # what a half-closed client waits for
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

    @property
    def encrypted(self) -> bool:
        """Is there TLS between us and the socket?"""
        return self._tls

    @property
    def begun(self) -> bool:
        """See `HostProtocol.begun`."""
        return self._http is not None and self._http.begun

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
        if not self._said and reason != reasons.IDLE:
            drop_unsent(self._socket)
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
        if len(live) >= self.most:
            type(self).refused += 1
            self._end("refused")
            return
        live.add(self)
        try:
            await self._serve()
        except* (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as errors:
            log.debug("connection_lost", errors=[repr(error) for error in errors.exceptions])
        except* Exception:
            log.exception("connection_crashed")
        finally:
            live.discard(self)
            self._end("closed")
            if self.reading is not None:
                self.reading.give()
            if self._http is not None:
                self._http.stream = None
            self._clock.forget()
            self._http = self._nursery = self.inbox = self.stream = None  # no cycles: its memory goes now

    async def _serve(self) -> None:
        if self._tls and not await shake_hands(self.stream, self.settings.liveness.header_s):
            self.abort(reasons.SLOW_HANDSHAKE)
            return
        if not tuned(self._socket):
            tune(self._socket, self.stall_s)
        self.client = parse_socket_addr(self._socket.family, self._socket.getpeername())
        server = parse_socket_addr(self._socket.family, self._socket.getsockname())
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            self._http = HostProtocol(self, Apps(self, nursery), ssl=self._tls, client=self.client, server=server)
            self._clock.start(nursery.cancel_scope)
            if self.context.terminated.is_set():
                self.close_if_idle()
            try:
                await self._read(self._http)
            except trio.Cancelled:
                self._time_is_up(nursery.cancel_scope)  # now, whatever the application does about its own end
                raise
        self._time_is_up(nursery.cancel_scope)

    async def _read(self, http: HostProtocol) -> None:
        """Read until the peer has left; then tell the application, which has as long to end as a write may stall."""
        while data := await self._receive(http):
            self.last_byte_at = trio.current_time()
            if self._streaming and not self._closing:
                self.abort("bytes behind a stream's request")
                return
            if self._closing or http.final:
                self._discard -= len(data)
                if self._discard < 0:
                    break
            else:
                await http.handle(RawData(bytes(data)))
            del data  # a waiting reader would keep the request's bytes for as long as its stream lasts
        self._detach()
        self._clock.allow(self.stall_s, reasons.STUCK)
        await http.handle(Closed())
        if not self.ended:
            self._close_socket(reasons.GONE)  # nothing is written any more; the application may take its time

    async def _receive(self, http: HostProtocol) -> bytes | bytearray:
        """Read some bytes; none where there will be no more."""
        try:
            data: bytes | bytearray = await self.stream.receive_some(RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            if why_lost(error) == reasons.UNACKNOWLEDGED:
                self.abort(reasons.UNACKNOWLEDGED)
            return b""
        if not data:
            await self._answer_half_closed(http)
        return data

    async def _answer_half_closed(self, http: HostProtocol) -> None:
        """Let a client that has closed its half have the answer to its last request."""
        if http.stream is None or not self._whole or self._clock.parting or http.upgraded or http.endless:
            return
        await self._wait_for_answer(self.stall_s if http.begun else self.settings.liveness.closing_s)

    async def _wait_for_answer(self, seconds: float) -> None:
        self._last_answer = LastAnswer(seconds, writing=bool(self.writes))
        await self._last_answer.wait()

    def _time_is_up(self, scope: trio.CancelScope) -> None:
        if trio.current_time() >= scope.deadline:
            self.abort(self._clock.why)

    def _detach(self) -> None:
        if isinstance(self.gate.direct, DirectTransport):
            self.gate.direct.detach()

    def _end(self, reason: str) -> None:
        if self.ended:
            return
        self.ended = reason
        self._close_socket(reason)
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def _close_socket(self, reason: str) -> None:
        if isinstance(self.gate.direct, DirectTransport):
            self.gate.direct.lost(reason)
        self.readability.wake(self._socket.fileno())
        self._socket.close()

    # -- what its protocol, and the end of the serving, tell it

    def close_if_idle(self) -> None:
        """Go now, because the serving ends, unless a request is being answered, or the first one is on its way."""
        if self._http is None or self._nursery is None or self._http.stream is not None or self._closing:
            return
        if self._http.keep_alive_requests:
            self._end("the serving ends")
        else:
            self._clock.serving_ends()

    def head_began(self) -> None:
        """See `Clock.head_began`."""
        self._clock.head_began()

    def request_began(self) -> None:
        """Give a request, whose head is whole, the time for its body."""
        self._over = self._whole = False
        self._clock.request_began()

    def request_is_whole(self) -> None:
        """Stop the clock: how long the answer to a whole request takes is the application's affair."""
        self._whole = True
        self._clock.stop()

    def message_began(self) -> None:
        """See `Clock.message_began`."""
        self._clock.message_began()

    def message_is_whole(self) -> None:
        """Stop the clock of `message_began`."""
        self._clock.stop()

    def response_ends(self, *, over: bool) -> None:
        """Write nothing directly from here on. `over`: the application has said all that it has to say."""
        self._over = self._over or over
        self._detach()

    async def finish_answer(self) -> None:
        """Wait for the rest of an answer that has begun; the next that is read is the peer's end."""
        await self._wait_for_answer(self.stall_s)

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
            return
        if isinstance(event, Closed):
            await self._say_goodbye()
            if self._http is not None:
                await self._http.handle(Closed())
        elif isinstance(event, Updated) and event.idle:
            self._clock.idle()
        if self._last_answer is not None:
            self._last_answer.over()

    async def _write(self, data: bytes) -> None:
        await self._require_open()
        goodbye = data[0] == 0x88 and self._http is not None and self._http.accepted  # a WebSocket's close frame
        if goodbye:
            self._detach()
        if self._last_answer is not None:
            self._last_answer.writing()
        patience = self.writes.add(len(data), self.stall_s, self.settings.stall.bytes_per_s)
        try:
            with patience.scope:
                await self._write_in_turn(data, patience)
        finally:
            self.writes.remove(patience)
        await self._require_open()
        if self._last_answer is not None and self._http is not None:
            if self._http.endless:
                self._last_answer.over()  # half-closed before its stream began: it is gone
            else:
                self._last_answer.written(self.stall_s)
        if goodbye:
            self._said = True
            self._clock.part()

    async def _require_open(self) -> None:
        if self.ended:
            await trio.lowlevel.checkpoint()  # lets the cancellation in
            raise trio.BrokenResourceError(self.ended)  # for one that has shielded itself: it must not write on and on

    async def _write_in_turn(self, data: bytes, patience: Patience) -> None:
        try:
            await self.gate.enter()
            patience.begin()
            for start in range(0, len(data), PIECE_BYTES):
                await self.stream.send_all(memoryview(data)[start : start + PIECE_BYTES])
        except trio.Cancelled:
            self.abort(patience.fault or "a write was cancelled")
            raise
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.abort(why_lost(error))
        else:
            self.gate.leave()  # only here: after a failed write nothing may follow

    async def _say_goodbye(self) -> None:
        """Close our half and read on until the peer closes its own: a close over unread bytes would drop our answer."""
        if self._closing or self.ended:
            return
        self._closing = True
        self._detach()
        self._clock.part()
        await self.gate.enter()
        self._said = True
        try:
            await say_closed(self.stream, self._socket)
        finally:
            self.gate.leave()
