"""A handshake that is refused at length, on real sockets: what is kept of it has a bound."""

from contextlib import asynccontextmanager

import pytest
import trio
import trio_websocket
from wsproto.utilities import generate_accept_token

from trio_swarm.errors import FeedUnavailable
from trio_swarm.settings import KIB, UpstreamSettings
from trio_swarm.upstream.websocket import RECEIVE_BYTES, connect, open_stream

UP = "HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
PATIENT = UpstreamSettings(connect_s=60.0)


class Counted(trio.abc.Stream):
    """A real stream, and how much was taken from it."""

    def __init__(self, stream):
        self._stream = stream
        self.send_all = stream.send_all
        self.aclose = stream.aclose
        self.received = 0

    async def send_all(self, data):
        raise NotImplementedError

    async def wait_send_all_might_not_block(self):
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self):
        raise NotImplementedError

    async def receive_some(self, max_bytes=None):
        data = await self._stream.receive_some(max_bytes)
        self.received += len(data)
        return data


@asynccontextmanager
async def answering(pieces):
    """A server that answers a handshake with `pieces(accept key)`: its URL, an opener, and what that opened."""
    opened = []

    async def serve(stream):
        head = await stream.receive_some(65536)
        (key,) = (line[19:] for line in head.decode().split("\r\n") if line.lower().startswith("sec-websocket-key: "))
        try:
            for piece in pieces(generate_accept_token(key.encode()).decode()):
                await stream.send_all(piece)
            while await stream.receive_some(65536):
                pass
        except trio.BrokenResourceError:
            pass
        await trio.aclose_forcefully(stream)

    async def open_counted(url):
        opened.append(Counted(await open_stream(url)))
        return opened[-1]

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(trio.serve_listeners, serve, [listener])
        yield f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/", open_counted, opened
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("fields", "piece"),
    [
        ("", b"x" * 65536),
        ("Content-Length: 99999999\r\n", b"x" * 65536),
        ("Transfer-Encoding: chunked\r\n", b"1\r\nx\r\n"),
    ],
)
async def test_a_refusal_without_end_is_a_refusal(fields, piece):
    """It is known by its head, which stays whole: nobody waits for the end of the rest, or keeps it."""

    def pieces(_accept):
        yield f"HTTP/1.1 503 No\r\nRetry-After: 7\r\n{fields}\r\n".encode()
        while True:
            yield piece * (65536 // len(piece))

    async with answering(pieces) as (url, opener, opened):
        with trio.fail_after(20), pytest.raises(FeedUnavailable, match="HTTP 503") as raised:
            async with connect("f", url, settings=PATIENT, opener=opener):
                pass
    assert opened[0].received <= 64 * KIB + RECEIVE_BYTES
    rejected = raised.value.__cause__
    assert isinstance(rejected, trio_websocket.ConnectionRejected)
    assert (503, b"7") == (rejected.status_code, dict(rejected.headers)[b"retry-after"])
    assert len(rejected.body) <= 64 * KIB


async def test_a_head_without_end_is_no_answer():
    """Which ends it as well."""

    def pieces(_accept):
        yield b"HTTP/1.1 403 No\r\n"
        while True:
            yield b"x: y\r\n" * 10_000

    async with answering(pieces) as (url, opener, opened):
        with trio.fail_after(20), pytest.raises(FeedUnavailable, match="its answer is no HTTP"):
            async with connect("f", url, settings=PATIENT, opener=opener):
                pass
    assert opened[0].received <= 64 * KIB + RECEIVE_BYTES


async def test_what_comes_with_the_handshake_has_no_such_bound():
    """A server may begin at once, and at length."""
    frame = bytes([0x82, 127]) + (100_000).to_bytes(8, "big") + b"x" * 100_000

    def pieces(accept):
        yield f"{UP}{accept}\r\n\r\n".encode() + frame * 20

    async with answering(pieces) as (url, opener, _):
        with trio.fail_after(20):
            async with connect("f", url, settings=PATIENT, opener=opener) as connection:
                assert [100_000] * 20 == [len(await connection.receive()) for _ in range(20)]
