"""WebSockets over real sockets, read by trio-websocket: `docs/protocol.md`, "WebSocket"."""

import contextlib
import os
import struct

import attrs
import pytest
import trio
from edge_service import PATIENCE_S, Board, open_service, quick, until

from trio_swarm.edge.websocket import MOST_WAITING
from trio_swarm.settings import MIB, JournalSettings, Settings

FOREIGN = pytest.mark.parametrize("foreign", [False, True], ids=["direct", "asgi"])


def limited(**limits):
    return attrs.evolve(Settings(), limits=attrs.evolve(Settings().limits, **limits))


@FOREIGN
async def test_subscribe_then_events(foreign):
    """The answer tells where the stream goes on; then every event, with its place."""
    async with open_service(foreign=foreign) as service, service.ws() as ws:
        head = await service.publish("before")
        answer = await ws.ask(type="subscribe", messageId="m1", data={"stream": "room/a"})
        assert {
            "type": "subscribed", "messageId": "m1", "data": {"stream": "room/a", "id": head, "recovered": False},
        } == answer  # fmt: skip
        id_ = await service.publish({"n": 1}, "t")
        assert {
            "type": "event", "stream": "room/a", "topic": "t", "event": "message", "id": id_, "offset": 1,
            "data": {"n": 1},
        } == await ws.next()  # fmt: skip


@FOREIGN
async def test_since_recovers_or_tells_the_gap(foreign):
    """`recovered` and the replay, or `gap` and what is kept behind it."""
    async with open_service(foreign=foreign) as service, service.ws() as ws, service.ws() as late:
        ids = [await service.publish(n) for n in range(4)]
        assert {"stream": "room/a", "id": ids[1], "recovered": True} == await ws.subscribe("room/a", since=ids[1])
        assert [2, 3] == [(await ws.next())["data"] for _ in range(2)]
        answer = await late.subscribe("room/a", since="1-1")
        begin = answer["gap"]["before"]
        gap = {"after": "1-1", "before": begin}
        assert {"stream": "room/a", "id": begin, "recovered": False, "gap": gap} == answer
        assert list(zip(ids, range(4), strict=True)) == [
            (event["id"], event["data"]) for event in [await late.next() for _ in range(4)]
        ]


@FOREIGN
async def test_a_snapshot_comes_with_the_answer(foreign):
    """Without `since`, for a class that has one; a snapshot that fails is told after the answer."""
    async with open_service(foreign=foreign) as service, service.ws() as ws:
        board = service.swarm.get(Board, "b")
        await board.put(3)
        answer = await ws.subscribe("board/b")
        assert {"value": 3} == answer["snapshot"]
        await board.put(4)
        assert (await ws.next())["data"] == 4
        await service.swarm.get(Board, "broken").put(1)
        assert "snapshot" not in await ws.subscribe("board/broken")
        error = await ws.next()
        assert ("error", "snapshot_failed") == (error["type"], error["code"])


@FOREIGN
async def test_topics_are_added_and_taken_away(foreign):
    """A second subscribe adds topics, whose replay comes whole before their live events; unsubscribing takes away."""
    async with open_service(foreign=foreign) as service, service.ws() as ws:
        zero = await service.publish(0, "x")
        await service.publish(1, "y")
        await ws.subscribe("room/a", topics=["x"])
        await service.publish(2, "x")
        assert (await ws.next())["data"] == 2
        assert (await ws.subscribe("room/a", topics=["y"], since=zero))["recovered"]
        await service.publish(3, "y")
        assert [1, 3] == [(await ws.next())["data"] for _ in range(2)]
        answer = await ws.ask(type="unsubscribe", messageId="u", data={"stream": "room/a", "topics": ["x"]})
        assert {"type": "unsubscribed", "messageId": "u", "data": {"stream": "room/a"}} == answer
        await service.publish(4, "x")
        await service.publish(5, "y")
        assert (await ws.next())["data"] == 5
        assert (await ws.ask(type="unsubscribe", data={"stream": "room/a"}))["type"] == "unsubscribed"
        assert service.swarm.streams.get("room/a").subscribers == 0
        assert (await ws.ask(type="unsubscribe", data={"stream": "room/a"}))["type"] == "unsubscribed"


async def test_no_topic_can_be_taken_from_all():
    """Who reads all topics names none."""
    async with open_service() as service, service.ws() as ws:
        await ws.subscribe("room/a")
        answer = await ws.ask(type="unsubscribe", data={"stream": "room/a", "topics": ["x"]})
        assert ("error", "bad_request") == (answer["type"], answer["code"])


