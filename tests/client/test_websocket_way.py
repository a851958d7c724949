"""Streams over WebSockets that outlive their connections, in virtual time, over memory streams."""

import base64
import hashlib
import json

import attrs
import pytest
import trio
from scripted_service import Refuses, ScriptedService, WebSocket, answers, hangs_up, never_answers, trouble
from test_event_source import FOR_EVER_S, Middle, count, events, lost, refusal

from trio_swarm.client import Connected, Event, Gap, Problem, Snapshot, Status, open_streams
from trio_swarm.errors import ServiceRefused
from trio_swarm.testing import assert_no_leaks
from trio_swarm.wire.messages import Subscription

URL = "ws://service.test/v1/ws"


async def collect(service, *wanted, enough=None, **limits):
    """What happens until `enough` says so, or to the refusal that ends it."""
    happened = []
    subscriptions = [Subscription(*each) if isinstance(each, tuple) else Subscription(each) for each in wanted]
    with assert_no_leaks(), trio.fail_after(FOR_EVER_S):
        async with service.running():
            access = service.access(**limits)
            async with open_streams(URL, subscriptions, access=access, rng=Middle()) as source:
                try:
                    async for happening in source:
                        happened.append(happening)
                        if enough is not None and enough(happened):
                            break
                except ServiceRefused as error:
                    happened.append(error)
            await service.all_closed(70)
    return happened


class Talk(WebSocket):
    """Answers the subscription, says some messages, and ends in a way. `asked` is what was asked."""

    def __init__(self, *messages, results=None, close=None, hold=False, quiet=False, before=()):
        super().__init__(self.run)
        self.messages = messages
        self.results = results
        self.close = close
        self.hold = hold
        self.quiet = quiet
        self.before = before
        self.asked = None
        self.heard = []

    async def run(self, connection):
        request = json.loads(await connection.receive())
        assert request["type"] == "batch_subscribe"
        self.asked = request["data"]["subscriptions"]
        for message in self.before:
            await connection.send(json.dumps(message))
        if not self.quiet:
            results = self.results or [opened(each["stream"]) for each in self.asked]
            await connection.send(
                json.dumps(
                    {"type": "batch_subscribed", "messageId": request["messageId"], "data": {"results": results}}
                )
            )
        for message in self.messages:
            await connection.send(message if isinstance(message, str | bytes) else json.dumps(message))
        if self.hold:
            while True:
                self.heard.append(await connection.receive())
        if self.close is not None:
            await connection.close(*self.close)


def in_one_piece(*messages, close):
    """Messages, where there are any after the subscription was read, and a close: the client has all at once."""
    code, reason = close
    texts = [json.dumps(each).encode() for each in messages]
    goodbye = code.to_bytes(2, "big") + reason.encode()
    frames = [bytes([0x81, 126]) + (200).to_bytes(2, "big") + text.ljust(200) for text in texts]

    async def act(peer):
        key = peer.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()  # noqa: S324 - as the RFC says
        head = "HTTP/1.1 101 Yes\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        answer = f"{head}sec-websocket-accept: {accept}\r\n\r\n".encode()
        if messages:
            await peer.send(answer)
            assert await peer.stream.receive_some(65536)
            answer = b""
        await peer.send(answer + b"".join(frames) + bytes([0x88, len(goodbye)]) + goodbye)
        await peer.until_gone()

    return act


def opened(stream, id="0-0", **more):
    return {"type": "subscribed", "data": {"stream": stream, "id": id, "recovered": False, **more}}


def event(stream, id, data, topic="t", type="message"):
    return {"type": "event", "stream": stream, "topic": topic, "event": type, "id": id, "offset": 1, "data": data}


async def test_each_stream_goes_on_after_its_own_id(autojump_clock):
    """Positions are the streams', and the topics go with them."""
    first = Talk(event("k/a", "5-0", 1), event("k/b", "900-0", 2), close=(1001, "retry_ms=0"))
    second = Talk(event("k/a", "6-0", 3))
    service = ScriptedService(first, second)
    happened = await collect(service, ("k/a", ("t", "u"), "1-0"), "k/b", enough=count(3))
    assert [{"stream": "k/a", "topics": ["t", "u"], "since": "1-0"}, {"stream": "k/b"}] == first.asked
    assert [
        {"stream": "k/a", "topics": ["t", "u"], "since": "5-0"},
        {"stream": "k/b", "since": "900-0"},
    ] == second.asked
    assert ["5-0", "900-0", "6-0"] == [each for each, _ in events(happened)]


