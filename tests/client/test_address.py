"""What a person means with a URL."""

from urllib.parse import quote, unquote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_swarm.client.address import EventsAddress, SocketAddress, find_events, find_publish
from trio_swarm.errors import InvalidName, InvalidPosition, SettingsError, SwarmError
from trio_swarm.wire.messages import Subscription


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://h/channel/a", "http://h/v1/channel/a/events?format=envelope"),
        ("h:8000/channel/a", "http://h:8000/v1/channel/a/events?format=envelope"),
        ("localhost/channel/a/", "http://localhost/v1/channel/a/events?format=envelope"),
        ("http://h/v1/channel/a", "http://h/v1/channel/a/events?format=envelope"),
        ("https://h/v1/channel/a/events", "https://h/v1/channel/a/events?format=envelope"),
        ("http://h/v1/channel/a/publish", "http://h/v1/channel/a/events?format=envelope"),
        ("http://h/below/it/v1/channel/a/events", "http://h/below/it/v1/channel/a/events?format=envelope"),
        ("http://h/v1/channel/v1", "http://h/v1/channel/v1/events?format=envelope"),
        ("http://h/channel/v1", "http://h/v1/channel/v1/events?format=envelope"),
        ("http://h/channel/a?topics=x,y%20z&token=t", "http://h/v1/channel/a/events?token=t&topics=x,y%20z&format=envelope"),
        ("http://h/channel/a%20b", "http://h/v1/channel/a%20b/events?format=envelope"),
        ("http://h/channel/ä b", "http://h/v1/channel/%C3%A4%20b/events?format=envelope"),
        ("http://[::1]:8/channel/a", "http://[::1]:8/v1/channel/a/events?format=envelope"),
        ("http://h/channel/a#fragment", "http://h/v1/channel/a/events?format=envelope"),
    ],
)  # fmt: skip
def test_a_stream_of_a_service(text, url):
    """However it is written."""
    assert url == find_events(text).url


@pytest.mark.parametrize(
    "text",
    [
        "http://h/api/events",
        "https://h/v2/stream/recentchange",
        "http://h/x?a=b&a=c%20d",
        "http://h/v1/a/b/c/d",
    ],
)
def test_other_servers(text):
    """Anything else is asked for as it is."""
    assert EventsAddress(text, None, None, envelope=False) == find_events(text)


def test_exact_is_as_it_is():
    """Also where it looks like ours."""
    assert EventsAddress("http://h/kind/id?topics=a", None, "7", envelope=False) == find_events(
        "http://h/kind/id?topics=a", exact=True, since="7"
    )
    assert "http://h/" == find_events("http://h", exact=True).url
    assert "ws://h/odd" == find_events("ws://h/odd", exact=True, streams=["k/a"]).url


@pytest.mark.parametrize(
    ("text", "streams", "url", "wanted"),
    [
        ("ws://h/channel/a", [], "ws://h/v1/ws", ["channel/a"]),
        ("wss://h/v1/channel/a/events", [], "wss://h/v1/ws", ["channel/a"]),
        ("ws://h", ["k/a", "k/b", "k/a"], "ws://h/v1/ws", ["k/a", "k/b"]),
        ("ws://h/v1/ws?token=t", ["k/a"], "ws://h/v1/ws?token=t", ["k/a"]),
        ("ws://h/below/v1/ws", ["k/a"], "ws://h/below/v1/ws", ["k/a"]),
        ("ws://h/channel/a", ["k/b"], "ws://h/v1/ws", ["channel/a", "k/b"]),
        ("ws://h/channel/a%20b", [], "ws://h/v1/ws", ["channel/a b"]),
    ],
)
def test_web_sockets(text, streams, url, wanted):
    """One connection, and the streams in the order in which they were named."""
    found = find_events(text, streams=streams)
    assert (url, wanted) == (found.url, [each.stream for each in found.subscriptions])


def test_topics_and_since():
    """Said in the URL or beside it, for every stream."""
    assert SocketAddress(
        "ws://h/v1/ws", (Subscription("k/a", ("x", ""), "1-0"), Subscription("k/b", ("x", ""), "1-0"))
    ) == find_events("ws://h/k/a?topics=x,&since=1-0", streams=["k/b"])
    found = find_events("h/k/a", topics=["a b", "ü"], since="0-0")
    assert ("http://h/v1/k/a/events?topics=a%20b,%C3%BC&format=envelope", "0-0") == (found.url, found.since)
    assert "k/a" == found.stream


def test_a_stream_named_beside_the_service():
    """`--stream` does for server-sent events too, once."""
    assert "http://h/v1/k/a/events?format=envelope" == find_events("h", streams=["k/a"]).url
    assert "http://h/p/q/v1/k/a/events?format=envelope" == find_events("h/p/q/v1", streams=["k/a"]).url


