"""The WebSocket protocol's messages."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_swarm.errors import InvalidMessage
from trio_swarm.wire import messages
from trio_swarm.wire.messages import (
    BatchSubscribe,
    BatchUnsubscribe,
    Call,
    Ping,
    Pong,
    Publish,
    Subscribe,
    Unsubscribe,
    parse,
    parse_publication,
)


def text(type_, data=None, **more):
    return json.dumps({"type": type_, **({} if data is None else {"data": data}), **more})


def refused(message):
    with pytest.raises(InvalidMessage) as caught:
        parse(message)
    error = caught.value
    assert str(error).isprintable()
    assert len(str(error)) < 500
    messages.error(error.message_id, error.error_code, str(error))  # it can be told
    return error.error_code, error.message_id, str(error)


def refusal(message):
    try:
        parse(message)
    except InvalidMessage as error:
        return error
    return None


# -- what clients say


def test_subscribe():
    """A stream, some topics or all, from an id or from now."""
    message = parse(text("subscribe", {"stream": "game/x", "topics": ["a", ""], "since": "5-0"}, messageId="m"))
    assert isinstance(message, Subscribe)
    assert (
        message.message_id,
        message.data.stream,
        message.data.topics,
        message.data.since,
    ) == ("m", "game/x", ("a", ""), "5-0")
    bare = parse(text("subscribe", {"stream": "game/x"}))
    assert isinstance(bare, Subscribe)
    assert (bare.message_id, bare.data.topics, bare.data.since) == (None, None, None)


def test_unsubscribe():
    """The whole stream, or some topics of it."""
    message = parse(text("unsubscribe", {"stream": "game/x", "topics": ["a"]}))
    assert isinstance(message, Unsubscribe)
    assert (message.data.stream, message.data.topics) == ("game/x", ("a",))


def test_batches():
    """Several in order in one message."""
    many = {"subscriptions": [{"stream": "game/x"}, {"stream": "game/y", "topics": ["t"]}]}
    message = parse(text("batch_subscribe", many))
    assert isinstance(message, BatchSubscribe)
    assert [each.stream for each in message.data.subscriptions] == ["game/x", "game/y"]
    message = parse(text("batch_unsubscribe", many))
    assert isinstance(message, BatchUnsubscribe)
    assert [each.topics for each in message.data.subscriptions] == [None, ("t",)]


def test_publish_keeps_the_data_as_it_was():
    """The event's JSON is not decoded: its very bytes go on."""
    message = parse(
        '{"type":"publish","data":{"stream":"chat/x","topic":"t","type":"say","key":"k","data": {"a" : 1.0}}}'
    )
    assert isinstance(message, Publish)
    given_ = message.data
    assert (
        given_.stream,
        given_.topic,
        given_.type,
        given_.key,
        given_.durable,
    ) == ("chat/x", "t", "say", "k", False)
    assert bytes(given_.data).strip() == b'{"a" : 1.0}'


def test_call():
    """An array of arguments is positional, an object keywords, nothing none."""
    calls = [parse(text("call", {"stream": "g/x", "method": "m", **more})) for more in (
        {}, {"arguments": [1, "a"]}, {"arguments": {"team": 1}})]  # fmt: skip
    assert all(isinstance(call, Call) for call in calls)
    assert [call.data.arguments for call in calls] == [[], [1, "a"], {"team": 1}]


def test_ping_and_pong():
    """Signs of life need no data, and may have some."""
    assert Ping(message_id="1") == parse(text("ping", messageId="1"))
    assert Pong() == parse(text("pong", {"any": "thing"}).encode())


def test_what_is_not_known_is_ignored():
    """A newer client's fields, and the timestamp of any, do no harm."""
    message = parse(text("subscribe", {"stream": "game/x", "new": 1}, timestamp=17.5, other=None))
    assert isinstance(message, Subscribe)


DEEP_CALL = '{"type":"call","data":{"stream":"g/x","method":"m","arguments":' + '{"a":' * 50_000 + "1" + "}" * 50_002


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("hello", "not JSON"),
        ('{"type":"ping"} {"type":"ping"}', "not JSON"),
        ('{"type":"ping","messageId":"1"', "not JSON"),
        ("NaN", "not JSON"),
        ('{"type":"ping","data":' + "[" * 50_000 + "]" * 50_000 + "}", "too deeply"),
        (DEEP_CALL, "too deeply"),
        ('{"type":"\ud800"}', "not valid Unicode"),
        (b'{"type":"\xff"}', "not valid Unicode"),
        (b'{"type":"publish","data":{"stream":"c/x","data":"\xff"}}', "not valid Unicode"),
        ('{"type":"publish","data":{"stream":"c/x","data":"\\ud800 "}}', "not JSON"),
        ('{"type":"publish","data":{"stream":"c/x","data":"\\q"}}', "not JSON"),
    ],
)  # fmt: skip
def test_what_is_no_json(message, why):
    """Broken, endless or half characters: told as such, and nothing of it is believed."""
    code, message_id, sentence = refused(message)
    assert (code, message_id) == ("invalid_json", None)
    assert why in sentence