@FOREIGN
async def test_batches_are_answered_in_order(foreign):
    """One answer, each as it would be alone; one that fails stops no other; events come after it."""
    async with open_service(foreign=foreign) as service, service.ws() as ws:
        for n in range(3):
            await service.publish(n, id="b")
        wanted = [
            {"stream": "room/b", "since": "0-0"},
            {"stream": "known/two"},
            {"stream": "room/c", "since": "nonsense"},
            {"stream": "room/c", "topics": ["x"]},
            {"stream": "room/c", "topics": ["y"]},
        ]
        answer = await ws.ask(type="batch_subscribe", messageId="b1", data={"subscriptions": wanted})
        results = answer["data"]["results"]
        assert ("batch_subscribed", "b1") == (answer["type"], answer["messageId"])
        assert ["subscribed", "error", "error", "subscribed", "subscribed"] == [each["type"] for each in results]
        assert ["unknown_object", "invalid_position"] == [each["code"] for each in results[1:3]]
        assert [0, 1, 2] == [(await ws.next())["data"] for _ in range(3)]
        await service.publish("y", "y", id="c")
        assert (await ws.next())["data"] == "y"
        ended = [{"stream": "room/b"}, {"stream": "room/c"}]
        answer = await ws.ask(type="batch_unsubscribe", messageId="b2", data={"subscriptions": ended})
        assert ("batch_unsubscribed", "b2") == (answer["type"], answer["messageId"])
        assert ["unsubscribed"] * 2 == [each["type"] for each in answer["data"]["results"]]
        assert await ws.ask(type="ping") == {"type": "pong"}


@FOREIGN
async def test_publish_call_and_ping(foreign):
    """Each with its answer, and the messageId where there is one."""
    async with open_service(foreign=foreign) as service, service.ws() as ws:
        answer = await ws.ask(type="publish", messageId="p", data={"stream": "room/a", "topic": "t", "data": [1]})
        assert ("published", "p", 1) == (answer["type"], answer["messageId"], answer["data"]["count"])
        history = (await service.ask("GET", "/v1/room/a/history")).json["events"]
        assert [(answer["data"]["id"], "t", [1])] == [(e["id"], e["topic"], e["data"]) for e in history]
        call = {"stream": "room/a", "method": "double", "arguments": [21]}
        assert await ws.ask(type="call", data=call) == {"type": "result", "data": {"result": 42}}
        call = {"stream": "room/a", "method": "double", "arguments": {"number": 2}}
        assert (await ws.ask(type="call", messageId="c", data=call))["data"] == {"result": 4}
        assert await ws.ask(type="ping", messageId="q") == {"type": "pong", "messageId": "q"}
        await ws.send(type="pong")
        assert await ws.ask(type="ping", timestamp=5) == {"type": "pong"}


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"type": "subscribe", "data": {"stream": "nothing/a"}}, "unknown_kind"),
        ({"type": "subscribe", "data": {"stream": "known/two"}}, "unknown_object"),
        ({"type": "subscribe", "data": {"stream": "room/a", "since": "x"}}, "invalid_position"),
        (
            {"type": "subscribe", "data": {"stream": "room/a", "topics": [str(n) for n in range(101)]}},
            "too_many_topics",
        ),
        ({"type": "publish", "data": {"stream": "board/a", "data": 1}}, "not_publishable"),
        ({"type": "publish", "data": {"stream": "room/a", "data": "x" * 50_000}}, "too_large"),
        ({"type": "call", "data": {"stream": "room/a", "method": "inside"}}, "unknown_method"),
        ({"type": "call", "data": {"stream": "room/a", "method": "double"}}, "invalid_arguments"),
        ({"type": "call", "data": {"stream": "room/a", "method": "fail"}}, "object_error"),
        ({"type": "call", "data": {"stream": "room/a", "method": "unsayable"}}, "object_error"),
        ({"type": "subscribe", "data": {"stream": "room"}}, "invalid_name"),
        ({"type": "subscribe"}, "invalid_message"),
        ({"type": "sing"}, "unknown_type"),
        ({}, "invalid_message"),
    ],
)
async def test_what_cannot_be_is_an_error_with_its_code(message, code):
    """The messageId is in the answer, the author's words are not, and the connection goes on."""
    async with open_service(limited(event_bytes=40_000)) as service, service.ws() as ws:
        answer = await ws.ask(**message, messageId="m")
        assert ("error", "m", code) == (answer["type"], answer["messageId"], answer["code"])
        assert "secret" not in answer["message"]
        assert await ws.ask(type="ping") == {"type": "pong"}


