"""What each protocol makes of frames: real captures, and anything else."""

import json
import textwrap
import tomllib
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_swarm.errors import ProtocolViolation, SettingsError
from trio_swarm.settings import FeedSettings
from trio_swarm.settings_loading import load
from trio_swarm.upstream.capture import Capture
from trio_swarm.upstream.protocols import Coinbase, JsonFeed, Kraken, Notice, jsonfeed, make_protocol

BITMEX = tomllib.loads(textwrap.dedent(jsonfeed.__doc__.partition("\n")[2].partition("**Templates")[0]))["feed"][0]


def events(protocol, capture):
    found = [(frame.data, protocol.parse(frame.data)) for frame in capture.incoming]
    return [(text, event) for text, event in found if event is not None]


def test_coinbase_serves_its_capture(shared):
    """Every frame but the 3 acknowledgements is an event of its product, byte for byte."""
    capture = Capture.load(shared / "captures" / "coinbase.jsonl")
    found = events(make_protocol(FeedSettings("c", "ws://c", protocol="coinbase")), capture)
    assert len(found) == len(capture.incoming) - 3
    assert all(event.data.decode() == text for text, event in found)
    assert all(event.topic == json.loads(text)["product_id"] for text, event in found)


def test_kraken_serves_its_capture(shared):
    """Every array is an event of its pair, the one with two payloads too; every object is none."""
    capture = Capture.load(shared / "captures" / "kraken.jsonl")
    found = events(make_protocol(FeedSettings("k", "ws://k", protocol="kraken")), capture)
    assert [text for text, _ in found] == [f.data for f in capture.incoming if f.data.startswith("[")]
    assert all(event.data.decode() == text for text, event in found)
    assert all(event.topic == json.loads(text)[-1] for text, event in found)


def test_the_documented_toml_serves_bitmex(shared):
    """The example in jsonfeed's docstring is settings, and with it every table is an event of its symbol."""
    capture = Capture.load(shared / "captures" / "bitmex.jsonl")
    found = events(make_protocol(msgspec.convert(BITMEX, FeedSettings)), capture)
    tables = [frame.data for frame in capture.incoming if "table" in json.loads(frame.data)]
    assert [text for text, _ in found] == tables
    assert max(map(len, tables)) > 700_000
    wanted = Counter(json.loads(text)["data"][0]["symbol"] for text in tables)
    assert Counter(event.topic for _, event in found) == wanted


def test_the_documented_toml_is_settings(tmp_path):
    """What the docstring shows can be put into a settings file as it stands."""
    path = tmp_path / "settings.toml"
    path.write_text(textwrap.dedent(jsonfeed.__doc__.partition("\n")[2].partition("**Templates")[0]))
    assert load(path).feed[0].topic_path == "data.0.symbol"


@pytest.mark.parametrize(
    ("protocol", "frame"),
    [
        (Coinbase(), '{"type":"subscriptions","channels":[]}'),
        (Coinbase(), '{"type":"heartbeat","product_id":"A","sequence":1}'),
        (Coinbase(), '{"type":"status","products":[]}'),
        (Kraken(), '{"event":"heartbeat"}'),
        (Kraken(), ' {"event":"subscriptionStatus","status":"subscribed","pair":"A"}'),
        (JsonFeed(skip=("ack",)), '{"ack":null}'),
        (JsonFeed(skip=("op=pong",)), '{"op":"pong"}'),
        (JsonFeed(skip=("success=true",)), '{"success":true}'),
        (JsonFeed(skip=("a.b=3",)), '{"a":{"b":3}}'),
    ],
)
def test_what_is_no_event(protocol, frame):
    """Acknowledgements, heartbeats and what the skip rules name are no events."""
    assert protocol.parse(frame) is None


@pytest.mark.parametrize(
    ("protocol", "frame", "text"),
    [
        (Coinbase(), '{"type":"error","message":"no","reason":"bad product"}', "no: bad product"),
        (Kraken(), '{"event":"subscriptionStatus","status":"error","errorMessage":"no such pair"}', "no such pair"),
        (Kraken(), '{"event":"error"}', "error"),
    ],
)
def test_complaints_are_notices(protocol, frame, text):
    """What the feed complains about is told as such."""
    assert protocol.parse(frame) == Notice(text)


ALL = [Coinbase(), Kraken(), JsonFeed(topic_path="a.0.b", key_path="k", sequence_path="s", skip=("x", "y.z=1"))]


@given(
    st.one_of(st.text(), st.binary(), st.sampled_from(["[" * 5000, '{"a":' * 5000, "[[],[],[],[]]", "[1,2,3,null]"]))
)
def test_whatever_comes_is_an_event_or_a_violation(frame):
    """No bytes make a protocol raise anything but ProtocolViolation, and the data of an event is always JSON."""
    for protocol in ALL:
        try:
            event = protocol.parse(frame)
        except ProtocolViolation:
            continue
        if event is not None:
            json.loads(event.data)


