"""Inside somebody else's application: the files of `docs/hosting.md`, served as it says; and middleware in between."""

import re
import signal
from pathlib import Path

import pytest
from edge_service import open_service
from hosting_rig import JSON, hypercorn
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware

PAGE = Path(__file__).parents[2] / "docs" / "hosting.md"
FILE = re.compile(r"^```python\n(# (\w+\.py)\n.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture
def files(tmp_path):
    """The page's files in a folder."""
    for text, name in FILE.findall(PAGE.read_text()):
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("application", "prefix"), [("live:live", ""), ("starlette_site:app", "/live"), ("quart_site:app", "/live")]
)
async def test_the_applications_of_the_page(files, application, prefix):
    """Streams, WebSockets and calls below the prefix, the host's own pages and 404s beside it, and a polite end."""
    retry = {"TRIO_SWARM_LIVENESS__RETRY_MIN_S": "2", "TRIO_SWARM_LIVENESS__RETRY_MAX_S": "2"}
    log = files / "log"
    async with hypercorn(log, application, "--bind", "127.0.0.1:0", cwd=files, path=[files], **retry) as host:
        service = host.service()
        base = f"{prefix}/v1/counter"
        assert {"result": 0} == (await service.ask("POST", f"{base}/visits/call/add", b"[0]", **JSON)).json
        async with service.sse(f"{base}/visits/events") as sse, service.ws(f"{prefix}/v1/ws") as ws:
            await sse.next()
            await ws.subscribe("counter/visits")
            if prefix:
                assert b"visit 1" == (await service.ask("GET", "/")).content
            else:
                await service.ask("POST", f"{base}/visits/call/add", b"[1]", **JSON)
            assert [1] == await sse.data(1)
            assert 1 == (await ws.next())["data"]
            called = await ws.ask(type="call", data={"stream": "counter/a%2Fb", "method": "add", "arguments": [5]})
            assert {"result": 5} == called["data"]
            history = await service.ask("GET", f"{base}/a%252Fb/history")
            assert [5] == [event["data"] for event in history.json["events"]]
            assert (404, "not_found") == (await service.ask("GET", f"{prefix}/v1/nothing")).code
            assert (404, "unknown_kind") == (await service.ask("GET", f"{prefix}/v1/counted/a/history")).code
            if prefix:
                hosts_own = await service.ask("GET", "/v1/counter/visits/history")
                assert 404 == hosts_own.status
                assert b'"error"' not in hosts_own.content
            host.process.send_signal(signal.SIGTERM)
            assert await sse.next() is None
            assert 2000 == sse.retry
            assert (1001, "shutting down; retry_ms=2000", []) == await ws.closed()
        assert 0 == await host.wait()
        assert "host_connections_kept" not in host.log


class Passing(BaseHTTPMiddleware):
    def __init__(self, app):
        super().__init__(app, dispatch=lambda request, call_next: call_next(request))


class Announcing:
    """Announces an encoding (that changes nothing) and passes all on at once."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def announce(message):
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"content-encoding", b"identity")]}
            await send(message)

        await self.app(scope, receive, announce)


class Holding:
    """Holds the head back until the first piece of the body, as what may have to change it does."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        head = []

        async def hold(message):
            if message["type"] == "http.response.start":
                head.append(message)
                return
            while head:
                await send(head.pop())
            await send(message)

        await self.app(scope, receive, hold)


class Watching:
    """Passes all on at once."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def watch(message):
            await send(message)

        scope["scheme"] = scope["scheme"].replace("http", "https")  # as behind a proxy that says so
        await self.app(scope, receive, watch)


@pytest.mark.parametrize(
    ("middleware", "direct"),
    [
        (Watching, {True}),
        (Announcing, {False}),
        (Holding, {False}),
        (Passing, {False}),
        (GZipMiddleware, {True, False}),
    ],
)
async def test_a_middleware_that_has_to_see_a_stream_sees_all_of_it(middleware, direct):
    """One that holds back the head of the answer, or announces an encoding, gets the events too, and in their order."""
    async with open_service(wrap=middleware) as service:
        await service.publish("first")
        async with service.sse("/v1/room/a/events?since=0-0", accept_encoding="gzip") as sse, service.ws() as ws:
            assert "hello" == (await sse.next()).event
            await ws.subscribe("room/a")
            ways = {client["transport"]: client["direct"] for client in service.edge.tree()}
            assert ways["websocket"]
            assert ways["sse"] in direct
            await service.room().say("", "then", count=3)
            assert ["first", "then", "then", "then"] == await sse.data(4)
            assert ["then"] * 3 == [(await ws.next())["data"] for _ in range(3)]
            service.shutdown.set()
            assert await sse.next() is None
            assert sse.retry
