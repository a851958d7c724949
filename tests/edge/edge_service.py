"""The whole service in a test: a swarm, the edge, and the hardened worker on a real socket; and clients that read its
bytes.

The clients share no code with the service: HTTP is read by h11, server-sent events by a few lines here, WebSockets by
trio-websocket.
"""

import gc
import json
import os
import random
import ssl
import sys
import weakref
from contextlib import asynccontextmanager, contextmanager, nullcontext
from pathlib import Path

import attrs
import h11
import msgspec
import structlog
import trio
import trio_websocket
from wsproto.utilities import LocalProtocolError

from trio_swarm.edge.app import Edge
from trio_swarm.edge.listeners import open_listeners
from trio_swarm.edge.telling import Telling
from trio_swarm.edge.worker import KEY, Connection, make_connection_class, serve
from trio_swarm.journal.event import Draft
from trio_swarm.objects.durable import DurableObject, exposed
from trio_swarm.runtime import Swarm, open_swarm
from trio_swarm.settings import LivenessSettings, Settings, StallSettings

CERTIFICATE = str(Path(__file__).with_name("localhost.pem"))  # its own authority, for `localhost`
PATIENCE_S = 60.0  # a test that waits longer than this for its service has failed


class Room(DurableObject):
    """Publishable, without a snapshot."""

    publishable = True

    async def start(self):
        self.doubled = 0

    @exposed
    async def say(self, topic, data, count: int = 1):
        for _ in range(count):
            self.publish(topic, data)
        return count

    @exposed
    async def burst(self, first: int, count: int):
        for n in range(first, first + count):
            self.publish_raw("", b'{"n":%d,"pad":"%b"}' % (n, b"x" * 120))

    @exposed
    async def double(self, number: int):
        self.doubled += 1
        return number * 2

    @exposed
    async def count(self):
        return self.doubled

    @exposed
    async def fail(self):
        raise ValueError("the author's secret")

    @exposed
    async def wait(self, seconds: float):
        await trio.sleep(seconds)
        return "waited"

    @exposed
    async def unsayable(self):
        return object()

    async def inside(self): ...


class Board(DurableObject):
    """With a snapshot."""

    async def start(self):
        self.state = {"value": 0}

    async def snapshot(self):
        if self.id == "broken":
            raise ValueError("no picture today")
        return self.state

    @exposed
    async def put(self, value):
        self.state = {"value": value}
        self.publish("", value)


class Strict(DurableObject):
    """Readers that fall behind are sent away."""

    lag_policy = "disconnect"
    publishable = True


class Known(DurableObject):
    """Some exist."""

    @classmethod
    def exists(cls, id):
        return id == "one"


KINDS = (Room, Board, Strict, Known)


def client_context(*protocols):
    """TLS as a client has it, that offers these protocols."""
    context = ssl.create_default_context(cafile=CERTIFICATE)
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


@attrs.define
class Service:
    host: str
    port: int
    edge: Edge
    swarm: Swarm
    shutdown: trio.Event
    over: trio.Event
    tls: bool = False
    connection_class: type[Connection] | None = None

    @property
    def host_field(self):
        return f"[{self.host}]" if ":" in self.host else self.host

    async def connect(self):
        stream = await trio.open_tcp_stream(self.host, self.port)
        if not self.tls:
            return stream
        return trio.SSLStream(stream, client_context(), server_hostname="localhost", https_compatible=True)

    @property
    def url(self):
        return f"http://{self.host}:{self.port}"

    def room(self, id="a"):
        return self.swarm.get(Room, id)

    async def publish(self, data, topic="", id="a", kind="room"):
        """Publish one event; gives its id."""
        published = await self.swarm.get(kind, id).publish([Draft(msgspec.json.encode(data), topic)])
        return str(published.id)

    @asynccontextmanager
    async def sse(self, path, **headers):
        async with self.http() as http:
            await http.request("GET", path, **headers)
            response = await http.response()
            assert response.status_code == 200, await http.body()
            yield Sse(http, response)

    @asynccontextmanager
    async def http(self):
        async with await self.connect() as stream:
            yield Http(stream, self.host_field)

    @asynccontextmanager
    async def ws(self, path="/v1/ws"):
        # `open_websocket_url` leaves its socket open where the server closes first.
        closing = False
        try:
            async with await self.connect() as stream, trio.open_nursery() as nursery:
                try:
                    ws = await trio_websocket.wrap_client_stream(nursery, stream, self.host_field, path)
                    yield Ws(ws)
                    closing = True
                    with trio.move_on_after(1):
                        await ws.aclose()
                finally:
                    nursery.cancel_scope.cancel()
        except* LocalProtocolError:
            if not closing:  # trio-websocket answers a ping that comes behind its own close, and fails
                raise

    async def ask(self, method, path, body=b"", **headers):
        """One request on a connection of its own; gives status, headers and JSON."""
        async with self.http() as http:
            await http.request(method, path, body, **headers)
            response = await http.response()
            content = await http.body()
            return Answer(response.status_code, dict(response.headers), content)


