"""Server-sent events over real sockets: `docs/protocol.md`, "Server-sent events"."""

import httpx
import pytest
import trio
from edge_service import Board, Room, open_service, quick, until

from trio_swarm.wire.sse import SseParser

FOREIGN = pytest.mark.parametrize("foreign", [False, True], ids=["direct", "asgi"])


@FOREIGN
async def test_a_stream_begins_with_hello_and_goes_on_live(foreign):
    """`hello` carries the position; events follow with their ids, types left out when they are the default."""
    async with open_service(foreign=foreign) as service:
        first = await service.publish({"n": 0})
        async with service.sse("/v1/room/a/events") as sse:
            hello = await sse.next()
            assert ("hello", first) == (hello.event, hello.id)
            assert set(hello.data) == {"client"}
            second = await service.publish({"n": 1}, "t")
            event = await sse.next()
            assert ("message", {"n": 1}, second) == (event.event, event.data, event.id)


async def test_the_head_of_a_stream():
    """The headers of a stream are those that proxies and browsers need."""
    async with open_service() as service, service.sse("/v1/room/a/events") as sse:
        assert sse.headers["content-type"] == "text/event-stream"
        assert sse.headers["cache-control"] == "no-cache"
        assert sse.headers["x-accel-buffering"] == "no"
        assert sse.headers["connection"] == "close"


async def test_an_ordinary_http_client_reads_a_stream():
    """httpx reads the chunks that the broadcaster writes past Hypercorn, and the end of the response."""
    async with open_service() as service, httpx.AsyncClient() as client, trio.open_nursery() as nursery:

        async def speak():
            await until(lambda: service.edge.statistics().sse == 1)
            for n in range(3):
                await service.publish(n)
            await until(lambda: service.swarm.streams.get("room/a").behind() == 0)
            await service.edge.drain()

        nursery.start_soon(speak)
        response = await client.get(f"{service.url}/v1/room/a/events")
        parser = SseParser()
        events = parser.feed(response.content)
        assert ["hello", "message", "message", "message"] == [event.type for event in events]
        assert ["0", "1", "2"] == [event.data for event in events[1:]]
        assert 1_000 <= parser.retry_ms <= 10_000


@FOREIGN
async def test_since_gives_what_was_missed_and_last_event_id_wins(foreign):
    """`since` replays what is after it; where both are given, Last-Event-ID counts."""
    async with open_service(foreign=foreign) as service:
        ids = [await service.publish(n) for n in range(5)]
        async with service.sse(f"/v1/room/a/events?since={ids[1]}") as sse:
            hello = await sse.next()
            assert hello.id == ids[1]
            assert await sse.data(3) == [2, 3, 4]
        async with service.sse(f"/v1/room/a/events?since={ids[1]}", last_event_id=ids[3]) as sse:
            await sse.next()
            assert await sse.data(1) == [4]


async def test_since_zero_is_all_that_is_kept_and_never_a_gap():
    """`since=0-0`: the whole journal."""
    async with open_service() as service:
        for n in range(3):
            await service.publish(n)
        async with service.sse("/v1/room/a/events?since=0-0") as sse:
            assert (await sse.next()).event == "hello"
            assert await sse.data(3) == [0, 1, 2]


async def test_a_position_that_is_gone_is_a_gap():
    """Beyond the head, or before this journal: `gap` tells what is not delivered, and where the stream goes on.

    What has been published since this journal began follows, for one that comes from before it.
    """
    async with open_service() as service:
        head = await service.publish(0)
        beyond = "99999999999999-0"
        async with service.sse(f"/v1/room/a/events?since={beyond}") as sse:
            assert (await sse.next()).event == "hello"
            gap = await sse.next()
            assert ("gap", {"after": beyond, "before": head}, head) == (gap.event, gap.data, gap.id)
        async with service.sse("/v1/room/a/events?since=1-1") as sse:
            assert (await sse.next()).event == "hello"
            gap = await sse.next()
            assert ("gap", "1-1", gap.id) == (gap.event, gap.data["after"], gap.data["before"])
            kept = await sse.next()
            assert (head, 0) == (kept.id, kept.data)


async def test_topics_choose():
    """`topics` is a list; an encoded name is decoded; an empty name is the default topic."""
    async with (
        open_service() as service,
        service.sse("/v1/room/a/events?topics=x,%C3%A9+%26") as sse,
        service.sse("/v1/room/a/events?topics=") as plain,
    ):
        await sse.next()
        await plain.next()
        await service.publish(1, "x")
        await service.publish(2, "y")
        await service.publish(3, "é &")
        await service.publish(4)
        assert await sse.data(2) == [1, 3]
        assert await plain.data(1) == [4]


