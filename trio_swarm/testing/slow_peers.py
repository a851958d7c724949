"""Peers that are slow on purpose, each in a way of its own; docs/deadlines.md has the same names.

    how = await be_slow("head", "127.0.0.1", 8000)   # drips a request's head until it is cut off

They speak HTTP and WebSocket in raw bytes, as few as it takes, to a service whose objects can be called as in
`stream`, and are patient: what ends them is the service, or the caller. For tests and benchmarks of what such peers
cost the others.
"""

import ctypes
import select
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable
from typing import Final

import attrs
import trio

RESET: Final = "reset"
ENDED: Final = "ended"  # in order: what the service had to say has come
CLOSED: Final = (6, 7, 9, 11)  # states of TCP in which nothing more can come
HALF_CLOSED: Final = 8  # the service's end has come

SMALL_BYTES: Final = 2048  # a receive buffer that is soon full
SO_ATTACH_FILTER: Final = getattr(socket, "SO_ATTACH_FILTER", 26)
ONE_BYTE_FRAGMENT: Final = b"\x00\x81\0\0\0\0x"
PONG: Final = b"\x8a\x80\0\0\0\0"


@attrs.define
class SlowPeer:
    """One connection to a service, and what is slow about it.

    Attributes:
        stream: `kind/id` of an object that the service has, for those who read.
        pause_s: between two drips.
        sip_bytes: what a dripping reader reads at a time.
        slow: set when all that should be quick is done.
        lived_s: from then until the service had ended it; None before, and of those that are STAYING.
    """

    transport: trio.abc.Stream
    sock: trio.socket.SocketType
    stream: str
    pause_s: float
    sip_bytes: int
    slow: trio.Event
    half_closed: bool = False
    lived_s: float | None = None

    async def say(self, data: bytes) -> None:
        """Send it whole."""
        await self.transport.send_all(data)

    async def get(self, path: str, *fields: str, method: str = "GET") -> None:
        """Send a request's head."""
        lines = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: slow", *fields, "", ""])
        await self.say(lines.encode())

    async def upgrade(self) -> None:
        """Become a WebSocket."""
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
        await self.get("/v1/ws", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", key)
        await self.hear(b"\r\n\r\n")

    async def subscribe(self) -> None:
        """Ask for the stream, over a WebSocket."""
        body = b'{"type":"subscribe","data":{"stream":"%b"}}' % self.stream.encode()
        await self.say(bytes([0x81, 0x80 | len(body)]) + bytes(4) + body)

    async def hear(self, mark: bytes) -> bytes:
        """Read until this has come."""
        heard = b""
        while mark not in heard:
            part = await self.transport.receive_some(SMALL_BYTES)
            if not part:
                raise trio.BrokenResourceError("the service ended the connection")
            heard += part
        return heard

    async def drip(self, data: bytes) -> None:
        """Send this again and again."""
        self.slow.set()
        while True:
            await self.say(data)
            await trio.sleep(self.pause_s)

    async def sip(self) -> None:
        """Read a little now and then, below TLS, whose records are larger."""
        self.slow.set()
        while await self.sock.recv(self.sip_bytes):  # noqa: ASYNC110 - its pace is the point
            await trio.sleep(self.pause_s)

    async def stand(self) -> None:
        """Do nothing."""
        self.slow.set()
        await trio.sleep_forever()

    async def stand_unread(self) -> None:
        """Do nothing, behind a full window, and have the kernel ask now and then whether there is still somebody.

        Where the service's kernel gives up on what nobody takes (`TCP_USER_TIMEOUT`), it tells nobody.
        """
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        await self.stand()

    def vanish(self) -> None:
        """Let nothing that comes reach this socket, so that nothing is acknowledged: a host that lost its power."""
        program = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))  # "return 0": drop the packet
        self.sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", 1, ctypes.addressof(program)))

    async def wait_for_end(self) -> None:
        """Wait until the service has ended it. Nothing is read, which would be to be less slow: the kernel tells."""
        with select.epoll() as ends:
            ends.register(self.sock.fileno(), select.EPOLLRDHUP)
            await trio.lowlevel.wait_readable(ends.fileno())

    @property
    def end(self) -> str:
        """How the service has ended it; empty while it has not."""
        state = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        if state in CLOSED:
            return ENDED if self.half_closed else RESET
        return ENDED if state == HALF_CLOSED else ""