async def test_no_event_is_told_twice(autojump_clock):
    """What a service repeats from before the position is left out, stream by stream."""
    first = Talk(event("k/a", "5-0", 1), event("k/a", "6-0", 2), hold=False)
    second = Talk(
        event("k/a", "5-0", 1), event("k/a", "6-0", 2), event("k/a", "7-0", 3), event("k/b", "1-0", 4),
        results=[opened("k/a", "6-0"), opened("k/b", "0-0")],
    )  # fmt: skip
    happened = await collect(ScriptedService(first, second), "k/a", "k/b", enough=count(4))
    assert [("5-0", "1"), ("6-0", "2"), ("7-0", "3"), ("1-0", "4")] == events(happened)


async def test_everything_that_a_service_says(autojump_clock):
    """Openings with gap and snapshot, events, notices; pings are answered; what is new is left alone."""
    talk = Talk(
        event("k/a", "5-0", {"x": 1}, type="shout"),
        {"type": "gap", "stream": "k/a", "id": "8-0", "data": {"after": "5-0", "before": "8-0"}},
        {"type": "snapshot", "stream": "k/a", "id": "8-0", "data": [1]},
        {"type": "status", "stream": "k/a", "data": {"feed": "f", "state": "down", "reason": None}},
        {"type": "error", "stream": "k/a", "code": "snapshot_failed", "message": "none"},
        {"type": "novelty", "data": 1},
        {"type": "ping"},
        event("other/stream", "1-0", 1),
        event("k/a", "9-0", 2),
        results=[opened("k/a", "3-0", gap={"after": "1-0", "before": "3-0"}, snapshot={"s": 1})],
        before=[{"type": "ping"}],
        hold=True,
    )
    happened = await collect(ScriptedService(talk), "k/a", enough=count(2))
    assert [
        Connected(),
        Gap("k/a", "1-0", "3-0"),
        Snapshot("k/a", "3-0", '{"s": 1}'),
        Event("k/a", "5-0", "t", "shout", '{"x": 1}'),
        Gap("k/a", "5-0", "8-0"),
        Snapshot("k/a", "8-0", "[1]"),
        Status("k/a", '{"feed": "f", "state": "down", "reason": null}'),
        Problem("k/a", "snapshot_failed", "none"),
        Event("k/a", "9-0", "t", "message", "2"),
    ] == happened
    assert ['{"type":"pong"}'] * 2 == talk.heard[:2]


@pytest.mark.parametrize("code", [1001, 4000, 4001, 4002, 1000, 1011, 1012])
async def test_close_codes_that_say_come_back(autojump_clock, code):
    """With the reason, and after a wait."""
    happened = await collect(
        ScriptedService(Talk(close=(code, "why")), Talk(event("k/a", "1-0", 1))), "k/a", enough=count(1)
    )
    assert [(f"the service closed with {code} (why)", 1)] == lost(happened)


@pytest.mark.parametrize("code", [1003, 1007, 1009, 4500, 4501, 4503, 4999])
async def test_close_codes_that_say_do_not(autojump_clock, code):
    """They are raised, with the reason."""
    service = ScriptedService(Talk(event("k/a", "1-0", 1), close=(code, "because")))
    happened = await collect(service, "k/a")
    assert f"the service closed with {code} (because)" == refusal(happened)
    assert [("1-0", "1")] == events(happened)


async def test_a_close_before_the_subscription(autojump_clock):
    """It means what it means later, though what is seen first is that nothing can be sent."""
    service = ScriptedService(
        in_one_piece(close=(1001, "the service shuts down; retry_ms=4200")), in_one_piece(close=(4503, "full")),
    )  # fmt: skip
    happened = await collect(service, "k/a")
    assert [("the service closed with 1001 (the service shuts down; retry_ms=4200)", 5.2)] == lost(happened)
    assert "the service closed with 4503 (full)" == refusal(happened)


async def test_a_pong_that_cannot_be_sent(autojump_clock):
    """What the service said before it closed is still told, and its close judged."""
    results = {"type": "batch_subscribed", "data": {"results": [opened("k/a")]}}
    said = [event("k/a", f"{n}-0", n) for n in range(1, 9)]
    service = ScriptedService(in_one_piece(results, *said[:7], {"type": "ping"}, said[7], close=(4503, "full")))
    happened = await collect(service, "k/a")
    assert [(f"{n}-0", str(n)) for n in range(1, 9)] == events(happened)
    assert "the service closed with 4503 (full)" == refusal(happened)


async def test_retry_ms_is_waited_for_once(autojump_clock):
    """The reason's number is the least for this return, and for no other."""
    service = ScriptedService(
        Talk(event("k/a", "1-0", 1), close=(1001, "the service shuts down; retry_ms=4200")), Refuses,
        Talk(event("k/a", "2-0", 1)),
    )  # fmt: skip
    happened = await collect(service, "k/a", enough=count(2))
    assert [5.2, 2] == [seconds for _, seconds in lost(happened)]