@FOREIGN
async def test_the_envelope_is_what_a_websocket_carries(foreign):
    """`format=envelope`: the same object as over WebSocket, with the event's own type and id beside it."""
    async with open_service(foreign=foreign) as service, service.ws() as ws:
        await ws.subscribe("room/a")
        async with service.sse("/v1/room/a/events?format=envelope") as sse:
            await sse.next()
            await service.room().say("t", {"deep": [1]})
            event = await sse.next()
            assert event.data == await ws.next()
            assert event.data == {
                "type": "event", "stream": "room/a", "topic": "t", "event": "message", "id": event.id, "offset": 1,
                "data": {"deep": [1]},
            }  # fmt: skip


@FOREIGN
async def test_without_since_a_class_with_a_snapshot_gives_it(foreign):
    """The snapshot carries the position it is of; what follows it is everything after."""
    async with open_service(foreign=foreign) as service:
        board = service.swarm.get(Board, "b")
        await board.put(7)
        async with service.sse("/v1/board/b/events") as sse:
            hello, snapshot = await sse.next(), await sse.next()
            assert ("hello", None) == (hello.event, hello.id)
            assert ("snapshot", {"value": 7}) == (snapshot.event, snapshot.data)
            assert snapshot.id is not None
            await board.put(8)
            assert await sse.data(1) == [8]
        async with service.sse("/v1/board/b/events?since=0-0") as sse:
            await sse.next()
            assert await sse.data(2) == [7, 8]


async def test_a_snapshot_that_fails_is_told_and_the_stream_goes_on():
    """`error` with its code, then live."""
    async with open_service() as service:
        board = service.swarm.get(Board, "broken")
        await board.put(0)
        async with service.sse("/v1/board/broken/events") as sse:
            assert (await sse.next()).event == "hello"
            error = await sse.next()
            assert ("error", "snapshot_failed") == (error.event, error.data["code"])
            await board.put(1)
            assert await sse.data(1) == [1]


@FOREIGN
async def test_the_first_reader_of_an_object_gets_its_snapshot_too(foreign):
    """The object starts for this reader, and is asked before the stream begins."""
    async with open_service(foreign=foreign) as service, service.sse("/v1/board/new/events") as sse:
        assert [("hello", "client"), ("snapshot", "value")] == [
            (event.event, *event.data) for event in [await sse.next(), await sse.next()]
        ]


@FOREIGN
async def test_a_silent_stream_has_heartbeats_that_move_its_id_on(foreign):
    """After `ping_s` of silence: a bare id, of everything that has been and was not asked for."""
    async with (
        open_service(quick(ping_s=0.05), foreign=foreign) as service,
        service.sse("/v1/room/a/events?topics=quiet") as sse,
    ):
        await sse.next()
        newest = await service.publish(1, "loud")
        event = None

        async def read():
            nonlocal event
            event = await sse.next()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            await until(lambda: newest in sse.heartbeats)
            await service.publish("x", "quiet")
        assert event.data == "x"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("since=nonsense", "invalid_position"),
        ("since=", "invalid_position"),
        ("since=1-2-3", "invalid_position"),
        ("since=%FF", "invalid_position"),
        ("topics=%FF", "invalid_name"),
        ("topics=a%00b", "invalid_name"),
        ("topics=a%2Cb", "invalid_name"),
        ("topics=" + "x" * 201, "invalid_name"),
        ("topics=" + ",".join(map(str, range(101))), "too_many_topics"),
        ("format=xml", "bad_request"),
    ],
)
async def test_what_cannot_be_is_400(query, code):
    """A malformed query is refused before the stream begins."""
    async with open_service() as service:
        answer = await service.ask("GET", f"/v1/room/a/events?{query}")
        assert (400, code) == answer.code


async def test_a_malformed_last_event_id_is_400_and_an_empty_one_is_none():
    """Last-Event-ID follows the rules of `since`."""
    async with open_service() as service:
        assert (await service.ask("GET", "/v1/room/a/events", last_event_id="x")).code == (400, "invalid_position")
        async with service.sse("/v1/room/a/events", last_event_id="") as sse:
            assert (await sse.next()).event == "hello"


