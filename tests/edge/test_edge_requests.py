"""Publish, call, history, health, and what is refused: `docs/protocol.md`, "HTTP"."""

import json

import attrs
import pytest
import structlog
import trio
from edge_service import PATIENCE_S, open_service, quick, until
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from worker_rig import read_until

from trio_swarm.objects.durable import DurableObject, exposed
from trio_swarm.settings import LivenessSettings, Settings

JSON = {"content_type": "application/json"}
NDJSON = {"content_type": "application/x-ndjson; charset=utf-8"}


def body(value):
    return json.dumps(value).encode()


async def test_publish_one_event():
    """The answer is its id; readers get its data byte for byte, its type as `event`."""
    async with open_service() as service, service.sse("/v1/room/a/events") as sse:
        await sse.next()
        text = b'{"type":"goal","topic":"t","data":{"a" :1.50,"b":"\\u00e9"}}'
        answer = await service.ask("POST", "/v1/room/a/publish", text, **JSON)
        event = await sse.next()
        assert (200, {"id": event.id, "count": 1}) == (answer.status, answer.json)
        assert ("goal", {"a": 1.5, "b": "é"}) == (event.event, event.data)
        history = await service.ask("GET", "/v1/room/a/history")
        assert b'"data":{"a" :1.50,"b":"\\u00e9"}' in history.content


async def test_publish_many_events_in_one_turn():
    """NDJSON: one answer, the last id, in order; empty lines and CRLF do not count."""
    async with open_service() as service, service.sse("/v1/room/a/events") as sse:
        await sse.next()
        lines = b'{"data":1}\r\n\n{"data":2,"topic":"x"}\n{"data":3}'
        answer = await service.ask("POST", "/v1/room/a/publish", lines, **NDJSON)
        events = [await sse.next() for _ in range(3)]
        assert [1, 2, 3] == [event.data for event in events]
        assert {"id": events[-1].id, "count": 3} == answer.json


@pytest.mark.parametrize(
    ("line", "status", "code", "words"),
    [
        (b'{"data":1', 400, "invalid_event", "line 3"),
        (b'{"topic":"x"}', 400, "invalid_event", "line 3"),
        (b'{"data":1,"type":"gap"}', 400, "invalid_event", "line 3"),
        (b'{"data":1,"topic":"a,b"}', 400, "invalid_event", "line 3"),
        (b'{"data":"\xff"}', 400, "invalid_event", "line 3"),
        (b'{"data":"' + b"x" * 102_400 + b'"}', 413, "too_large", "line 3"),
    ],
)
async def test_one_bad_line_is_named_and_nothing_of_the_request_is_done(line, status, code, words):
    """All or nothing."""
    async with open_service() as service:
        answer = await service.ask("POST", "/v1/room/a/publish", b'{"data":1}\n{"data":2}\n' + line, **NDJSON)
        assert (status, code) == answer.code
        assert words in answer.json["error"]["message"]
        assert (await service.ask("GET", "/v1/room/a/history")).json["events"] == []


@pytest.mark.parametrize("how", ["body", "header", "lines"])
async def test_a_repeated_publish_is_answered_with_the_first_id(how):
    """By `messageId`, by `Idempotency-Key`, and by the ids of all lines together."""
    async with open_service() as service:

        async def publish(name):
            if how == "body":
                return await service.ask("POST", "/v1/room/a/publish", body({"data": 1, "messageId": name}), **JSON)
            if how == "header":
                return await service.ask("POST", "/v1/room/a/publish", body({"data": 1}), **JSON, idempotency_key=name)
            lines = b'{"data":1,"messageId":"same"}\n' + body({"data": 2, "messageId": name})
            return await service.ask("POST", "/v1/room/a/publish", lines, **NDJSON)

        first, again, other = await publish("one"), await publish("one"), await publish("two")
        assert first.json == again.json
        assert first.json["id"] != other.json["id"]
        events = (await service.ask("GET", "/v1/room/a/history")).json["events"]
        assert len(events) == (4 if how == "lines" else 2)


