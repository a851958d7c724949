"""One WebSocket connection to an upstream: up within a deadline, alive or found dead, and gone without a trace.

It stands on trio-websocket, around five of its ways:

- its handshake waits for ever on a peer that says nothing, or that hangs up half-way: ours runs under a deadline, in
  a nursery of ours, and ends as soon as the byte stream does;
- its reader task raises what the peer provokes (a refusal, a bad accept key) into the nursery: a guard keeps that as
  the reason;
- it keeps the body of a refusal, however long: `handshake.py` cuts it;
- after a close by the peer it leaves the socket open: the byte stream is ours, and we close it, whatever happened;
- it has no heartbeat. Liveness is judged where the bytes are, in `_Watched`: silence counts only while somebody is
  reading, so that a connection that we hold back ourselves (backpressure) is never taken for a dead one. The pings
  only give a healthy peer a reason to speak.

A byte stream comes from an `Opener`; a test gives its own, and runs over memory streams under a mock clock.
"""

import contextlib
import functools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NoReturn, cast
from urllib.parse import urlsplit

import attrs
import trio
import trio_websocket
import wsproto.utilities

from trio_swarm.errors import FeedUnavailable, SettingsError
from trio_swarm.settings import KIB, QUEUE_FRAMES, Limits, UpstreamSettings
from trio_swarm.upstream.handshake import Answer, why_broken
from trio_swarm.upstream.unreachable import why_unreachable

RECEIVE_BYTES = 256 * KIB  # the largest frame there was, 709 KB, comes in three reads and not in 170

_ABNORMAL = 1006  # how trio-websocket says that nobody said goodbye

_DEFAULT_PORTS = {"ws": 80, "wss": 443}

Opener = Callable[[str], Awaitable[trio.abc.Stream]]


@attrs.frozen
class Address:
    """Where a URL leads."""

    host: str
    port: int
    resource: str
    secure: bool

    @property
    def header(self) -> str:
        """The Host header: without the port where it is the scheme's own."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == _DEFAULT_PORTS["wss" if self.secure else "ws"] else f"{name}:{self.port}"


def parse_url(url: str, where: str = "url") -> Address:
    """Take a `ws:` or `wss:` URL apart.

    Raises:
        SettingsError: it is none; `where` says whose it is.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SettingsError(where, f"{url!r} is not a URL: {error}") from error
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        raise SettingsError(where, f"{url!r} is not a WebSocket URL: give ws://host[:port]/path or wss://…")
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Address(parts.hostname, port or _DEFAULT_PORTS[parts.scheme], resource, parts.scheme == "wss")


async def open_stream(url: str, tls: ssl.SSLContext | None = None) -> trio.abc.Stream:
    """Open the byte stream to a URL's host: TCP, or TLS, checked as `tls` says, else against the system's authorities.

    Raises:
        OSError: nobody is there.
        trio.BrokenResourceError: the TLS handshake failed.
    """
    address = parse_url(url)
    if not address.secure:
        return await trio.open_tcp_stream(address.host, address.port)
    stream = await trio.open_ssl_over_tcp_stream(
        address.host, address.port, ssl_context=tls or _tls(), https_compatible=True
    )
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