async def test_head_and_http_1_0_get_no_stream():
    """HEAD gets the headers and an end; HTTP/1.0 is refused, for it has no chunks."""
    async with open_service() as service:
        async with service.http() as http:
            await http.request("HEAD", "/v1/room/a/events")
            response = await http.response()
            assert (200, b"text/event-stream") == (response.status_code, dict(response.headers)[b"content-type"])
            assert await http.body() == b""
        async with await trio.open_tcp_stream(service.host, service.port) as stream:
            await stream.send_all(b"GET /v1/room/a/events HTTP/1.0\r\n\r\n")
            answer = b"".join([part async for part in stream])
            assert answer.startswith(b"HTTP/1.1 505 ")
            assert b'"http_version"' in answer
        assert service.edge.statistics().opened == 0


async def test_objects_that_are_not_there():
    """An unknown kind or id is 404; the stream never begins."""
    async with open_service() as service:
        assert (await service.ask("GET", "/v1/nothing/a/events")).code == (404, "unknown_kind")
        assert (await service.ask("GET", "/v1/known/two/events")).code == (404, "unknown_object")
        async with service.sse("/v1/known/one/events") as sse:
            assert (await sse.next()).event == "hello"


async def test_a_client_that_leaves_is_gone_from_everywhere():
    """Registry, subscription and transport end with the client's task."""
    async with open_service() as service:
        async with service.sse("/v1/room/a/events") as sse:
            await sse.next()
            assert service.edge.statistics().sse == 1
            [described] = service.edge.tree()
            assert (["room/a"], True) == (described["streams"], described["direct"])
        await until(lambda: service.edge.statistics().sse == 0)
        assert service.swarm.streams.get("room/a").subscribers == 0


async def test_bytes_behind_a_streams_request_end_it():
    """A second request on a stream's connection is not waited for: the connection is aborted."""
    async with open_service() as service, service.sse("/v1/room/a/events") as sse:
        await sse.next()
        await sse.http.stream.send_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        await until(lambda: service.edge.statistics().sse == 0)


async def test_a_request_sent_together_with_a_streams_ends_it_too():
    """Also when its bytes were there before the stream began."""
    async with open_service() as service, await trio.open_tcp_stream(service.host, service.port) as stream:
        await stream.send_all(
            b"GET /v1/room/a/events HTTP/1.1\r\nhost: x\r\n\r\nGET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
        )
        await until(lambda: service.edge.statistics().opened == 1)
        await until(lambda: service.edge.statistics().sse == 0)


async def test_the_number_of_streams_is_limited():
    """One more than `limits.connections` gets 503 with Retry-After, and room again when one has left."""
    import attrs

    settings = attrs.evolve(quick(), limits=attrs.evolve(quick().limits, connections=2))
    async with open_service(settings) as service:
        async with service.sse("/v1/room/a/events") as one, service.sse("/v1/room/a/events"):
            await one.next()
            answer = await service.ask("GET", "/v1/room/a/events")
            assert (503, "too_many_connections") == answer.code
            assert b"retry-after" in answer.headers
        await until(lambda: service.edge.statistics().sse == 0)
        async with service.sse("/v1/room/a/events") as sse:
            assert (await sse.next()).event == "hello"


async def test_many_events_of_any_size_arrive_once_and_in_order():
    """Ranges, chunks larger than a socket's buffer, and partial writes are seamless."""
    async with open_service() as service, service.sse("/v1/room/a/events") as sse:
        await sse.next()
        sizes = [1, 100, 70_000, 3, 99_000, 5, 40_000, 1, 2]

        async def speak():
            for n, size in enumerate(sizes * 3):
                await service.swarm.get(Room, "a").say("", [n, "x" * size])

        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            got = await sse.data(len(sizes) * 3)
        assert [[n, size] for n, size in enumerate(sizes * 3)] == [[n, len(text)] for n, text in got]


async def test_tls_goes_through_the_host():
    """A stream and a WebSocket over TLS: the portable transport, on our connection class."""
    async with open_service(tls=True) as service, service.sse("/v1/room/a/events") as sse, service.ws() as ws:
        await sse.next()
        await ws.subscribe("room/a")
        assert [False, False] == [client["direct"] for client in service.edge.tree()]
        for n in range(3):
            await service.publish([n, "x" * 90_000])
        assert [0, 1, 2] == [data[0] for data in await sse.data(3)]
        assert [0, 1, 2] == [(await ws.next())["data"][0] for _ in range(3)]
        service.shutdown.set()
        assert await sse.next() is None
        assert sse.retry is not None
        assert (await ws.closed())[0] == 1001