@pytest.mark.parametrize(
    ("path", "content", "headers", "status", "code"),
    [
        ("/v1/room/a/publish", b'{"data":1}', {}, 415, "unsupported_media_type"),
        ("/v1/room/a/publish", b'{"data":1}', {"content_type": "text/plain"}, 415, "unsupported_media_type"),
        ("/v1/room/a/publish", b"{}", JSON, 400, "invalid_message"),
        ("/v1/room/a/publish", b"nonsense", JSON, 400, "invalid_json"),
        ("/v1/room/a/publish", b'{"data":"\xff"}', JSON, 400, "invalid_json"),
        ("/v1/room/a/publish", b'{"data":' + b"[" * 100_000, JSON, 400, "invalid_json"),
        ("/v1/room/a/publish", b"\n\n", NDJSON, 400, "invalid_event"),
        ("/v1/room/a/publish", b'{"data":1}', {**JSON, "idempotency_key": "x" * 201}, 400, "invalid_name"),
        ("/v1/board/a/publish", b'{"data":1}', JSON, 403, "not_publishable"),
        ("/v1/nothing/a/publish", b'{"data":1}', JSON, 404, "unknown_kind"),
        ("/v1/known/two/call/x", b"", {}, 404, "unknown_method"),
        ("/v1/room/a/call/nothing", b"", {}, 404, "unknown_method"),
        ("/v1/room/a/call/inside", b"", {}, 404, "unknown_method"),
        ("/v1/room/a/call/start", b"", {}, 404, "unknown_method"),
        ("/v1/room/a/call/double", b"[1,2,3]", JSON, 400, "invalid_arguments"),
        ("/v1/room/a/call/double", b"7", JSON, 400, "invalid_arguments"),
        ("/v1/room/a/call/double", b"[1", JSON, 400, "invalid_arguments"),
        ("/v1/room/a/call/double", b"[1]", {}, 415, "unsupported_media_type"),
        ("/v1/room/%FF/call/double", b"[1]", JSON, 400, "invalid_name"),
        ("/v1/room/a%00b/publish", b'{"data":1}', JSON, 400, "invalid_name"),
        ("/v1/ROOM/a/publish", b'{"data":1}', JSON, 400, "invalid_name"),
        ("/v1/room/" + "x" * 201 + "/publish", b'{"data":1}', JSON, 400, "invalid_name"),
        ("/v1/room/a/events", b"", {}, 405, "method_not_allowed"),
        ("/v1/room/a/nothing", b"", {}, 404, "not_found"),
        ("/v1/room/a/b/publish", b"", {}, 404, "not_found"),
        ("/v1/room/a/publish/", b"", {}, 404, "not_found"),
        ("/nothing", b"", {}, 404, "not_found"),
    ],
)
async def test_what_is_refused(path, content, headers, status, code):
    """Each refusal has its status and code."""
    async with open_service() as service:
        answer = await service.ask("POST", path, content, **headers)
        assert (status, code) == answer.code


async def test_other_methods_are_told_which_are_allowed():
    """405 names them."""
    async with open_service() as service:
        answer = await service.ask("GET", "/v1/room/a/publish")
        assert ((405, "method_not_allowed"), b"POST") == (answer.code, answer.headers[b"allow"])
        assert (await service.ask("DELETE", "/healthz")).code == (405, "method_not_allowed")
        assert (await service.ask("GET", "/v1/ws")).code == (426, "upgrade_required")


async def test_a_call_takes_arguments_by_place_or_name():
    """An array, an object, or nothing."""
    async with open_service() as service:
        assert (await service.ask("POST", "/v1/room/a/call/double", b"[4]", **JSON)).json == {"result": 8}
        assert (await service.ask("POST", "/v1/room/a/call/double", b'{"number":5}', **JSON)).json == {"result": 10}
        assert (await service.ask("POST", "/v1/room/a/call/count")).json == {"result": 2}


@pytest.mark.parametrize("method", ["fail", "unsayable"])
async def test_an_exception_is_500_without_its_text(method):
    """What an author's code raises stays inside."""
    async with open_service() as service:
        answer = await service.ask("POST", f"/v1/room/a/call/{method}")
        assert answer.status == 500
        assert b"secret" not in answer.content
        assert answer.json["error"]["code"] == "object_error"
        assert (await service.ask("POST", "/v1/room/a/call/count")).status == 200


async def test_an_answer_without_json_is_the_turn_s_failure():
    """Nothing of the turn is published or stored, by HTTP and by WebSocket; the log names object and method."""

    class Vault(DurableObject):
        @exposed
        async def open(self):
            self.storage.put("open", True)
            self.publish("door", "open")
            return object()

        @exposed
        async def is_open(self):
            return await self.storage.get("open", False)

    with structlog.testing.capture_logs() as logs:
        async with open_service(kinds=[Vault]) as service, service.ws() as ws:
            assert (await service.ask("POST", "/v1/vault/a/call/open")).code == (500, "object_error")
            answer = await ws.ask(type="call", data={"stream": "vault/a", "method": "open"})
            assert ("error", "object_error") == (answer["type"], answer["code"])
            assert (await service.ask("GET", "/v1/vault/a/history")).json["events"] == []
            assert (await service.ask("POST", "/v1/vault/a/call/is_open")).json == {"result": False}
    failed = [(entry["object"], entry["method"]) for entry in logs if entry["event"] == "call_failed"]
    assert [("vault/a", "open")] * 2 == failed


