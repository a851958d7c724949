"""The access log: a line for each request, stream and WebSocket, of what was asked and never of what was in it."""

import json
import re
import time
from contextlib import asynccontextmanager
from datetime import datetime

import pytest
import trio
from edge_service import Room, open_service, quick, until
from structlog.testing import capture_logs

from trio_swarm.edge.access import PATH_CHARACTERS, AccessLog, Answer
from trio_swarm.edge.telling import Telling
from trio_swarm.health.line_sink import SinkStatistics
from trio_swarm.health.logs import Log
from trio_swarm.settings import Limits, Settings, StallSettings

ON = Settings(access_log=True)


class Kept:
    """A sink in memory."""

    def __init__(self):
        self.raw = []

    def write(self, line):
        self.raw.append(line)

    def statistics(self):
        return SinkStatistics(0, 0, len(self.raw), 0)

    @property
    def lines(self):
        return [json.loads(line) for line in self.raw]


@asynccontextmanager
async def logged(settings=ON, **options):
    kept = Kept()
    async with open_service(settings, log=Log(kept, "json"), **options) as service:
        yield service, kept


def short(line):
    return line["event"], line["method"], line["path"], line["status"]


async def test_requests():
    """Each has its line when it is answered, with what was asked, by whom, and how it went."""
    async with logged() as (service, kept):
        answer = await service.ask("POST", "/v1/room/a/call/double", b"[21]", content_type="application/json")
        await service.ask("GET", "/v1/room/a%20b/history?topics=secret-topic&token=hunter2")
        await service.ask("GET", "/v1/nothing/a/history")
        await service.ask("GET", "/nowhere")
        await service.ask("HEAD", "/healthz")
        await until(lambda: len(kept.raw) == 5)
    assert [short(line) for line in kept.lines] == [
        ("request_answered", "POST", "/v1/room/a/call/double", 200),
        ("request_answered", "GET", "/v1/room/a%20b/history", 200),
        ("request_answered", "GET", "/v1/nothing/a/history", 404),
        ("request_answered", "GET", "/nowhere", 404),
        ("request_answered", "HEAD", "/healthz", 200),
    ]
    line = kept.lines[0]
    assert (len(answer.content), "1.1", "info") == (line["bytes"], line["http"], line["level"])
    assert re.fullmatch(r"127\.0\.0\.1:\d+", line["client"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["timestamp"])
    assert 0 < line["seconds"] < 10
    everything = b"".join(kept.raw)
    assert not re.search(rb"secret|hunter2|token|21\]|\?", everything)
    assert all(raw.endswith(b"\n") and raw.count(b"\n") == 1 for raw in kept.raw)


@pytest.mark.parametrize("foreign", [False, True], ids=["direct", "asgi"])
async def test_streams(foreign):
    """A stream has one line, at its end, with the reason; its bytes only where they are known."""
    async with logged(foreign=foreign) as (service, kept):
        async with service.ws() as ws:
            await ws.subscribe("room/a")
            assert kept.raw == []
        await until(lambda: kept.raw)
        async with service.sse("/v1/room/a/events?topics=secret") as stream:
            await stream.next()
            [client] = service.edge.clients
            service.edge.clients.abort(client, "stalled")
        await until(lambda: len(kept.raw) == 2)
        async with service.sse("/v1/room/b/events") as stream:
            await stream.next()
            [client] = service.edge.clients
            service.edge.dismiss(client, 4001, "silent")
            while await stream.next() is not None:
                pass
        await until(lambda: len(kept.raw) == 3)
        async with service.sse("/v1/room/c/events") as stream:
            await stream.next()
            service.shutdown.set()
            while await stream.next() is not None:
                pass
            await service.over.wait()
    assert [(*short(line), line["reason"]) for line in kept.lines] == [
        ("stream_ended", "GET", "/v1/ws", 101, "client left"),
        ("stream_ended", "GET", "/v1/room/a/events", 200, "stalled"),
        ("stream_ended", "GET", "/v1/room/b/events", 200, "silent"),
        ("stream_ended", "GET", "/v1/room/c/events", 200, "shutting down"),
    ]
    assert [foreign] * 4 == ["bytes" in line and line["bytes"] > 20 for line in kept.lines]


async def test_a_client_that_leaves():
    """Its line is there at once."""
    async with logged() as (service, kept):
        async with service.sse("/v1/room/a/events") as stream:
            await stream.next()
        await until(lambda: kept.raw)
    assert ("stream_ended", "client left") == (kept.lines[0]["event"], kept.lines[0]["reason"])


async def test_a_stalled_reader():
    """One that does not read is cut off, and its line says so."""
    settings = Settings(access_log=True, stall=StallSettings(seconds=0.3), limits=Limits(event_bytes=100_000))
    async with logged(settings) as (service, kept), service.sse("/v1/room/a/events") as stream:
        await stream.next()
        for _ in range(100):
            await service.publish("x" * 90_000)
        await until(lambda: kept.raw)
    assert ("stream_ended", 200, "stalled") == tuple(kept.lines[0][key] for key in ("event", "status", "reason"))


async def test_a_refused_client_is_no_stream():
    """Where there are too many, the line is that of a request."""
    settings = Settings(access_log=True, limits=Limits(connections=1))
    async with logged(settings) as (service, kept), service.sse("/v1/room/a/events") as stream:
        await stream.next()
        assert (await service.ask("GET", "/v1/room/a/events")).status == 503
        await until(lambda: kept.raw)
        assert ("request_answered", "GET", "/v1/room/a/events", 503) == short(kept.lines[0])


async def test_off_by_default():
    """No line without having been asked for, and requests are counted all the same."""
    async with logged(Settings()) as (service, kept):
        await service.ask("GET", "/healthz")
        await until(lambda: service.edge.answered.statistics().counts == {("healthz", 200): 1})
    assert kept.raw == []


@pytest.fixture
def far_from_utc(monkeypatch):
    """A machine whose clock on the wall shows another time than UTC."""
    monkeypatch.setenv("TZ", "XXX-5:30")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.usefixtures("far_from_utc")
async def test_a_path_cannot_leave_its_line(form):
    """Line ends, escape sequences and what is no character are escaped, and a path without end is cut."""
    raw = []

    async def send(message):
        pass

    log = AccessLog(raw.append, form, now_ns=lambda: 1_700_000_000_123_456_789)
    nasty = b"/v1/room/a\r\n2026 forged\x1b[31m\x00\x7f\x9b\xe2\x80\xa8"
    for path in (nasty, b"/" + b"x" * 10_000):
        log.note({"raw_path": path, "path": "", "method": "GET", "http_version": "1.1", "client": None}, Answer(send))
    decoded = {"raw_path": None, "path": "/\ud800\u2028", "method": "GET", "client": ("::1", 1)}
    log.note(decoded, Answer(send))
    text = b"".join(raw).decode()
    assert 3 == len(text.splitlines())
    assert [c for c in text if not c.isprintable() and c != "\n"] == []
    assert len(raw[1]) < PATH_CHARACTERS + 200
    local = f"{datetime.fromtimestamp(1_700_000_000):%H:%M:%S}.123 "  # noqa: DTZ006 - people read their own time of day
    at = {"json": "2023-11-14T22:13:20.123Z", "console": local}[form]
    assert all(at in line for line in text.splitlines())
    assert form == "json" or all(line.startswith(local) for line in text.splitlines())


async def test_counted_lines_about_clients():
    """A thousand who are refused, and those who are ended, make a line a second for each reason, with the number."""
    settings = Settings(limits=Limits(connections=2))
    async with open_service(settings) as service:
        telling = Telling(service.edge, service.swarm.sources, settings)
        telling.on_connections(service.connection_class.statistics)
        with capture_logs() as logs:
            telling.tell()
            async with service.sse("/v1/room/a/events") as one, service.sse("/v1/room/a/events") as two:
                await one.next()
                await two.next()
                for _ in range(30):
                    await service.ask("GET", "/v1/room/a/events")
                for client in service.edge.clients:
                    service.edge.clients.abort(client, "stalled")
                await until(lambda: not len(service.edge.clients))
                telling.tell()
                telling.tell()
    mine = [entry for entry in logs if entry["event"].startswith(("clients_", "connections_"))]
    assert mine == [
        {"event": "clients_refused", "count": 30, "limit": 2, "log_level": "warning"},
        {"event": "clients_ended", "reason": "stalled", "count": 2, "log_level": "info"},
    ]


async def test_a_shutdown_says_what_it_did():
    """It begins with so many clients and ends with what became of them, once."""
    with capture_logs() as logs:
        async with (
            open_service(quick(shutdown_s=1.0), kinds=(Room,)) as service,
            service.sse("/v1/room/a/events") as one,
        ):
            await one.next()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(service.edge.drain)
                while await one.next() is not None:
                    pass
            await service.edge.drain()
    said = [entry for entry in logs if entry["event"].startswith("shutdown_")]
    assert ["shutdown_begun", "shutdown_finished"] == [entry["event"] for entry in said]
    assert (1, 1, 0, 0) == (said[0]["clients"], *(said[1][key] for key in ("clients", "aborted", "left")))