async def test_the_handshake_s_status_counts(autojump_clock):
    """As over HTTP: 503 comes back, after Retry-After where it is said; 403 does not."""
    happened = await collect(
        ScriptedService(
            trouble(503, "too_many_connections", "full", retry_after=5), WebSocket(status=502),
            trouble(403, "forbidden", "not you"),
        ),
        "k/a",
    )  # fmt: skip
    assert [6, 2] == [seconds for _, seconds in lost(happened)]
    assert "HTTP 503" in lost(happened)[0][0]
    assert "HTTP 403" in refusal(happened)


async def test_headers_go_with_the_handshake(autojump_clock):
    """A proxy before the service may ask for them."""
    service = ScriptedService(answers(403))
    async with service.running():
        access = attrs.evolve(service.access(), headers=(("x-token", "t"),))
        async with open_streams(URL, [Subscription("k/a")], access=access) as source:
            with pytest.raises(ServiceRefused):
                await anext(source)
    assert "t" == service.peers[0].headers["x-token"]


@pytest.mark.parametrize(
    ("code", "comes_back"),
    [("object_failed", True), ("shutting_down", True), ("unknown_kind", False), ("novel", False)],
)
async def test_a_stream_that_is_refused(autojump_clock, code, comes_back):
    """For a while: all come back together. For good: it is raised."""
    refused = {"type": "error", "code": code, "message": "no"}
    service = ScriptedService(Talk(results=[opened("k/a"), refused]), Talk(event("k/a", "1-0", 1)))
    happened = await collect(service, "k/a", "k/b", enough=count(1))
    if comes_back:
        assert [(f"no ({code})", 1)] == lost(happened)
    else:
        assert f"no ({code})" == refusal(happened)


@pytest.mark.parametrize(
    "said",
    [
        "not JSON", b"\xff", "[]", '{"type":1}', '{"type":"event","stream":"k/a","id":"yesterday","data":1}',
        '{"type":"gap","stream":"k/a","id":"1-0","data":null}',
    ],
)  # fmt: skip
async def test_what_is_not_our_protocol_is_refused(autojump_clock, said):
    """It would be no other the next time."""
    assert "no service of ours" in refusal(await collect(ScriptedService(Talk(said, hold=True)), ("k/a", None, "0-0")))


@pytest.mark.parametrize("act", [never_answers, Talk(quiet=True, hold=True)])
async def test_an_answer_is_waited_for_30_s(autojump_clock, act):
    """That of the handshake, and that to the subscription."""
    service = ScriptedService(act, Talk(event("k/a", "1-0", 1)))
    happened = await collect(service, "k/a", enough=count(1))
    assert 1 == len(lost(happened))
    assert 31 == round(service.times[1] - service.times[0], 3)


async def test_silence_is_the_end(autojump_clock):
    """A peer that says nothing for 30 s is gone; our own pings are left out here, for it would answer them."""

    class Mute(Talk):
        async def run(self, connection):
            await super().run(connection)
            await trio.sleep(60)

    service = ScriptedService(Mute(*[event("k/a", f"{n}-0", n) for n in range(1, 4)]), Talk(event("k/a", "4-0", 4)))
    happened = await collect(service, "k/a", enough=count(4), ping_s=40.0)
    assert [("the service was silent for 30 s", 1)] == lost(happened)


async def test_hang_ups_back_off(autojump_clock):
    """As with server-sent events."""
    service = ScriptedService(Refuses, hangs_up, Talk(), Talk(), Talk(event("k/a", "1-0", 1)))
    assert [1, 2, 4, 8] == [each for _, each in lost(await collect(service, "k/a", enough=count(1)))]


async def test_leaving_at_any_moment_leaves_nothing(autojump_clock):
    """While connecting, subscribing, reading, waiting for the next attempt."""
    acts = [never_answers, Talk(quiet=True, hold=True), Talk(event("k/a", "1-0", 1), event("k/a", "2-0", 1)), Refuses]
    for moment in (0, 0.0001, 5, 30.5, 31.5, 40, 62, 65, 90):
        service = ScriptedService(*acts, then=Talk(hold=True))
        with assert_no_leaks():
            async with service.running():
                with trio.move_on_after(moment):
                    access = service.access()
                    async with open_streams(URL, [Subscription("k/a")], access=access, rng=Middle()) as source:
                        async for _ in source:
                            await trio.sleep(0.1)
                await service.all_closed()