async def test_a_repeated_message_is_answered_again_and_not_done_again():
    """By messageId, in this connection; an error is no answer to be kept."""
    async with open_service() as service, service.ws() as ws, service.ws() as other:
        call = {"type": "call", "messageId": "1", "data": {"stream": "room/a", "method": "double", "arguments": [3]}}
        first = await ws.ask(**call)
        assert first == await ws.ask(**call)
        assert await service.room().count() == 1
        assert first == await other.ask(**call)
        assert await service.room().count() == 2
        bad = {"type": "subscribe", "messageId": "2", "data": {"stream": "known/two"}}
        assert (await ws.ask(**bad))["type"] == "error"
        good = {"type": "subscribe", "messageId": "2", "data": {"stream": "known/one"}}
        assert (await ws.ask(**good))["type"] == "subscribed"
        publish = {"type": "publish", "data": {"stream": "room/a", "data": 1, "messageId": "mine"}}
        assert await ws.ask(**publish) == await other.ask(**publish)
        big = {"stream": "room/a", "method": "say", "arguments": ["", "x"]}
        assert (await ws.ask(type="call", messageId="3", data=big))["data"] == {"result": 1}


async def test_an_answer_too_large_to_keep_is_not_done_again_either():
    """The repeat is told so."""
    async with open_service() as service, service.ws() as ws:
        for n in range(3):
            await service.publish("x" * 9_000, str(n))
        board = service.swarm.get(Board, "b")
        await board.put("x" * 9_000)
        message = {"type": "subscribe", "messageId": "1", "data": {"stream": "board/b"}}
        assert (await ws.ask(**message))["type"] == "subscribed"
        assert ("error", "already_done") == ((again := await ws.ask(**message))["type"], again["code"])


async def test_a_slow_call_stops_neither_reading_nor_order():
    """While an object works, pings are answered and requests wait in line."""
    async with open_service() as service, service.ws() as ws:
        call = {"stream": "room/slow", "method": "wait", "arguments": [0.2]}
        await ws.send(type="call", messageId="slow", data=call)
        for n in range(20):
            await ws.send(type="publish", messageId=str(n), data={"stream": "room/a", "data": n})
        await ws.send(type="ping", messageId="ping")
        assert (await ws.next())["messageId"] == "ping"
        assert ["slow", *map(str, range(20))] == [(await ws.next())["messageId"] for _ in range(21)]


async def test_a_client_that_asks_without_end_is_closed_with_4503():
    """The line behind a slow request has a limit."""
    async with open_service() as service, service.ws() as ws:
        call = {"stream": "room/slow", "method": "wait", "arguments": [20]}
        for _ in range(MOST_WAITING + 2):
            await ws.send(type="call", data=call)
        assert (4503, []) == (await ws.closed())[::2]


async def test_a_client_that_leaves_ends_its_request():
    """The close is seen while an object works for it."""
    async with open_service() as service:
        async with service.ws() as ws:
            await ws.subscribe("room/a")
            await ws.send(type="call", data={"stream": "room/slow", "method": "wait", "arguments": [20]})
            await until(lambda: (s := service.room("slow").statistics()) is not None and s.turn)
        await until(lambda: len(service.edge.clients) == 0)
        assert service.swarm.streams.get("room/a").subscribers == 0


@FOREIGN
async def test_the_tenth_bad_message_closes_with_4500(foreign):
    """Nine are answered."""
    async with open_service(foreign=foreign) as service, service.ws() as ws:
        for _ in range(10):
            await ws.ws.send_message("nonsense")
        code, _, came = await ws.closed()
        assert (4500, ["invalid_json"] * 9) == (code, [each["code"] for each in came])


@FOREIGN
async def test_binary_is_1003(foreign):
    """Messages are text."""
    async with open_service(foreign=foreign) as service, service.ws() as ws:
        await ws.ws.send_message(b"{}")
        assert (await ws.closed())[0] == 1003