async def test_a_caller_that_leaves_before_its_turn_is_not_served():
    """Its call is withdrawn, after the time that one who only half-closed has: the turn never runs."""
    async with open_service(quick(closing_s=0.05)) as service, service.http() as busy:
        await busy.request("POST", "/v1/room/a/call/wait", b"[0.3]", **JSON)
        await until(lambda: (room := service.room().statistics()) is not None and room.turn)
        async with service.http() as http:
            await http.request("POST", "/v1/room/a/call/double", b"[1]", **JSON)
            await until(lambda: service.room().statistics().mailbox.call == 1)
        await until(lambda: service.room().statistics().mailbox.call == 0)
        assert (await busy.response()).status_code == 200
        assert await service.room().count() == 0


async def test_history():
    """Ascending, by topics, from `since`, at most `limit`; what is gone is said to be."""
    async with open_service() as service:
        ids = [await service.publish(n, "even" if n % 2 == 0 else "odd") for n in range(6)]
        whole = (await service.ask("GET", "/v1/room/a/history")).json
        assert [0, 1, 2, 3, 4, 5] == [event["data"] for event in whole["events"]]
        assert {"id": ids[1], "topic": "odd", "event": "message", "offset": 1, "data": 1} == whole["events"][1]
        newest = (await service.ask("GET", "/v1/room/a/history?limit=2")).json
        assert ([4, 5], False) == ([event["data"] for event in newest["events"]], newest["gap"])
        after = (await service.ask("GET", f"/v1/room/a/history?topics=odd&since={ids[1]}&limit=1")).json
        assert ([3], False) == ([event["data"] for event in after["events"]], after["gap"])
        assert (await service.ask("GET", "/v1/room/a/history?since=1-1")).json["gap"] is True
        for limit in ("0", "-1", "x", "1001", "9" * 30):
            assert (await service.ask("GET", f"/v1/room/a/history?limit={limit}")).code == (400, "bad_request")
        head = await service.ask("GET", "/v1/room/never/history")
        assert {"events": [], "gap": False} == head.json


async def test_a_body_over_the_limit_is_413():
    """Said by its head before it is read, or as soon as it is seen."""
    settings = attrs.evolve(quick(), limits=attrs.evolve(quick().limits, body_bytes=1000))
    async with open_service(settings) as service:
        assert (await service.ask("POST", "/v1/room/a/publish", b"x" * 1001, **JSON)).code == (413, "too_large")
        stream = await trio.open_tcp_stream(service.host, service.port)
        async with stream:
            await stream.send_all(
                b"POST /v1/room/a/publish HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
                b"400\r\n" + b"x" * 1024 + b"\r\n"
            )
            with trio.fail_after(PATIENCE_S):
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 413 ")


async def test_a_body_that_does_not_come_is_408():
    """`body_s` is a limit for the whole body."""
    async with open_service(Settings(liveness=LivenessSettings(body_s=0.2))) as service:
        stream = await trio.open_tcp_stream(service.host, service.port)
        async with stream:
            await stream.send_all(b"POST /v1/room/a/publish HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{")
            with trio.fail_after(PATIENCE_S):
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 408 ")


async def test_too_many_objects_is_429():
    """With Retry-After; objects that live are still served."""
    settings = attrs.evolve(quick(), limits=attrs.evolve(quick().limits, objects_per_kind=1))
    async with open_service(settings) as service, service.sse("/v1/room/a/events") as sse:
        await sse.next()
        answer = await service.ask("GET", "/v1/room/b/events")
        assert ((429, "too_many_objects"), b"5") == (answer.code, answer.headers[b"retry-after"])
        assert (await service.ask("POST", "/v1/room/a/call/count")).status == 200