def test_a_name_and_a_password_become_a_header():
    """And stand nowhere else, least of all in an error."""
    found = find_events("https://me:s%40cret@h/k/a")
    assert (("authorization", "Basic bWU6c0BjcmV0"),) == found.headers
    assert "cret" not in found.url
    for text in ("http://me:s3cret@h", "http://me:s3cret@h:0/k/a", "ws://me:s3cret@h/x", "ftp://me:s3cret@h/"):
        with pytest.raises(SettingsError) as raised:
            find_events(text)
        assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "how", "kind", "words"),
    [
        ("", {}, SettingsError, "is not a URL"),
        ("http://", {}, SettingsError, "is not a URL"),
        ("ftp://h/x", {}, SettingsError, "http://"),
        ("http://h:port/k/a", {}, SettingsError, "is not a URL"),
        ("http://h:99999/k/a", {}, SettingsError, "is not a URL"),
        ("http://a b/k/a", {}, SettingsError, "is not a URL"),
        ("http://h/k/a\n", {}, SettingsError, "is not a URL"),
        ("http://" + "ü" * 80 + "/k/a", {}, SettingsError, "is not a URL"),
        ("http://h", {}, SettingsError, "names no stream"),
        ("ws://h", {}, SettingsError, "names no stream"),
        ("ws://h/odd", {}, SettingsError, "names no stream"),
        ("http://h/v1/ws", {}, SettingsError, "names no stream"),
        ("http://h", {"streams": ["k/a", "k/b"]}, SettingsError, "ws://"),
        ("http://h/api/events", {"topics": ["a"]}, SettingsError, "as it is"),
        ("http://h/api/events", {"streams": ["k/a"]}, SettingsError, "as it is"),
        ("http://h/api/events", {"since": "a\nb"}, SettingsError, "--since"),
        ("h/k/a?topics=a", {"topics": ["b"]}, SettingsError, "leave one out"),
        ("h/k/a?since=0-0", {"since": "0-0"}, SettingsError, "leave one out"),
        ("h/k/a", {"since": "yesterday"}, InvalidPosition, "event id"),
        ("h/k/a", {"topics": ["a\0"]}, InvalidName, "topic"),
        ("ws://h", {"streams": ["ka"]}, InvalidName, "stream"),
        ("h/v1/Kind/a", {}, InvalidName, "kind"),
        ("h/k/%ff", {}, InvalidName, "id"),
        ("h/k/a%2Fb", {}, InvalidName, "id"),
        ("h/k/..", {}, InvalidName, "id"),
    ],
)
def test_what_cannot_be(text, how, kind, words):
    """A sentence that says what to write."""
    with pytest.raises(kind) as raised:
        find_events(text, **how)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    "text",
    [
        "h/channel/a",
        "http://h/v1/channel/a/events?topics=x",
        "ws://h/channel/a",
        "http://h/v1/channel/a/publish",
        "h/v1/channel/a",
    ],
)
def test_where_to_publish(text):
    """Any URL that names an object."""
    found = find_publish(text)
    assert ("http://h/v1/channel/a/publish", "channel/a") == (found.url, found.stream)


@pytest.mark.parametrize("text", ["h", "ws://h/v1/ws", "h/a/b/c"])
def test_nowhere_to_publish(text):
    """A URL that names no object."""
    with pytest.raises(SettingsError, match="names no object"):
        find_publish(text)


@settings(deadline=None)
@given(st.text(max_size=40), st.booleans())
def test_any_text_is_an_address_or_a_sentence(text, exact):
    """Never anything else."""
    for prefix in ("", "http://h/", "ws://h/v1/", "http://"):
        try:
            said = find_events(prefix + text, exact=exact, streams=["k/a"] if exact else []).url
            assert said.isascii()
        except SwarmError as error:
            said = str(error)
        assert said.isprintable()


letters = st.characters(exclude_categories=["C", "Z"], exclude_characters="/,")
names = st.text(letters, min_size=1, max_size=20).filter(lambda text: text not in {".", ".."})


@settings(deadline=None)
@given(names, st.lists(names, max_size=3))
def test_names_travel_unchanged(id, topics):
    """Whatever an id or a topic is called, percent-encoded in a URL it is the same on both ways."""
    over_http = find_events(f"h/v1/channel/{quote(id, safe='')}", topics=topics or None)
    over_ws = find_events(f"ws://h/channel/{quote(id, safe='')}", topics=topics or None)
    assert f"channel/{id}" == over_http.stream == over_ws.subscriptions[0].stream
    path, _, query = over_http.url.partition("?")
    assert id == unquote(path.split("/")[5])
    if topics:
        assert topics == [unquote(each) for each in query.split("&")[0].removeprefix("topics=").split(",")]