async def raw_websocket(service):
    """A WebSocket written by hand, for what a well-bred client does not send."""
    stream = await trio.open_tcp_stream(service.host, service.port)
    await stream.send_all(
        b"GET /v1/ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += await stream.receive_some()
    assert head.startswith(b"HTTP/1.1 101 ")
    return stream


def masked(opcode, payload, *, fin=True):
    key = os.urandom(4)
    size = len(payload)
    head = bytes([(0x80 if fin else 0) | opcode])
    if size < 126:
        head += bytes([0x80 | size])
    elif size < 65_536:
        head += bytes([0x80 | 126]) + struct.pack("!H", size)
    else:
        head += bytes([0x80 | 127]) + struct.pack("!Q", size)
    mask = (key * (size // 4 + 1))[:size]
    return head + key + (int.from_bytes(payload) ^ int.from_bytes(mask)).to_bytes(size)


async def closing_code(stream):
    data = b""
    with trio.fail_after(PATIENCE_S), contextlib.suppress(trio.BrokenResourceError):
        while part := await stream.receive_some():
            data = data[-1000:] + part
    at = data.rindex(b"\x88")
    return struct.unpack("!H", data[at + 2 : at + 4])[0]


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ([(1, b"\xff\xfe")], 1007),
        ([(1, b"x" * 2001)], 1009),
        ([(1, "é".encode() * 1001)], 1009),
        ([(1, b"x" * 1500, False), (0, b"x" * 1500)], 1009),
        ([(2, b"\x00")], 1003),
        ([(3, b"")], 1002),
    ],
)
async def test_frames_that_may_not_be(frames, code):
    """UTF-8, size (in bytes, over all fragments), kind: each with its close code, and the client is gone."""
    async with open_service(limited(message_bytes=2000)) as service:
        async with await raw_websocket(service) as stream:
            for opcode, payload, *rest in frames:
                await stream.send_all(masked(opcode, payload, fin=not rest))
            assert await closing_code(stream) == code
        await until(lambda: len(service.edge.clients) == 0)


async def test_streams_on_one_connection_are_limited():
    """One more than `streams_per_connection` is an error; a stream it has already is not one more."""
    async with open_service(limited(streams_per_connection=2)) as service, service.ws() as ws:
        for id_ in ("a", "b", "a"):
            await ws.subscribe(f"room/{id_}")
        answer = await ws.ask(type="subscribe", data={"stream": "room/c"})
        assert ("error", "too_many_streams") == (answer["type"], answer["code"])
        await ws.ask(type="unsubscribe", data={"stream": "room/b"})
        await ws.subscribe("room/c")


async def test_connections_are_limited():
    """One more than `connections` is closed with 4503."""
    async with open_service(limited(connections=1)) as service, service.ws() as one, service.ws() as two:
        assert await one.ask(type="ping") == {"type": "pong"}
        assert (await two.closed())[0] == 4503


async def test_another_path_is_refused():
    """The handshake has a status."""
    async with open_service() as service:
        for path, status, code in [("/v1/nothing", 404, "not_found"), ("/v1/room/%FF/events", 400, "invalid_name")]:
            upgrade = {"sec_websocket_version": "13", "sec_websocket_key": "dGhlIHNhbXBsZSBub25jZQ=="}
            answer = await service.ask("GET", path, **upgrade, upgrade="websocket", connection="upgrade")
            assert (status, code) == answer.code


async def test_answers_and_events_of_any_size_share_the_socket():
    """Frames of events, answers and pongs never land inside each other, also when the socket is full."""
    settings = attrs.evolve(Settings(), journal=JournalSettings(bytes=16 * MIB))
    async with open_service(settings) as service, service.ws() as ws:
        await ws.subscribe("room/a")
        count = 60

        async def speak():
            for n in range(count):
                await service.room().say("", [n, "x" * (90_000 if n % 3 else 10)])

        async def ask():
            for n in range(count):
                await ws.send(type="ping", messageId=str(n))
                await ws.send(type="call", messageId=f"c{n}", data={"stream": "room/b", "method": "count"})

        events, pongs, results = [], [], []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            nursery.start_soon(ask)
            while len(events) + len(pongs) + len(results) < 3 * count:
                message = await ws.next()
                if message["type"] == "event":
                    events.append(message["data"][0])
                elif message["type"] == "pong":
                    pongs.append(int(message["messageId"]))
                else:
                    results.append(int(message["messageId"][1:]))
        assert list(range(count)) == events
        assert list(range(count)) == sorted(pongs)
        assert list(range(count)) == results


@FOREIGN
async def test_a_client_that_leaves_is_gone_from_everywhere(foreign):
    """Registry and subscriptions end with the client's task."""
    async with open_service(foreign=foreign) as service:
        async with service.ws() as ws:
            for id_ in "abc":
                await ws.subscribe(f"room/{id_}")
            [described] = service.edge.tree()
            assert ["room/a", "room/b", "room/c"] == described["streams"]
        await until(lambda: len(service.edge.clients) == 0)
        assert [0, 0, 0] == [service.swarm.streams.get(f"room/{id_}").subscribers for id_ in "abc"]


async def test_an_idle_client_holds_no_nursery():
    """An idle client costs one task, and the host's reader, also after it was busy."""
    async with open_service(quick()) as service:
        await service.room().count()
        await service.ask("GET", "/healthz")  # the first connection shows the edge its host, which is watched from then
        await trio.testing.wait_all_tasks_blocked(0.05)
        before = trio.lowlevel.current_statistics().tasks_living
        async with await raw_websocket(service) as stream:
            await stream.send_all(masked(1, b'{"type":"subscribe","data":{"stream":"room/a"}}'))
            await stream.send_all(masked(1, b'{"type":"call","data":{"stream":"room/a","method":"count"}}'))
            with trio.fail_after(PATIENCE_S):
                while b'"result"' not in await stream.receive_some():
                    pass
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert trio.lowlevel.current_statistics().tasks_living - before == 2
