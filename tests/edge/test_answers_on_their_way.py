"""Large answers that clients have not taken share one number of bytes, whatever they answer and however they go."""

import json
import socket
import struct

import attrs
import pytest
import trio
from edge_service import client_context, open_service, until
from test_edge_endings import UPGRADE
from test_edge_websocket import masked

from trio_swarm.journal.event import Draft
from trio_swarm.objects.durable import DurableObject, exposed
from trio_swarm.settings import Limits, Settings

LARGE = 1_000_000
ROOM_FOR = 4 * LARGE  # four histories, or one of what weighs most: a WebSocket's answer through a host
BEYOND = 5
HELD = 0.9 * LARGE
SETTINGS = Settings(limits=attrs.evolve(Limits(), answers_bytes=ROOM_FOR))
LATE = trio.Event()
CALL = {"type": "call", "messageId": "1", "data": {"stream": "big/a", "method": "make", "arguments": [LARGE]}}


class Big(DurableObject):
    publishable = True

    async def start(self):
        self.made = 0

    async def snapshot(self):
        if self.id == "late":
            await LATE.wait()
        return "x" * LARGE

    @exposed
    async def make(self, size: int):
        self.made += 1
        return "x" * size

    @exposed
    async def count(self):
        return self.made


class Dim(DurableObject):
    """With a small snapshot."""

    async def snapshot(self):
        return "little"


def get(path):
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def post(path, body):
    fields = f"Host: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"POST {path} HTTP/1.1\r\n{fields}\r\n\r\n{body}".encode()


def said(message):
    return masked(1, json.dumps(message).encode())


SUBSCRIBE = {"type": "subscribe", "messageId": "1", "data": {"stream": "big/a"}}
BATCH = {"type": "batch_subscribe", "messageId": "1", "data": {"subscriptions": [{"stream": "big/a"}]}}
ASKED = {
    "history": (b"", get("/v1/big/a/history?since=0-0&limit=1000")),
    "result": (b"", post("/v1/big/a/call/make", f"[{LARGE}]")),
    "greeting": (b"", get("/v1/big/a/events")),
    "envelope": (b"", get("/v1/big/a/events?envelope")),
    "websocket_result": (UPGRADE, said(CALL)),
    "websocket_snapshot": (UPGRADE, said(SUBSCRIBE)),
    "websocket_batch": (UPGRADE, said(BATCH)),
}


@pytest.fixture(params=["direct", "asgi", "tls"])
async def service(request):
    async with open_service(
        SETTINGS, kinds=(Big, Dim), foreign=request.param == "asgi", tls=request.param == "tls"
    ) as service:
        for _ in range(11):
            await service.swarm.get(Big, "a").publish([Draft(b'"%b"' % (b"x" * 90_000))])
        yield service


@pytest.fixture(params=ASKED)
def asked(request):
    return ASKED[request.param]


def answers(service):
    return service.edge.answers.statistics()


async def stopped(service, asked):
    """A client that asks, and takes nothing; it leaves with a reset."""
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await sock.connect((service.host, service.port))
    stream = trio.SocketStream(sock)
    if service.tls:
        stream = trio.SSLStream(stream, client_context(), server_hostname="localhost")
    upgrade, request = asked
    if upgrade:
        await stream.send_all(upgrade)
        had = b""
        while b"\r\n\r\n" not in had:
            had += await stream.receive_some(1024)
    await stream.send_all(request)
    return stream


async def test_none_is_held_beyond_it(service, asked):
    """What stopped readers are owed never is more than the limit; the rest is refused; it all comes back at a reset."""
    streams = []
    for _ in range(BEYOND):
        before = answers(service)
        streams.append(await stopped(service, asked))
        await until(lambda before=before: answers(service) != before)
    told = answers(service)
    assert HELD < told.held <= ROOM_FOR
    assert told.refused > 0
    for stream in streams:
        await trio.aclose_forcefully(stream)
    await until(lambda: answers(service).held == 0)


async def test_who_reads_gives_back(service, asked):
    """A client that takes its answer holds nothing any more, though it stays."""
    stream = await stopped(service, asked)
    await until(lambda: answers(service).held > HELD)
    with trio.fail_after(10):
        while answers(service).held:
            assert await stream.receive_some(1 << 20)
    await trio.aclose_forcefully(stream)


async def test_a_snapshot_that_many_wait_for_is_held_once(monkeypatch):
    """More stopped readers than there would be room for share one snapshot's bytes: none is refused."""
    monkeypatch.setitem(globals(), "LATE", trio.Event())
    async with open_service(SETTINGS, kinds=(Big,)) as service:
        request = (b"", get("/v1/big/late/events"))
        streams = [await stopped(service, request)]
        streams += [await stopped(service, request) for _ in range(2 * BEYOND)]
        await until(lambda: len(service.edge.tree()) == len(streams))
        LATE.set()
        await until(lambda: service.edge.statistics().blocked == len(streams))
        assert HELD < answers(service).held < 2.1 * LARGE  # of the first, and of all the others
        assert answers(service).refused == 0
        for stream in streams[1:]:
            await trio.aclose_forcefully(stream)
        await until(lambda: len(service.edge.tree()) == 1)
        assert HELD < answers(service).held < 1.1 * LARGE
        await trio.aclose_forcefully(streams[0])
        await until(lambda: answers(service).held == 0)


async def test_what_the_refused_are_told(service):
    """History and streams are `busy`, with a time to come back; a call says that it was made; small answers come."""
    service.edge.answers.limit = LARGE // 2
    for path in ("history?since=0-0&limit=1000", "events"):
        answer = await service.ask("GET", f"/v1/big/a/{path}")
        assert answer.code == (503, "busy")
        assert {key.lower(): value for key, value in answer.headers.items()}[b"retry-after"] == b"1"
    body = b"[%d]" % LARGE
    answer = await service.ask("POST", "/v1/big/a/call/make", body, content_type="application/json")
    assert answer.code == (500, "already_done")
    async with service.ws() as ws:
        assert "busy" == (await ws.ask(**SUBSCRIBE))["code"]
        assert [[]] == [each["streams"] for each in service.edge.tree()]
        assert "already_done" == (await ws.ask(**CALL | {"messageId": "2"}))["code"]
        assert "already_done" == (await ws.ask(**CALL | {"messageId": "2"}))["code"]
        subscriptions = [{"stream": stream} for stream in ("big/a", "dim/a", "big/a")]
        told = await ws.ask(type="batch_subscribe", messageId="3", data={"subscriptions": subscriptions})
        assert ["error", "subscribed", "error"] == [each["type"] for each in told["data"]["results"]]
        service.edge.answers.limit = 0
        counted = await ws.ask(type="call", messageId="4", data={"stream": "big/a", "method": "count"})
        assert {"result": 2} == counted["data"]  # one by each way: the message that was repeated was not done again
        assert "little" == (await ws.subscribe("dim/b"))["snapshot"]
    assert 200 == (await service.ask("GET", "/v1/dim/a/history")).status
    assert answers(service).held == 0
    await until(lambda: service.edge.tree() == [])