async def _handshake(peer: SlowPeer) -> None:
    await peer.say(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # a ClientHello of 508 bytes begins
    await peer.drip(b"x")


async def _silence(peer: SlowPeer) -> None:
    await peer.stand()


async def _head(peer: SlowPeer) -> None:
    await peer.say(b"GET /healthz HTTP/1.1\r\nHost: slow\r\nX-Drip: ")
    await peer.drip(b"x")


async def _body(peer: SlowPeer) -> None:
    fields = ("Content-Type: application/json", "Content-Length: 10000")
    await peer.get(f"/v1/{peer.stream}/publish", *fields, method="POST")
    await peer.drip(b" ")


async def _idle(peer: SlowPeer) -> None:
    await peer.get("/healthz")
    await peer.hear(b"}")
    await peer.stand()


async def _frame(peer: SlowPeer) -> None:
    await peer.upgrade()
    await peer.say(b"\x81\xfe\x40\x00")  # 16 KiB are announced; the mask's first bytes, and then its text, drip
    await peer.drip(b"x")


async def _message(peer: SlowPeer) -> None:
    await peer.upgrade()
    await peer.say(b"\x01\x81\0\0\0\0x")
    await peer.drip(ONE_BYTE_FRAGMENT + PONG)


async def _pong(peer: SlowPeer) -> None:
    await peer.upgrade()
    await peer.stand()


async def _stopped_stream(peer: SlowPeer) -> None:
    await peer.get(f"/v1/{peer.stream}/events")
    await peer.stand_unread()


async def _stopped_websocket(peer: SlowPeer) -> None:
    await peer.upgrade()
    await peer.subscribe()
    await peer.drip(PONG)


async def _stopped_answer(peer: SlowPeer) -> None:
    await peer.get(f"/v1/{peer.stream}/history?limit=1000")
    await peer.stand_unread()


async def _pings_unread(peer: SlowPeer) -> None:
    await peer.upgrade()
    peer.slow.set()
    while True:
        await peer.say(b"\x89\xfd\0\0\0\0" + bytes(125))  # until the service reads no more


async def _dripping_stream(peer: SlowPeer) -> None:
    await peer.get(f"/v1/{peer.stream}/events")
    await peer.sip()


async def _dripping_answer(peer: SlowPeer) -> None:
    await peer.get(f"/v1/{peer.stream}/history?limit=1000")
    await peer.sip()


async def _black_hole(peer: SlowPeer) -> None:
    await peer.get(f"/v1/{peer.stream}/events")
    await peer.hear(b"hello")
    peer.vanish()
    await peer.stand()


async def _close(peer: SlowPeer) -> None:
    await peer.upgrade()
    await peer.say(b"\x82\x81\0\0\0\0x")  # binary is closed with 1003
    await peer.stand()


async def _goodbye(peer: SlowPeer) -> None:
    await peer.get("/healthz", "Connection: close")
    await peer.stand()


async def _half_close(peer: SlowPeer) -> None:
    body = b"[3]"
    fields = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    await peer.get(f"/v1/{peer.stream}/call/wait", *fields, method="POST")
    await peer.say(body)
    peer.half_closed = True
    peer.sock.shutdown(socket.SHUT_WR)
    await peer.stand()


SLOW_PEERS: Final[dict[str, Callable[[SlowPeer], Awaitable[None]]]] = {
    "handshake": _handshake,
    "silence": _silence,
    "head": _head,
    "body": _body,
    "idle": _idle,
    "frame": _frame,
    "message": _message,
    "pong": _pong,
    "stopped stream": _stopped_stream,
    "stopped websocket": _stopped_websocket,
    "stopped answer": _stopped_answer,
    "pings unread": _pings_unread,
    "dripping stream": _dripping_stream,
    "dripping answer": _dripping_answer,
    "black hole": _black_hole,
    "close": _close,
    "goodbye": _goodbye,
    "half-close": _half_close,
}


STAYING: Final = {"black hole", "close", "goodbye"}  # what comes last from the service comes before its end


async def be_slow(
    name: str,
    host: str,
    port: int,
    *,
    stream: str = "channel/slow",
    pause_s: float = 0.5,
    sip_bytes: int = 64,
    tls: ssl.SSLContext | None = None,
    task_status: trio.TaskStatus[SlowPeer] = trio.TASK_STATUS_IGNORED,
) -> str:
    """Be such a peer until the service cuts it off; gives how: `RESET` or `ENDED`. Reports the peer when it is slow.

    Those that are STAYING never return: nothing tells them. "handshake" is slow at TLS, so it wants none.
    """
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BYTES)
    transport: trio.abc.Stream = trio.SocketStream(sock)
    async with transport:
        await sock.connect((host, port))
        if tls is not None:
            transport = trio.SSLStream(trio.SocketStream(sock), tls, server_hostname="localhost", https_compatible=True)
        peer = SlowPeer(transport, sock, stream, pause_s, sip_bytes, trio.Event())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_act, name, peer)
            await peer.slow.wait()
            began = trio.current_time()
            task_status.started(peer)
            if name in STAYING:
                await trio.sleep_forever()
            await peer.wait_for_end()
            peer.lived_s = trio.current_time() - began
            nursery.cancel_scope.cancel()
        return peer.end


async def _act(name: str, peer: SlowPeer) -> None:
    try:
        await SLOW_PEERS[name](peer)
    except (trio.BrokenResourceError, trio.ClosedResourceError, ConnectionResetError):
        peer.slow.set()  # cut off, perhaps before it was there