async def test_an_id_is_one_segment_whatever_is_in_it():
    """Percent-encoded: a space, a plus, an umlaut, a percent sign; a slash in it does not lead elsewhere."""
    async with open_service() as service:
        assert (await service.ask("GET", "/v1/room/x%2Fevents")).code == (404, "not_found")
        assert (await service.ask("GET", "/v1/room/x%2Fy/events")).code == (400, "invalid_name")
        for path, id_ in [("y%20z", "y z"), ("a+b", "a+b"), ("%C3%BC", "ü"), ("%2525", "%25")]:
            answer = await service.ask("POST", f"/v1/room/{path}/publish", b'{"data":1}', **JSON)
            assert (200, path) == (answer.status, path)
            assert service.swarm.streams.get(f"room/{id_}").journal.head == 1


async def test_health():
    """The loop turns; new clients are taken, until the service drains."""
    async with open_service() as service:
        assert (await service.ask("GET", "/healthz")).json == {"status": "ok"}
        assert (await service.ask("HEAD", "/healthz")).content == b""
        assert (await service.ask("GET", "/readyz")).status == 200
        await service.edge.drain()
        answer = await service.ask("GET", "/readyz")
        assert (503, b"1") == (answer.status, answer.headers[b"retry-after"])
        assert (await service.ask("GET", "/healthz")).status == 200
        assert (await service.ask("GET", "/v1/room/a/events")).code == (503, "shutting_down")


async def test_pages_are_the_callers():
    """Other routes are Starlette's; what they raise is answered by the same table."""

    async def page(_request):
        return PlainTextResponse("a page")

    async def teapot(_request):
        raise HTTPException(418, "short and stout")

    async def broken(_request):
        raise ValueError("secret")

    pages = [Route("/", page), Route("/teapot", teapot), Route("/broken", broken)]
    async with open_service(pages=pages) as service:
        assert (await service.ask("GET", "/")).content == b"a page"
        assert (await service.ask("GET", "/teapot")).code == (418, "im_a_teapot")
        answer = await service.ask("GET", "/broken")
        assert ((500, "internal"), False) == (answer.code, b"secret" in answer.content)


async def test_mounted_below_a_prefix():
    """`root_path` is taken off, decoded or not; the id keeps its encoding."""

    def mount(app):
        async def mounted(scope, receive, send):
            await app({**scope, "root_path": "/live ü"}, receive, send)

        return mounted

    async with open_service(wrap=mount) as service:
        answer = await service.ask("POST", "/live%20%C3%BC/v1/room/x%20y/publish", b'{"data":1}', **JSON)
        assert answer.status == 200
        assert service.swarm.streams.get("room/x y").journal.head == 1
        assert (await service.ask("GET", "/live%20%C3%BC/healthz")).status == 200


async def test_a_connection_serves_many_requests():
    """Requests that are answered leave the connection open, errors too."""
    async with open_service() as service, service.http() as http:
        for path, status in [("/healthz", 200), ("/nothing", 404), ("/v1/known/two/events", 404), ("/readyz", 200)]:
            await http.request("GET", path)
            assert (await http.response()).status_code == status
            await http.body()
            http.h11.start_next_cycle()
        await http.request("GET", "/v1/room/a/events")
        assert (await http.response()).status_code == 200


EXPECTING = (
    b"POST /v1/%b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n"
)


@pytest.mark.parametrize("foreign", [False, True], ids=["direct", "asgi"])
@pytest.mark.parametrize(
    ("path", "size", "status"),
    [
        (b"room/a/publish", 9_999_999, b"413"),
        (b"room/a/call/double", 9_999_999, b"413"),
        (b"nothing/a/publish", 10, b"404"),
        (b"room/a/history", 10, b"405"),
    ],
)
async def test_a_body_that_nobody_will_read_is_not_asked_for(path, size, status, foreign):
    """A client that waits for 100 is told at once what is wrong."""
    async with open_service(foreign=foreign) as service, await service.connect() as stream:
        await stream.send_all(EXPECTING % (path, size))
        with trio.fail_after(PATIENCE_S):
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize("foreign", [False, True], ids=["direct", "asgi"])
async def test_a_body_that_is_wanted_is_asked_for(foreign):
    """Once; and not where it has come already."""
    asked, wanted = EXPECTING % (b"room/a/publish", 10), b'{"data":1}'
    async with open_service(foreign=foreign) as service, await service.connect() as stream:
        with trio.fail_after(PATIENCE_S):
            for _ in range(2):
                await stream.send_all(asked)
                assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
                await stream.send_all(wanted)
                assert (await read_until(stream, b"}")).startswith(b"HTTP/1.1 200")
            await stream.send_all(asked + wanted)
            assert (await read_until(stream, b"}")).startswith(b"HTTP/1.1 200")
