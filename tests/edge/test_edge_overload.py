"""All requests under way share one number of bytes: what is beyond it is refused, and told when to come back."""

import json

import attrs
import pytest
import trio
from edge_service import PATIENCE_S, open_service, until

from trio_swarm.settings import KIB, Limits, Settings

SETTINGS = Settings(limits=attrs.evolve(Limits(), bodies_bytes=650 * KIB))
BEGINNING = b"\x01\xff" + (95 * KIB).to_bytes(8, "big") + bytes(4) + b"x" * (95 * KIB)  # of a message
HOLD = {"stream": "room/one", "method": "wait", "arguments": [60]}


@pytest.fixture(params=[False, True], ids=["direct", "asgi"])
async def service(request):
    async with open_service(SETTINGS, foreign=request.param) as service:
        yield service


def held(service):
    return service.edge.requests.statistics().held


async def half_a_body(service, size):
    """A client that promises more than it sends."""
    stream = await service.connect()
    head = f"POST /v1/room/one/publish HTTP/1.1\r\nHost: x\r\nContent-Length: {size + 1}\r\n\r\n"
    await stream.send_all(head.encode() + b"x" * size)
    return stream


async def test_bodies(service):
    """With half bodies in hand the next is answered 503 with a time to come back; afterwards nothing is held."""
    async with await half_a_body(service, 500 * KIB):
        await until(lambda: held(service) >= 500 * KIB)
        body = json.dumps({"data": "x" * (90 * KIB)}).encode()
        answer = await service.ask("POST", "/v1/room/one/publish", body, content_type="application/json")
        assert answer.code == (503, "busy")
        assert {key.lower(): value for key, value in answer.headers.items()}[b"retry-after"] == b"1"
        small = await service.ask("POST", "/v1/room/one/publish", b'{"data":1}', content_type="application/json")
        assert small.status == 200
    await until(lambda: held(service) == 0)


async def test_what_is_made_of_a_body_counts(service):
    """A body that is large only when it is decoded is refused by what it would be."""
    body = b"[" + b"[]," * 10_000 + b"[]]"
    answer = await service.ask("POST", "/v1/room/one/call/count", body, content_type="application/json")
    assert answer.code == (503, "busy")
    assert held(service) == 0


async def test_messages_in_line(service):
    """A WebSocket's request beyond it is answered `busy`, in its place, and the connection goes on."""
    async with service.ws() as ws:
        await ws.send(type="call", messageId="held", data=HOLD | {"arguments": [0.5]})
        for number in range(4):
            data = {"stream": "room/one", "method": "say", "arguments": ["topic", "x" * (90 * KIB)]}
            await ws.send(type="call", messageId=str(number), data=data)
        answers = [await ws.next() for _ in range(5)]
        assert [answer["messageId"] for answer in answers] == ["held", "0", "1", "2", "3"]
        assert [answer.get("code") for answer in answers] == [None, None, None, None, "busy"]
        assert (await ws.ask(type="ping", messageId="p"))["type"] == "pong"
    await until(lambda: held(service) == 0)


async def test_what_is_done_is_not_held(service):
    """A request gives back what it held when the next begins, not when the line is empty."""
    async with service.ws() as ws:
        for number in range(3):
            data = {"stream": "room/one", "method": "say", "arguments": ["topic", "x" * (90 * KIB)]}
            await ws.send(type="call", messageId=str(number), data=data)
        await ws.send(type="call", messageId="last", data=HOLD)
        for _ in range(3):
            await ws.next()
        await until(lambda: 0 < held(service) < 10 * KIB)
    await until(lambda: held(service) == 0)


async def test_messages_that_are_not_whole():
    """What has come of an unfinished message counts, and goes with its connection."""
    async with open_service(SETTINGS) as service:
        streams = []
        for _ in range(6):
            streams.append(await upgraded(service))
            await streams[-1].send_all(BEGINNING)
        await until(lambda: held(service) >= 6 * 95 * KIB)
        more = await upgraded(service)
        await more.send_all(BEGINNING)
        with trio.fail_after(PATIENCE_S):
            received = b""
            while b"\x88" not in received:
                received += await more.receive_some(4096)
        assert received[-2:] == (1013).to_bytes(2, "big")
        for stream in [*streams, more]:
            await trio.aclose_forcefully(stream)
        await until(lambda: held(service) == 0)


async def upgraded(service):
    stream = await trio.open_tcp_stream("127.0.0.1", service.port)
    await stream.send_all(
        b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    received = b""
    while b"\r\n\r\n" not in received:
        received += await stream.receive_some(4096)
    assert received.startswith(b"HTTP/1.1 101")
    return stream