@attrs.define
class Answer:
    status: int
    headers: dict
    content: bytes

    @property
    def json(self):
        return json.loads(self.content)

    @property
    def code(self):
        return self.status, self.json["error"]["code"]


class Http:
    """One connection, read by h11."""

    def __init__(self, stream, host):
        self.stream = stream
        self.host = host
        self.h11 = h11.Connection(h11.CLIENT)

    async def request(self, method, path, body=b"", **headers):
        fields = [("host", self.host), *((k.replace("_", "-"), v) for k, v in headers.items())]
        if body or method == "POST":
            fields.append(("content-length", str(len(body))))
        data = self.h11.send(h11.Request(method=method, target=path, headers=fields))
        if body:
            data += self.h11.send(h11.Data(data=body))
        await self.stream.send_all(data + self.h11.send(h11.EndOfMessage()))

    async def event(self):
        with trio.fail_after(PATIENCE_S):
            while (event := self.h11.next_event()) is h11.NEED_DATA:
                self.h11.receive_data(await self.stream.receive_some(65536))
            return event

    async def response(self):
        response = await self.event()
        while isinstance(response, h11.InformationalResponse):
            response = await self.event()
        return response

    async def body(self):
        parts = []
        while isinstance(event := await self.event(), h11.Data):
            parts.append(bytes(event.data))
        assert isinstance(event, h11.EndOfMessage), event
        return b"".join(parts)


@attrs.frozen
class SseEvent:
    event: str
    data: object
    id: str | None


class Sse:
    """Events of one response, with what a browser would not show: the id of each, bare ids, `retry`."""

    def __init__(self, http, response):
        self.http = http
        self.headers = {k.decode(): v.decode() for k, v in response.headers}
        self.buffer = b""
        self.heartbeats = []
        self.retry = None

    async def block(self):
        while b"\n\n" not in self.buffer:
            event = await self.http.event()
            if isinstance(event, h11.EndOfMessage):
                assert self.buffer == b""
                return None
            assert isinstance(event, h11.Data), event
            self.buffer += event.data
        block, self.buffer = self.buffer.split(b"\n\n", 1)
        return [tuple(line.split(": ", 1)) for line in block.decode().split("\n")]

    async def next(self):
        """The next event; None at the end of the response."""
        while (fields := await self.block()) is not None:
            named = dict(fields)
            if "retry" in named:
                self.retry = int(named["retry"])
            elif "data" not in named:
                self.heartbeats.append(named["id"])
            else:
                data = "\n".join(value for name, value in fields if name == "data")
                return SseEvent(named.get("event", "message"), json.loads(data), named.get("id"))
        return None

    async def data(self, count):
        """The data of the next so many events, which are ordinary ones."""
        events = [await self.next() for _ in range(count)]
        assert {event.event for event in events} <= {"message"}, events
        return [event.data for event in events]


class Ws:
    """One WebSocket that speaks JSON."""

    def __init__(self, ws):
        self.ws = ws

    async def send(self, **message):
        await self.ws.send_message(json.dumps(message))

    async def next(self):
        with trio.fail_after(PATIENCE_S):
            return json.loads(await self.ws.get_message())

    async def ask(self, **message):
        await self.send(**message)
        return await self.next()

    async def subscribe(self, stream, **data):
        answer = await self.ask(type="subscribe", data={"stream": stream, **data})
        assert answer["type"] == "subscribed", answer
        return answer["data"]

    async def closed(self):
        """Read until the close; gives code, reason, and what came before."""
        came = []
        try:
            while True:
                came.append(await self.next())
        except trio_websocket.ConnectionClosed as closed:
            return closed.reason.code, closed.reason.reason, came


