"""Readers that stopped, among honest ones, in front of a service in a process of its own whose memory is watched."""

import re
import socket
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil
import pytest
import trio
from edge_service import PATIENCE_S, Service
from test_edge_endings import EVENTS, deaf, deaf_websocket
from test_edge_websocket import masked, raw_websocket

STALLED = 50
HONEST = 5
BURST = 500
MIB = 1024 * 1024
_NUMBER = re.compile(rb'"n":(\d+),')


class Honest:
    """Reads as fast as it can, and keeps no more than the number it waits for."""

    def __init__(self, stream):
        self.stream = stream
        self.expected = 0
        self.wrong = []

    async def run(self):
        rest = b""
        while part := await self.stream.receive_some(1 << 20):
            data = rest + part
            numbers = _NUMBER.findall(data)
            end = data.rfind(b",")
            rest = data[end + 1 :] if end >= 0 else data
            for number in map(int, numbers):
                if number != self.expected:
                    self.wrong.append((self.expected, number))
                self.expected = number + 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["direct", "asgi"])
async def test_fifty_stalled_readers_cost_the_honest_nothing_and_no_memory(kind):
    """The honest miss nothing, the stalled are gone within the stall limit, 100,000 events cost no more than 10,000."""
    async with AsyncExitStack() as stack:
        process = await stack.enter_async_context(service_process(kind))
        service = Service("127.0.0.1", int(await process.stdout.receive_some()), None, None, None, None)
        stalled = []
        for n in range(STALLED):
            if n % 2:
                stream = await deaf_websocket(service, "room")
            else:
                stream = await deaf(service, EVENTS % b"room")
            stalled.append(await stack.enter_async_context(stream))
        honest = []
        for n in range(HONEST):
            if n < 2 and kind == "direct":  # through ASGI a message costs 0.2 ms: 100,000 of them take too long here
                stream = await raw_websocket(service)
                await stream.send_all(masked(1, b'{"type":"subscribe","data":{"stream":"room/a"}}'))
            else:
                stream = await trio.open_tcp_stream(service.host, service.port)
                await stream.send_all(EVENTS % b"room")
            await stack.enter_async_context(stream)
            greeted = b""
            while b'"subscribed"' not in greeted and b"hello" not in greeted:
                greeted += await stream.receive_some()
            honest.append(Honest(stream))
        nursery = await stack.enter_async_context(trio.open_nursery())
        stack.callback(nursery.cancel_scope.cancel)
        for each in honest:
            nursery.start_soon(each.run)
        sizes = {}
        with trio.fail_after(2 * PATIENCE_S):
            async with service.http() as http:
                for first in range(0, 100_000, BURST):
                    call = b"[%d,%d]" % (first, BURST)
                    await http.request("POST", "/v1/room/a/call/burst", call, content_type="application/json")
                    assert (await http.response()).status_code == 200
                    await http.body()
                    http.h11.start_next_cycle()
                    while any(each.expected < first + BURST for each in honest):
                        assert [[]] * HONEST == [each.wrong[:3] for each in honest]
                        await trio.sleep(0.001)
                    sizes[first + BURST] = psutil.Process(process.pid).memory_info().rss
            await trio.sleep(1.5)  # the stall limit of 1 s, and a quarter
            gone = [stream for stream in stalled if await is_cut_off(stream)]
        nursery.cancel_scope.cancel()
    assert [[]] * HONEST == [each.wrong for each in honest]
    assert STALLED == len(gone)
    assert sizes[100_000] - sizes[10_000] < 10 * MIB, sizes
    assert process.returncode == 0


@asynccontextmanager
async def service_process(argument, *, program="edge_service.py", stderr=None):
    """A program of this folder in a process of its own, which must end by itself when it is told."""
    command = [sys.executable, str(Path(__file__).with_name(program)), argument]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr)
    try:
        yield process
        await process.stdin.aclose()
        with trio.fail_after(PATIENCE_S):
            await process.wait()
    finally:
        with trio.CancelScope(shield=True):
            if process.returncode is None:
                process.kill()
            await process.wait()
            await process.stdin.aclose()
            await process.stdout.aclose()


async def is_cut_off(stream):
    """Whether the server has reset the connection; a live one would give its bytes and then wait."""
    try:
        with trio.move_on_after(0.5):
            while await stream.receive_some(1 << 16):
                pass
            return True
    except trio.BrokenResourceError:
        return True
    return bool(stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
