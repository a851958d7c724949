"""`App.lifespan()`: the swarm of an application that is mounted in another one, and requests beside its time."""

import importlib.metadata
import json

import pytest
from structlog.testing import capture_logs

from trio_swarm import Settings, create_app
from trio_swarm.edge.worker import check_host
from trio_swarm.errors import HostError

HTTP = {"type": "http", "http_version": "1.1", "method": "GET", "path": "/healthz", "raw_path": b"/healthz"}
SCOPE = {**HTTP, "query_string": b"", "headers": [], "root_path": ""}


async def ask(app, **scope):
    """What the application answers."""
    sent = []

    async def receive():
        return {"type": "websocket.connect" if scope.get("type") == "websocket" else "http.request"}

    async def send(message):
        sent.append(message)

    await app({**SCOPE, **scope}, receive, send)
    return sent


async def test_requests_are_answered_while_the_scope_lasts(autojump_clock):
    """Before and after it they are refused in a sentence; that nobody opens it is logged once, and only then."""
    app = create_app(settings=Settings())
    with capture_logs() as logs:
        for _ in range(2):
            head, body = await ask(app)
            assert (503, "not_running") == (head["status"], json.loads(body["body"])["error"]["code"])
        assert [{"type": "websocket.close", "code": 1013}] == await ask(app, type="websocket")
    assert ["lifespan_not_opened"] == [entry["event"] for entry in logs]
    async with app.lifespan():
        assert 200 == (await ask(app))[0]["status"]
        assert app.swarm is not None
    assert app.swarm is None
    with capture_logs() as logs:
        assert 503 == (await ask(app))[0]["status"]
    assert [] == logs


async def test_it_can_be_opened_again_and_not_twice_at_once(autojump_clock):
    """Two hosts that both open it would have two swarms; a host that ends and starts again has one after the other."""
    app = create_app(settings=Settings())
    for _ in range(2):
        async with app.lifespan("a host gives itself, as Starlette does"):
            with pytest.raises(HostError, match="open already"):
                async with app.lifespan():
                    pass
            assert 200 == (await ask(app))[0]["status"]


async def test_what_the_hosts_lifespan_raises_comes_out_as_it_is(autojump_clock):
    """Bare, and the swarm has ended."""
    app = create_app(settings=Settings())
    with pytest.raises(ZeroDivisionError):
        async with app.lifespan():
            _ = 1 / 0
    assert app.swarm is None


def test_a_hypercorn_that_does_not_say_its_release_is_not_known(monkeypatch):
    """Installed without its metadata: our connections stay out."""

    def nothing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", nothing)
    with pytest.raises(HostError, match=r"does not say which release it is; 0\.18 alone is known"):
        check_host()