@pytest.mark.parametrize(
    ("message", "code", "why"),
    [
        ({"type": "subscrib"}, "unknown_type", "'subscrib'; there are: subscribe"),
        ({"type": "x" * 5000}, "unknown_type", "no message type"),
        ({"type": "\x00\n"}, "unknown_type", "no message type"),
        ({"type": 7}, "invalid_message", "Expected `str` - at `$.type`"),
        ({}, "invalid_message", "missing required field `type`"),
        ({"type": "subscribe"}, "invalid_message", "missing required field `data`"),
        ({"type": "subscribe", "data": 5}, "invalid_message", "Expected `object`, got `int` - at `$.data`"),
        ({"type": "subscribe", "data": {}}, "invalid_message", "missing required field `stream`"),
        ({"type": "subscribe", "data": {"stream": 1}}, "invalid_message", "$.data.stream"),
        ({"type": "subscribe", "data": {"stream": "g/x", "since": 5}}, "invalid_message", "$.data.since"),
        ({"type": "subscribe", "data": {"stream": "g/x", "topics": "a"}}, "invalid_message", "$.data.topics"),
        ({"type": "subscribe", "data": {"stream": "g/x", "topics": []}}, "invalid_message", "leave it out to mean all"),
        ({"type": "subscribe", "data": {"stream": "g/x", "topics": ["a,b"]}}, "invalid_name", "topic 'a,b'"),
        ({"type": "subscribe", "data": {"stream": "gx"}}, "invalid_name", "<kind>/<id>"),
        ({"type": "unsubscribe", "data": {"stream": "G/x"}}, "invalid_name", "kind 'G'"),
        ({"type": "batch_subscribe", "data": {"subscriptions": []}}, "invalid_message", "length >= 1"),
        ({"type": "batch_unsubscribe", "data": {"subscriptions": [{"stream": "x"}]}}, "invalid_name", "stream 'x'"),
        ({"type": "publish", "data": {"stream": "c/x"}}, "invalid_message", "missing required field `data`"),
        ({"type": "publish", "data": {"stream": "c/", "data": 1}}, "invalid_name", "id ''"),
        ({"type": "publish", "data": {"stream": "c/x", "data": 1, "type": "hello"}}, "invalid_name", "reserved"),
        ({"type": "publish", "data": {"stream": "c/x", "data": 1, "topic": "\r"}}, "invalid_name", "topic"),
        ({"type": "publish", "data": {"stream": "c/x", "data": 1, "key": "\0"}}, "invalid_name", "key"),
        ({"type": "publish", "data": {"stream": "c/x", "data": 1, "durable": 1}}, "invalid_message", "$.data.durable"),
        ({"type": "call", "data": {"stream": "g/x"}}, "invalid_message", "missing required field `method`"),
        ({"type": "call", "data": {"stream": "g", "method": "m"}}, "invalid_name", "stream 'g'"),
        ({"type": "call", "data": {"stream": "g/x", "method": "m", "arguments": 1}}, "invalid_message", "arguments"),
    ],
)
def test_messages_that_cannot_be_taken(message, code, why):
    """Each is answered by its own messageId, with a stable code and a sentence that says what is wrong and where."""
    assert (code, None) == refused(json.dumps(message))[:2]
    found, message_id, sentence = refused(json.dumps({**message, "messageId": "m-1"}))
    assert (code, "m-1") == (found, message_id)
    assert why in sentence


@pytest.mark.parametrize("message_id", ["", "x" * 201, 5, None, ["m"], {"a": 1}, True])
def test_a_message_id_that_cannot_be_used(message_id):
    """It is a string of 1 to 200 characters; another is neither taken nor repeated in the answer."""
    code, told, sentence = refused(json.dumps({"type": "pingg", "messageId": message_id}))
    assert (code, told) == ("unknown_type", None)
    if message_id is not None:
        code, told, sentence = refused(json.dumps({"type": "ping", "messageId": message_id}))
        assert (code, told) == ("invalid_message", None)
        assert "$.messageId" in sentence


@pytest.mark.parametrize("message", ["[]", "5", '"ping"', "null", "true"])
def test_what_is_no_object(message):
    """JSON of another shape is told from no JSON at all."""
    code, _, sentence = refused(message)
    assert code == "invalid_message"
    assert "Expected `object`" in sentence


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
kinds = st.sampled_from(
    ["subscribe", "unsubscribe", "batch_subscribe", "batch_unsubscribe", "publish", "call", "ping", "pong", "x"]
)
fields = st.sampled_from(["stream", "topics", "since", "data", "type", "method", "arguments", "subscriptions", "key"])