class Connection:
    """An open connection; made by `connect` alone. Its methods raise `FeedUnavailable` from the moment it has ended."""

    def __init__(self, name: str, nursery: trio.Nursery, stream: "_Watched", guard: "_Guard", websocket: Any) -> None:
        self._name = name
        self._nursery = nursery
        self._stream = stream
        self._guard = guard
        self._websocket = websocket
        self.last_pong_at: float | None = None

    @property
    def last_byte_at(self) -> float | None:
        """When the peer last sent anything, on Trio's clock."""
        return self._stream.last_byte_at

    @property
    def received_bytes(self) -> int:
        """How much came, framing included."""
        return self._stream.received_bytes

    def start_soon(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        """Run something beside the connection that ends with it."""
        self._nursery.start_soon(function, *args)

    async def receive(self) -> str | bytes:
        """The next frame. Cancelled, it has taken none.

        Raises:
            FeedUnavailable: the connection ended, and what came before that was received; the reason says how.
        """
        try:
            frame: str | bytes = await self._websocket.get_message()
        except trio_websocket.ConnectionClosed as error:
            raise FeedUnavailable(self._name, self._why()) from error
        return frame

    async def send(self, text: str) -> None:
        """Send a text frame. Cancelled half-way, it leaves the connection unusable.

        Raises:
            FeedUnavailable: the connection ended; the reason says how. What came before that can still be received.
        """
        try:
            await self._websocket.send_message(text)
        except (trio_websocket.ConnectionClosed, wsproto.utilities.ProtocolError):
            ended = trio_websocket.ConnectionClosed(self._websocket.closed)  # a ProtocolError would not say how
            raise FeedUnavailable(self._name, self._why()) from ended

    async def _ping(self, every_s: float) -> None:
        # No deadline here: the stream's own ends a peer that neither answers nor sends. One ping is under way at a
        # time, because trio-websocket keeps each that was never answered.
        with contextlib.suppress(trio_websocket.ConnectionClosed, wsproto.utilities.ProtocolError):
            while True:
                await trio.sleep(every_s)
                await self._websocket.ping()
                self.last_pong_at = trio.current_time()

    def _why(self) -> str:
        fault = self._stream.fault or self._guard.fault
        if fault is not None:
            return fault
        closed = self._websocket.closed
        if closed is None or closed.code == _ABNORMAL:
            return "the connection broke off"
        return f"{self._guard.peer} closed with {closed.code}" + (f" ({closed.reason})" if closed.reason else "")


@contextlib.asynccontextmanager
async def connect(
    name: str,
    url: str,
    *,
    settings: UpstreamSettings,
    opener: Opener = open_stream,
    frame_bytes: int = Limits().upstream_frame_bytes,
    headers: Sequence[tuple[str, str]] = (),
    peer: str = "the feed",
) -> AsyncIterator[Connection]:
    """Connect, for the time of the block; what the block raises comes out as it is.

    At the end, also by cancellation, a close frame is sent if that is possible within `close_s`, its answer is not
    waited for, and the byte stream is closed.

    Args:
        name: the feed's, for reasons and logs.
        url: where to.
        settings: the deadlines.
        opener: gives the byte stream; it is cancelled at the deadline.
        frame_bytes: a larger frame ends the connection.
        headers: sent with the handshake, beside its own.
        peer: what reasons call the other end.

    Raises:
        FeedUnavailable: the connection did not come up, with the reason; its cause is trio-websocket's own error where
            the peer refused the handshake, as it is where the peer closes later.
    """
    address = parse_url(url)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        stream: _Watched | None = None
        websocket: Any = None
        guard = _Guard(nursery, peer)
        try:
            with trio.move_on_after(settings.connect_s) as scope:
                stream = _Watched(await _open(name, opener, url), settings.dead_s, peer)
                stream.on_end = guard.on_fault = scope.cancel
                websocket = await trio_websocket.wrap_client_stream(
                    cast("Any", guard),
                    cast("Any", stream),
                    address.header,
                    address.resource,
                    extra_headers=[(name.encode(), value.encode()) for name, value in headers],
                    message_queue_size=QUEUE_FRAMES,
                    max_message_size=frame_bytes,
                    receive_buffer_size=RECEIVE_BYTES,
                )
            if stream is None or websocket is None:
                why = _why_not(stream, guard, settings.connect_s)
                raise FeedUnavailable(name, why) from guard.error  # noqa: TRY301 - see `failure`
            stream.on_end = guard.on_fault = stream.answer = None
            connection = Connection(name, nursery, stream, guard, websocket)
            nursery.start_soon(connection._ping, settings.ping_s)  # noqa: SLF001 - its maker
            try:
                yield connection
            finally:
                with trio.move_on_after(settings.close_s, shield=True) as goodbye:
                    stream.on_sent = goodbye.cancel  # its reader may be gone already: nobody would see the answer
                    with contextlib.suppress(wsproto.utilities.ProtocolError):
                        await websocket.aclose()
        except Exception as error:  # noqa: BLE001 - raised again below, outside of the nursery that would wrap it
            failure = error
        finally:
            if stream is not None:
                await trio.aclose_forcefully(stream)
            nursery.cancel_scope.cancel()
    try:
        if failure is not None:
            raise failure
    finally:
        del failure  # it holds this frame by its traceback: a cycle


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()  # reads the authorities from disk: once


async def _open(name: str, opener: Opener, url: str) -> trio.abc.Stream:
    try:
        return await opener(url)
    except (OSError, UnicodeError, trio.BrokenResourceError) as error:
        host = parse_url(url).header
        raise FeedUnavailable(name, f"cannot connect to {host}: {why_unreachable(error)}") from error


def _why_not(stream: "_Watched | None", guard: "_Guard", connect_s: float) -> str:
    if guard.fault is not None:
        return guard.fault
    if stream is not None and stream.ended:
        return f"{guard.peer} hung up during the handshake"
    return f"no connection within {connect_s:g} s"


class _Guard:
    """Stands where trio-websocket wants a nursery for its reader: what that raises is a reason, and crashes nothing."""

    def __init__(self, nursery: trio.Nursery, peer: str) -> None:
        self.peer = peer
        self.fault: str | None = None
        self.error: Exception | None = None
        self.on_fault: Callable[[], None] | None = None
        self._nursery = nursery

    def start_soon(self, reader: Callable[[], Awaitable[None]]) -> None:
        self._nursery.start_soon(self._run, reader)

    async def _run(self, reader: Callable[[], Awaitable[None]]) -> None:
        try:
            await reader()
        except trio_websocket.ConnectionRejected as error:
            self._note(f"{self.peer} refused with HTTP {error.status_code}", error)
        except Exception as error:  # noqa: BLE001 - whatever a peer can make the library raise
            self._note(f"{self.peer} broke the WebSocket protocol: {why_broken(error)}", error)

    def _note(self, fault: str, error: Exception) -> None:
        self.fault = fault
        self.error = error
        if self.on_fault is not None:
            self.on_fault()


class _Watched(trio.abc.Stream):
    """A byte stream that ends itself when its peer sends nothing, or takes nothing, for `dead_s`.

    The watch begins with the first byte: until then, the deadline of the connect holds.
    """

    def __init__(self, stream: trio.abc.Stream, dead_s: float, peer: str) -> None:
        self._stream = stream
        self._dead_s = dead_s
        self._peer = peer
        self.fault: str | None = None
        self.ended = False
        self.last_byte_at: float | None = None
        self.received_bytes = 0
        self.answer: Answer | None = Answer()  # to the handshake, until the connection is up
        self.on_end: Callable[[], None] | None = None
        self.on_sent: Callable[[], None] | None = None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        with trio.move_on_after(self._dead_s) as scope:
            try:
                await self._stream.send_all(data)
            except trio.BrokenResourceError:
                self._end()
                raise
        if scope.cancelled_caught:
            self._die(f"{self._peer} took nothing for {self._dead_s:g} s")
        if self.on_sent is not None:
            self.on_sent()

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data: bytes | bytearray | None = None
        with trio.CancelScope() as scope:
            if self.last_byte_at is not None:
                scope.deadline = trio.current_time() + self._dead_s
            try:
                data = await self._stream.receive_some(max_bytes)
            except trio.BrokenResourceError:
                self._end()
                raise
        if data is None:
            self._die(f"{self._peer} was silent for {self._dead_s:g} s")
        if not data:
            self._end()
        self.last_byte_at = trio.current_time()
        self.received_bytes += len(data)
        if self.answer is not None and (refusal := self.answer.take(data)) is not None:
            raise refusal
        return data

    async def aclose(self) -> None:
        await self._stream.aclose()

    def _end(self) -> None:
        self.ended = True
        if self.on_end is not None:
            self.on_end()

    def _die(self, fault: str) -> NoReturn:
        self.fault = fault
        self._end()
        raise trio.BrokenResourceError(fault)
