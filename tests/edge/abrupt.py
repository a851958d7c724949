"""Clients that leave in the middle: every stage of a conversation, times every way to go.

A *stage* brings a connection to a point at which the service has something under way for it; an *ending* is what the
peer's kernel then does. Attempt number `n` of a seed always is the same pair with the same cuts, so that a run can be
repeated. A stage that does not get where its name says is a fault of the service's, or of the test.
"""

import contextlib
import json
import random
import socket
import struct
from collections.abc import Awaitable, Callable

import attrs
import trio
from test_edge_endings import UPGRADE
from test_edge_websocket import masked

PATIENCE_S = 60.0  # for what a stage waits for, with everything else on the machine at work
ROOMS = 16
PAUSES_S = (0.0, 0.0, 0.001, 0.01)  # before an ending: the service is at different things
HALF_S = 0.05  # how long a client that closed its half stays
ADDRESSES = 8  # of loopback, as sources: a closed connection keeps its pair of ports for a minute
SMALL_BYTES = 2048

Ending = Callable[[trio.socket.SocketType], Awaitable[None]]


class Short(Exception):
    """The service closed before a stage had what it waits for."""


@attrs.define
class Peer:
    """One raw connection."""

    sock: trio.socket.SocketType
    rng: random.Random
    had: bytes = b""

    async def send(self, data):
        stream = trio.SocketStream(self.sock)
        await stream.send_all(data)

    async def send_cut(self, data, least=1):
        """Send a beginning of it, never all."""
        await self.send(data[: self.rng.randrange(least, len(data))])

    async def until(self, mark):
        """Read until this has come; gives everything since the last time."""
        with trio.fail_after(PATIENCE_S):
            while mark not in self.had:
                part = await self.sock.recv(1 << 16)
                if not part:
                    raise Short(f"no {mark!r} in {self.had[-200:]!r}")
                self.had += part
        had, self.had = self.had, b""
        return had

    @property
    def room(self):
        return f"r{self.rng.randrange(ROOMS)}"

    def events(self, stream=None, since=None):
        """A request for a stream."""
        last = "" if since is None else f"last-event-id: {since}\r\n"
        return f"GET /v1/{stream or f'room/{self.room}'}/events HTTP/1.1\r\nhost: x\r\n{last}\r\n".encode()

    def post(self, path, body):
        """A request with a body."""
        data = json.dumps(body).encode()
        head = f"POST /v1/{path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data

    def message(self, type_, **data):
        """A whole WebSocket frame."""
        return masked(1, json.dumps({"type": type_, "data": data}).encode())

    async def websocket(self):
        await self.send(UPGRADE)
        await self.until(b"\r\n\r\n")

    async def subscribe(self, stream=None):
        await self.send(self.message("subscribe", stream=stream or f"room/{self.room}"))


# Stages


async def connected(peer):
    pass


async def request_head(peer):
    await peer.send_cut(peer.events())


async def request_body(peer):
    request = peer.post(f"room/{peer.room}/publish", {"data": "x" * 200})
    await peer.send_cut(request, request.index(b"\r\n\r\n") + 4)


async def request_chunk(peer):
    head = f"POST /v1/room/{peer.room}/publish HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    await peer.send_cut(head + b'a\r\n{"data":"xx\r\n', len(head))


async def request_call(peer):
    await peer.send(peer.post(f"room/{peer.room}/call/wait", [0.01]))


async def request_publish(peer):
    await peer.send(peer.post("room/witness/publish", {"data": "aside"}))


async def request_second(peer):
    first = peer.post(f"room/{peer.room}/call/double", [1])
    await peer.send(first)
    await peer.until(b"result")
    await peer.send_cut(first)


async def request_behind(peer):
    await peer.send(peer.post(f"room/{peer.room}/call/wait", [0.01]) + peer.events()[:30])


async def request_history(peer):
    await peer.send(b"GET /v1/room/witness/history HTTP/1.1\r\nhost: x\r\n\r\n")


async def sse_asked(peer):
    await peer.send(peer.events())


async def sse_greeted(peer):
    await peer.send(peer.events())
    await peer.until(b"hello")


async def sse_snapshot(peer):
    await peer.send(peer.events("wall/w"))


async def sse_in_snapshot(peer):
    await peer.send(peer.events("wall/w"))
    await peer.until(b"snapshot")