@given(kinds, st.dictionaries(fields, json_values | st.just("game/x"), max_size=5), st.none() | json_values)
def test_nothing_else_is_ever_raised(kind, data, message_id):
    """Whatever JSON comes, the answer is a message or a refusal that can be told."""
    message = {"type": kind, "data": data, "messageId": message_id}
    told = refusal(json.dumps(message))
    if told is not None:
        messages.error(told.message_id, told.error_code, str(told))
        assert told.message_id in {None, message_id if isinstance(message_id, str) else None}


@given(st.binary(max_size=60) | st.text(max_size=60))
def test_garbage(message):
    """Nor by anything that is no JSON."""
    told = refusal(message)
    assert told is None or told.error_code in {"invalid_json", "invalid_message", "unknown_type"}


def test_publications_over_http():
    """A line of a publish body is the same event, without a stream and with its own messageId."""
    given_ = parse_publication(b'{"data":[1, 2],"topic":"t","messageId":"m"}')
    assert (bytes(given_.data), given_.topic, given_.type, given_.message_id) == (b"[1, 2]", "t", "message", "m")
    refusals = {
        b"{": "invalid_json",
        b"{}": "invalid_message",
        b'{"data":1,"topic":","}': "invalid_name",
        b'{"data":' + b"[" * 99_999: "invalid_json",
        b'{"data":"\xff"}': "invalid_json",
    }
    for line, code in refusals.items():
        with pytest.raises(InvalidMessage) as caught:
            parse_publication(line)
        assert code == caught.value.error_code


# -- what the server says


def test_answers():
    """Each as documented, with the messageId of the question when it had one."""
    said = {
        messages.subscribed("m", stream="g/x", id="5-0", recovered=True): {
            "type": "subscribed", "messageId": "m", "data": {"stream": "g/x", "id": "5-0", "recovered": True}},
        messages.subscribed(None, stream="g/x", id="5-0", recovered=False, gap=("1-0", "5-0"), snapshot=b'{"s":1}'): {
            "type": "subscribed",
            "data": {"stream": "g/x", "id": "5-0", "recovered": False, "gap": {"after": "1-0", "before": "5-0"},
                     "snapshot": {"s": 1}}},
        messages.unsubscribed("m", stream="g/x"): {
            "type": "unsubscribed", "messageId": "m", "data": {"stream": "g/x"}},
        messages.published("m", id="5-0", count=2): {
            "type": "published", "messageId": "m", "data": {"id": "5-0", "count": 2}},
        messages.result("m", None): {"type": "result", "messageId": "m", "data": {"result": None}},
        messages.pong(None): {"type": "pong"},
        messages.error("m", "limit", 'No "more".'): {
            "type": "error", "messageId": "m", "code": "limit", "message": 'No "more".'},
        messages.batch_subscribed("m", [messages.subscribed(None, stream="g/x", id="5-0", recovered=True),
                                        messages.error(None, "limit", "No.")]): {
            "type": "batch_subscribed", "messageId": "m", "data": {"results": [
                {"type": "subscribed", "data": {"stream": "g/x", "id": "5-0", "recovered": True}},
                {"type": "error", "code": "limit", "message": "No."}]}},
        messages.batch_unsubscribed(None, [messages.unsubscribed(None, stream="g/x")]): {
            "type": "batch_unsubscribed", "data": {"results": [{"type": "unsubscribed", "data": {"stream": "g/x"}}]}},
        messages.gap_message("g/x", "5-0", "1-0", "5-0"): {
            "type": "gap", "stream": "g/x", "id": "5-0", "data": {"after": "1-0", "before": "5-0"}},
        messages.snapshot_message("g/x", "5-0", b"[1]"): {
            "type": "snapshot", "stream": "g/x", "id": "5-0", "data": [1]},
        messages.status_message("g/x", "odds", "down", None): {
            "type": "status", "stream": "g/x", "data": {"feed": "odds", "state": "down", "reason": None}},
    }  # fmt: skip
    for written, expected in said.items():
        assert expected == json.loads(written)


names = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)


@given(names, names, names, st.none() | st.integers(1, 10**12), json_values)
def test_events(stream, topic, event, offset, data):
    """An event as documented, whatever its names hold, its data as it came; `latest` events carry no offset."""
    raw = json.dumps(data, indent=1).encode()
    written = messages.event_message(stream, topic, event, "17-3", offset, raw)
    expected = {"type": "event", "stream": stream, "topic": topic, "event": event, "id": "17-3"}
    if offset is not None:
        expected["offset"] = offset
    assert {**expected, "data": data} == json.loads(written)
    assert raw in written
