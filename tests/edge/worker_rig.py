"""Clients and servers for the tests of the connection class: raw bytes, real sockets on loopback, all bounded."""

import base64
import json
import os
import socket
import struct
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from trio_swarm.edge.worker import make_connection_class, serve
from trio_swarm.settings import LivenessSettings, Settings, StallSettings

HOST_APP = Path(__file__).with_name("host_app.py")
GET = b"GET %s HTTP/1.1\r\nHost: test\r\n\r\n"
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + base64.b64encode(b"k" * 16) + b"\r\n%s\r\n"
)
PATIENCE = 10.0  # a test that waits this long has failed


def client_frame(opcode, payload=b"", first_bits=0x80):
    """A masked frame, as a client has to write it."""
    mask = os.urandom(4)
    head = bytes([first_bits | opcode])
    if len(payload) < 126:
        head += bytes([0x80 | len(payload)])
    elif len(payload) < 65536:
        head += bytes([0xFE]) + struct.pack("!H", len(payload))
    else:
        head += bytes([0xFF]) + struct.pack("!Q", len(payload))
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(len(payload), "big")
    return head + mask + masked


def server_frames(data):
    """Cut what a server wrote into (opcode, payload); raises where it is no whole frames."""
    found = []
    while data:
        first, length = data[0], data[1]
        assert first & 0x70 == 0, "reserved bits"
        assert length < 128, "a server masks nothing"
        start = 2
        if length == 126:
            start, length = 4, int.from_bytes(data[2:4], "big")
        elif length == 127:
            start, length = 10, int.from_bytes(data[2:10], "big")
        assert len(data) >= start + length, "a frame is cut"
        found.append((first & 0x0F, data[start : start + length]))
        data = data[start + length :]
    return found


async def connect(port, *, receive_buffer=None):
    """A client's stream; with `receive_buffer` one whose kernel holds little."""
    sock = trio.socket.socket()
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    await sock.connect(("127.0.0.1", port))
    return trio.SocketStream(sock)


async def read_until(stream, mark, limit=1 << 20):
    """What comes, up to and with `mark`, and whatever came behind it."""
    data = b""
    with trio.fail_after(PATIENCE):
        while mark not in data:
            piece = await stream.receive_some()
            assert piece, f"the server closed after {data!r}"
            data += piece
            assert len(data) < limit
    return data


async def read_to_end(stream):
    """What comes until the server closes, however it does."""
    data = b""
    with trio.fail_after(PATIENCE):
        try:
            while piece := await stream.receive_some():
                data += piece
        except trio.BrokenResourceError:
            pass
    return data


async def get(port, path, head=b""):
    """The body of an answer on a connection of its own."""
    stream = await connect(port)
    async with stream:
        await stream.send_all(b"GET %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n%s\r\n" % (path, head))
        head, _, body = (await read_to_end(stream)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        return body


async def eventually(check, seconds=PATIENCE):
    """Ask again and again until `check()` gives something true; None when the time is over."""
    with trio.move_on_after(seconds):
        while True:
            if found := check():
                return found
            await trio.sleep(0.01)
    return None


@attrs.define
class Child:
    """A server in a process of its own."""

    kind: str
    process: trio.Process
    port: int

    @property
    def patience(self):
        """Seconds to see that a fault holds (stock), or at most until it is over (ours)."""
        return 1.0 if self.kind == "stock" else 5.0

    async def stats(self):
        return json.loads(await get(self.port, b"/stats"))

    async def is_quiet(self, seconds):
        """Do all applications end within this time?"""
        with trio.move_on_after(seconds):
            while True:
                if (await self.stats())["live"] == 0:
                    return True
                await trio.sleep(0.05)
        return False

    async def begin_shutdown(self):
        await self.process.stdin.aclose()

    async def is_over(self, seconds):
        """Does the process end within this time?"""
        with trio.move_on_after(seconds):
            await self.process.wait()
            return True
        return False


@asynccontextmanager
async def child(kind, **options):
    """Run host_app.py; it is killed at the end, whatever became of it."""
    arguments = [item for name, value in options.items() for item in (f"--{name}", str(value))]
    process = await trio.lowlevel.open_process(
        [sys.executable, str(HOST_APP), kind, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        with trio.fail_after(30):
            line = b""
            while not line.endswith(b"\n"):
                piece = await process.stdout.receive_some()
                assert piece, "the child died at its start"
                line += piece
        yield Child(kind, process, int(line))
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stdin.aclose()
            await process.stdout.aclose()


async def both(scenario, **options):
    """What `scenario(child)` finds on the stock class and on ours, side by side."""
    found = {}

    async def one(kind):
        async with child(kind, **options) as host:
            found[kind] = await scenario(host)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(one, "stock")
        nursery.start_soon(one, "ours")
    return found["stock"], found["ours"]


@attrs.define
class Served:
    """A server in this process, with what its application left behind."""

    port: int
    connection_class: type
    stop: trio.Event
    over: trio.Event


@asynccontextmanager
async def served(app, *, stall=30.0, on_context=None, limits=None, tls=None, **liveness):
    """Serve `app(scope, receive, send)` with our class; shut down at the end, within its time."""
    settings = Settings(bind="127.0.0.1:0", stall=StallSettings(seconds=stall), liveness=LivenessSettings(**liveness))
    if limits is not None:
        settings = attrs.evolve(settings, limits=limits)
    connection_class = make_connection_class(settings, on_context=on_context)
    stop, over = trio.Event(), trio.Event()
    keys = {} if tls is None else {"certfile": tls, "keyfile": tls}

    async def with_lifespan(scope, receive, send):
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def run(task_status):
        async with trio.open_nursery() as nursery:
            run = partial(serve, with_lifespan, settings, shutdown_trigger=stop.wait)
            task_status.started(await nursery.start(partial(run, connection_class=connection_class, **keys)))
        over.set()

    async with trio.open_nursery() as nursery:
        (url,) = await nursery.start(run)
        try:
            yield Served(int(url.rpartition(":")[2]), connection_class, stop, over)
        finally:
            stop.set()
            with trio.CancelScope(shield=True), trio.fail_after(PATIENCE):
                await over.wait()
            nursery.cancel_scope.cancel()