def quick(**liveness):
    """Settings with the times that a test needs short."""
    return Settings(liveness=LivenessSettings(**liveness))


def portable(app):
    """The application as it is on a host that is not ours: it finds no connection."""

    async def without(scope, receive, send):
        if "state" in scope:
            scope["state"].pop(KEY, None)
        await app(scope, receive, send)

    return without


@contextmanager
def uncollected(connection_class):
    """A connection's memory goes with it, without Python's collector: at the end no cycle holds one."""
    met, init = weakref.WeakSet(), connection_class.__init__

    def meet(self, *args):
        init(self, *args)
        met.add(self)

    connection_class.__init__ = meet
    gc.disable()
    try:
        yield
        assert [] == [f"ended: {connection.ended}" for connection in met]
    finally:
        gc.enable()


@asynccontextmanager
async def open_service(
    settings=None,
    *,
    kinds=KINDS,
    foreign=False,
    pages=(),
    wrap=lambda app: app,
    host=None,
    tls=False,
    log=None,
    storage=None,
    collector=True,
):
    """A service on a port of its own; it is shut down at the end, which must leave nothing.

    Without Python's `collector` no connection may be left either, as it would be in a cycle. `foreign` hides the
    host's connection from the edge; `host` are the host's settings where they differ.
    """
    settings = settings or Settings()
    host_settings = host or settings
    async with (
        open_swarm(kinds, settings=settings, storage=storage, rng=random.Random(1)) as swarm,
        trio.open_nursery() as nursery,
    ):
        edge = Edge(swarm.directory, settings, pages, rng=random.Random(1))
        telling = Telling(edge, swarm.sources, settings, log)
        nursery.start_soon(telling.run)
        await nursery.start(edge.run)
        listeners = open_listeners("127.0.0.1:0", stall_s=host_settings.stall.seconds)
        host, port = listeners[0].getsockname()
        shutdown, over = trio.Event(), trio.Event()
        connection_class = make_connection_class(
            host_settings, on_context=edge.on_context, readability=edge.readability
        )
        telling.on_connections(connection_class.statistics)

        async def lifespan(scope, receive, send):
            if scope["type"] == "lifespan":
                await receive()
                await send({"type": "lifespan.startup.complete"})
                await receive()
                await send({"type": "lifespan.shutdown.complete"})
            else:
                await wrap(portable(edge) if foreign else edge)(scope, receive, send)

        async def run(task_status):
            await serve(
                lifespan,
                host_settings,
                sockets=listeners,
                certfile=CERTIFICATE if tls else None,
                keyfile=CERTIFICATE if tls else None,
                connection_class=connection_class,
                shutdown_trigger=shutdown.wait,
                task_status=task_status,
            )
            over.set()

        with nullcontext() if collector else uncollected(connection_class):
            await nursery.start(run)
            yield Service(host, port, edge, swarm, shutdown, over, tls, connection_class)
            shutdown.set()
            with trio.fail_after(PATIENCE_S):
                await over.wait()
        assert len(edge.clients) == 0
        nursery.cancel_scope.cancel()


async def main(kind):
    """Serve in a process of its own until standard input closes: `edge_service.py direct|asgi`. Prints the port."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    settings = Settings(
        stall=StallSettings(seconds=1.0),
        liveness=LivenessSettings(dead_s=300.0),  # its clients answer no pings
    )
    async with open_service(settings, foreign=kind == "asgi") as service:
        print(service.port, flush=True)
        stdin = trio.lowlevel.FdStream(os.dup(0))
        async with stdin:
            while await stdin.receive_some():
                pass


async def until(condition):
    """Wait until something is so."""
    with trio.fail_after(PATIENCE_S):
        while True:
            if condition():
                return
            await trio.sleep(0.005)


if __name__ == "__main__":
    trio.run(main, sys.argv[1])