async def sse_unread(peer):
    await peer.send(peer.events("room/witness", "0-0"))
    await trio.sleep(0.02)


async def sse_behind(peer):
    await peer.send(peer.events() + b"GET")


async def sse_busy(peer):
    await peer.send(peer.events("room/witness"))
    await peer.until(b'"n":')


async def ws_head(peer):
    await peer.send_cut(UPGRADE)


async def ws_behind_head(peer):
    await peer.send(UPGRADE + peer.message("ping")[:3])


async def ws_accepted(peer):
    await peer.websocket()


async def ws_frame_header(peer):
    await peer.websocket()
    await peer.send_cut(masked(1, b"x" * 70_000)[:14])


async def ws_payload(peer):
    await peer.websocket()
    await peer.send_cut(masked(1, b"x" * 2_000), 15)


async def ws_fragment(peer):
    await peer.websocket()
    await peer.send(masked(1, b'{"type":', fin=False) + masked(9, b"still here"))


async def ws_subscribing(peer):
    await peer.websocket()
    await peer.subscribe()


async def ws_subscribed(peer):
    await peer.websocket()
    await peer.subscribe()
    await peer.until(b'"subscribed"')


async def ws_busy(peer):
    await peer.websocket()
    await peer.subscribe("room/witness")
    await peer.until(b'"n":')


async def ws_snapshot(peer):
    await peer.websocket()
    await peer.subscribe("wall/w")


async def ws_unread(peer):
    await peer.websocket()
    await peer.subscribe("room/witness")
    await trio.sleep(0.05)


async def ws_call(peer):
    await peer.websocket()
    await peer.send(peer.message("call", stream=f"room/{peer.room}", method="wait", arguments=[0.01]))


async def ws_publish(peer):
    await peer.websocket()
    await peer.send(peer.message("publish", stream="room/witness", data="aside"))


async def ws_close(peer):
    await peer.websocket()
    await peer.subscribe()
    await peer.send(masked(8, b"\x03\xe8"))


async def ws_behind_close(peer):
    await peer.websocket()
    await peer.send(masked(8, b"\x03\xe8") + peer.message("ping"))


STAGES = (
    connected, request_head, request_body, request_chunk, request_call, request_publish, request_second,
    request_behind, request_history,
    sse_asked, sse_greeted, sse_snapshot, sse_in_snapshot, sse_unread, sse_behind, sse_busy,
    ws_head, ws_behind_head, ws_accepted, ws_frame_header, ws_payload, ws_fragment, ws_subscribing, ws_subscribed,
    ws_busy, ws_snapshot, ws_unread, ws_call, ws_publish, ws_close, ws_behind_close,
)  # fmt: skip
UNREAD = {sse_unread, sse_snapshot, sse_in_snapshot, ws_unread, ws_snapshot}  # their kernels take next to nothing


# Endings


async def close(sock):
    """In order; with something unread the kernel sends a reset."""


async def reset(sock):
    """At once, whatever was on its way."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def half_close(sock):
    """Say the end, and stay a while."""
    sock.shutdown(socket.SHUT_WR)
    await trio.sleep(HALF_S)


async def half_close_reset(sock):
    """Say the end, stay a while, and reset."""
    await half_close(sock)
    await reset(sock)


ENDINGS: tuple[Ending, ...] = (close, reset, half_close, half_close_reset)
PAIRS = tuple((stage, ending) for stage in STAGES for ending in ENDINGS)


@contextlib.asynccontextmanager
async def connection(address, n, *, small=False):
    """A raw connection, closed at the end."""
    with trio.socket.socket() as sock:
        if small:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BYTES)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT: choose the port with the other end known
        await sock.bind((f"127.0.0.{2 + n % ADDRESSES}", 0))
        await sock.connect(address)
        yield sock


async def leave_abruptly(address, seed, n):
    """Do attempt number `n`; the service may be the first to close."""
    stage, ending = PAIRS[n % len(PAIRS)]
    rng = random.Random(f"{seed}/{n}")
    async with connection(address, n, small=stage in UNREAD) as sock:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError, trio.BrokenResourceError):
            await stage(Peer(sock, rng))
            await trio.sleep(rng.choice(PAUSES_S))
        with contextlib.suppress(OSError):  # reset already: there is no half to close
            await ending(sock)
