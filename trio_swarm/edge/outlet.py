"""The socket below a connection, as the host uses it: like Trio's stream, but headway shows, and reading is in turn.

Trio's `send_all` tells nothing until all is out. This one says each time that the kernel took some, and looks now and
then at how much of the rest the peer has acknowledged; the limits are the connection's (headway.py). TLS stands on it
too, so that an encrypted client is judged as any other, for what the TLS layer writes of its own accord as well.

Nothing is read before readability.py has said that it is this connection's turn.
"""

import contextlib
import os
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any, Final, final

import structlog
import trio

from trio_swarm.edge.headway import Writes, unacknowledged
from trio_swarm.edge.readability import Readability
from trio_swarm.edge.reasons import GONE

log = structlog.get_logger()

RECORD_BYTES: Final = 16 * 1024  # of TLS, at most


def find_send(sock: trio.socket.SocketType) -> Callable[[bytes | memoryview], int]:
    """Find a `send` that does not wait: of the socket below Trio's if it is where it used to be, else by number."""
    below = _below(sock)
    return below.send if below is not None else lambda data: os.write(sock.fileno(), data)


def find_receive(sock: trio.socket.SocketType) -> Callable[[int], bytes]:
    """Find a `recv` that does not wait, as `find_send` does."""
    below = _below(sock)
    return below.recv if below is not None else lambda most: os.read(sock.fileno(), most)


def _below(sock: trio.socket.SocketType) -> socket.socket | None:
    below = getattr(sock, "_sock", None)
    return below if isinstance(below, socket.socket) else None


def with_outlet(
    stream: Any,
    send_now: Callable[[bytes | memoryview], int],
    writes: Writes,
    look_s: float,
    readability: Readability,
) -> Any:
    """Put an outlet under what a listener gave us: in the place of a bare stream, and below TLS."""
    if not isinstance(stream, trio.SSLStream):
        return Outlet(stream, send_now, writes, look_s, readability)
    below: Any = stream
    below.transport_stream = Outlet(below.transport_stream, send_now, writes, look_s, readability)
    return stream


async def shake_hands(stream: Any, seconds: float) -> bool:
    """Do the TLS handshake; False where it took too long.

    Raises:
        trio.BrokenResourceError: it failed.
    """
    # Under a plain `hypercorn` the context is not ours; it is asked for its protocols only now.
    stream.context.set_alpn_protocols(["http/1.1"])
    with trio.move_on_after(seconds) as patience:
        await stream.do_handshake()
    return not patience.cancelled_caught


async def say_closed(stream: Any, sock: trio.socket.SocketType) -> None:
    """Close our half: TLS's own goodbye, without which an end could be anybody's, then TCP's. Nobody is waited for."""
    try:
        if isinstance(stream, trio.SSLStream):
            inside: Any = stream
            # Trio's `unwrap` waits for the peer's goodbye, and cannot run beside our reader.
            await inside._retry(lambda: _close_tls(inside._ssl_object))  # noqa: SLF001
        sock.shutdown(socket.SHUT_WR)
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        log.debug("peer_left_before_goodbye")


def _close_tls(tls: ssl.SSLObject) -> None:
    """Leave the goodbye where Trio finds what is to be sent. What has come and was not read is dropped."""
    with contextlib.suppress(ssl.SSLError):
        while tls.read(RECORD_BYTES):  # a goodbye that met data would keep OpenSSL from reading what comes later
            pass
    with contextlib.suppress(ssl.SSLError):  # the peer's has not come
        tls.unwrap()


def drop_unsent(sock: trio.socket.SocketType) -> None:
    """Have the kernel forget, as the socket is closed, what the client has not read: it sees a reset."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@final
class Outlet(trio.abc.Stream):
    """See the module.

    Args:
        below: Trio's stream.
        send_now: like `socket.send`, without waiting.
        writes: told of each headway, and when the socket is full.
        look_s: the pause between two looks at what was acknowledged.
        readability: says when there is something to read.
    """

    __slots__ = ("_below", "_look_s", "_readability", "_receive_now", "_send_now", "_writes")

    def __init__(
        self,
        below: trio.SocketStream,
        send_now: Callable[[bytes | memoryview], int],
        writes: Writes,
        look_s: float,
        readability: Readability,
    ) -> None:
        self._below = below
        self._send_now = send_now
        self._receive_now = find_receive(below.socket)
        self._writes = writes
        self._look_s = look_s
        self._readability = readability

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write all of it. Cancelled: some of it is out.

        Raises:
            trio.BrokenResourceError: the peer is gone.
            trio.ClosedResourceError: the socket was closed here, meanwhile.
        """
        await trio.lowlevel.checkpoint()
        rest = memoryview(data)
        while rest:
            try:
                sent = self._send_now(rest)
            except BlockingIOError:
                await self._wait_writable()
            except OSError as error:
                raise trio.BrokenResourceError(GONE) from error
            else:
                rest = rest[sent:]
                self._writes.moved()

    async def wait_send_all_might_not_block(self) -> None:
        """See `trio.abc.SendStream`."""
        await self._below.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See `trio.abc.ReceiveStream`. Cancelled, nothing has been read.

        Raises:
            trio.BrokenResourceError: the peer is gone, or the socket was closed here.
        """
        while True:
            try:
                await self._readability.wait(self._below.socket)
                return self._receive_now(max_bytes or RECORD_BYTES)
            except BlockingIOError:
                continue
            except (OSError, ValueError) as error:
                raise trio.BrokenResourceError(GONE) from error

    async def aclose(self) -> None:
        """See `trio.abc.AsyncResource`."""
        await self._below.aclose()

    async def _wait_writable(self) -> None:
        owed = unacknowledged(self._below.socket.fileno())
        self._writes.blocked(owed or 0)
        while True:
            with trio.move_on_after(self._look_s):
                try:
                    await trio.lowlevel.wait_writable(self._below.socket)
                except (OSError, ValueError) as error:
                    raise trio.BrokenResourceError("the socket cannot be waited for") from error
                return
            left = unacknowledged(self._below.socket.fileno())
            if left is not None and owed is not None and left < owed:
                self._writes.moved()
            owed = left