@pytest.mark.parametrize("topic", ["a,b", "a\nb", "x" * 201, "\u00e9" * 101])
def test_a_name_that_cannot_be_a_topic_is_a_violation(topic):
    """A feed's names obey our rules or the frame is undecodable; otherwise publishing it would bring the hub down."""
    for protocol, frame in [
        (Coinbase(), {"type": "ticker", "product_id": topic}),
        (Kraken(), [1, {}, "book", topic]),
        (JsonFeed(topic_path="t"), {"t": topic}),
        (JsonFeed(key_path="t"), {"t": topic.replace(",", "\x00")}),
    ]:
        with pytest.raises(ProtocolViolation):
            protocol.parse(json.dumps(frame))


def test_binary_frames_must_be_utf8():
    """The decoder skips strings it does not need; what is passed on is UTF-8 all the same."""
    assert Coinbase().parse(b'{"type":"a","product_id":"A","x":"\xc3\xa9"}').topic == "A"
    for protocol, frame in [(Coinbase(), b'{"type":"a","product_id":"A","x":"\xff"}'), (JsonFeed(), b'{"x":"\xff"}')]:
        with pytest.raises(ProtocolViolation):
            protocol.parse(frame)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.sampled_from(["", "a", "0", "-1", "true", "5"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "0", "-1"]), inner, max_size=3)
    ),
    max_leaves=12,
)
paths = st.lists(st.sampled_from(["a", "b", "0", "-1", "1"]), min_size=1, max_size=3).map(".".join)
MISSING = object()


def follow(value, path):
    for step in path.split("."):
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.lstrip("-").isdigit() and -len(value) <= int(step) < len(value):
            value = value[int(step)]
        else:
            return MISSING
    return value


def as_text(value):
    if value is MISSING or isinstance(value, (dict, list)):
        return None
    return value if isinstance(value, str) else json.dumps(value)


@given(json_values, paths, paths, paths, st.booleans())
def test_paths_lead_where_plain_json_would(value, topic, key, sequence, spaced):
    """Topic, key, sequence and skip rules against a walk over the decoded frame."""
    frame = json.dumps(value, indent=2 if spaced else None)
    event = JsonFeed(topic_path=topic, key_path=key, sequence_path=sequence).parse(frame)
    number = follow(value, sequence)
    assert event.topic == (as_text(follow(value, topic)) or "")
    assert event.key == as_text(follow(value, key))
    assert event.sequence == (number if isinstance(number, int) and not isinstance(number, bool) else None)
    assert event.data == frame.encode()
    skips = JsonFeed(skip=(topic,)).parse(frame) is None
    assert skips == (follow(value, topic) is not MISSING)
    wanted = as_text(follow(value, key))
    if wanted is not None:
        assert JsonFeed(skip=(f"{key}={wanted}",)).parse(frame) is None
        assert JsonFeed(skip=(f"{key}={wanted}x",)).parse(frame) is not None


def test_templates():
    """`{topics}` is one message for a hundred topics, `{topic}` one for each, neither is sent on each connection."""
    many = [f"t{n}" for n in range(150)]
    lists = JsonFeed(subscribe='{"args":{topics}}').subscribe(many)
    assert [json.loads(text)["args"] for text in lists] == [many[:100], many[100:]]
    singles = JsonFeed(subscribe='{"args":["x:{topic}"]}').subscribe(['a"b', "c"])
    assert [json.loads(text)["args"] for text in singles] == [['x:a"b'], ["x:c"]]
    fixed = JsonFeed(subscribe='{"op":"all"}')
    assert (fixed.opening(), fixed.subscribe(["a"]), fixed.unsubscribe(["a"])) == (['{"op":"all"}'], [], [])


def test_the_messages_that_subscribe():
    """Coinbase and Kraken get what their captures' clients sent, for the channels asked."""
    assert json.loads(Coinbase().subscribe(["A", "B"])[0]) == {
        "type": "subscribe",
        "product_ids": ["A", "B"],
        "channels": ["ticker", "level2", "matches"],
    }
    assert json.loads(Coinbase(("full",)).unsubscribe(["A"])[0])["type"] == "unsubscribe"
    assert [json.loads(text) for text in Kraken(("book-1000", "trade")).subscribe(["A/B"])] == [
        {"event": "subscribe", "pair": ["A/B"], "subscription": {"name": "book", "depth": 1000}},
        {"event": "subscribe", "pair": ["A/B"], "subscription": {"name": "trade"}},
    ]


@pytest.mark.parametrize(
    "settings",
    [
        FeedSettings("f", "ws://f", protocol="morse"),
        FeedSettings("f", "ws://f", protocol="coinbase", topic_path="x"),
        FeedSettings("f", "ws://f", topics=("a",), subscribe='{"op":"all"}'),
    ],
)
def test_settings_that_make_no_protocol(settings):
    """A misspelt protocol, or settings for another one, are the operator's error, told at once."""
    with pytest.raises(SettingsError, match="feed f"):
        make_protocol(settings)
