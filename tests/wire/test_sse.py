"""Server-sent events: what is written is read, and nothing else."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_swarm.errors import ProtocolViolation
from trio_swarm.wire.sse import SseEvent, SseParser, chunk, encode_event, encode_id_only


def read_by_the_book(stream):
    """The standard's algorithm on the whole text at once, step by step, as slow as it is plain."""
    text = stream.decode(errors="replace").removeprefix("\ufeff")
    *lines, _unfinished = re.split("\r\n|\r|\n", text)
    events, data, kind, last_id, sent_id = [], "", "", "", ""
    for line in lines:
        if not line:
            sent_id = last_id
            if data:
                events.append(SseEvent(kind or "message", data[:-1], last_id))
            data = kind = ""
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            data += value + "\n"
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value
    return events, sent_id


pieces_of_streams = st.sampled_from(
    [b"data", b"event", b"id", b"retry", b":", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"x", b"\0", b"\xef\xbb\xbf",
     b"\xe2\x82\xac", b"\xff", b"\xe2\x82", b"7", b"data: a\n\n", b"id: 1\n", b"id\n\n"]
)  # fmt: skip


@given(st.lists(pieces_of_streams, max_size=40), st.data())
def test_parser_agrees_with_the_standard(parts, data):
    """Any bytes, cut anywhere, give what the standard's algorithm gives on the whole."""
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    parser = SseParser()
    events = []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        events += parser.feed(stream[start:stop])
    assert read_by_the_book(stream) == (events, parser.last_event_id)


texts = st.text(st.characters(exclude_categories=("Cs",)) | st.sampled_from("\r\n\0: "), max_size=20)


@given(texts, st.none() | texts, st.none() | texts, st.none() | st.integers(0, 10**6))
def test_round_trip(data, id_, event, retry):
    """What is written is read back as one event; only a line break or NUL in an id or type is refused."""
    bad = any(mark in (value or "") for value in (id_, event) for mark in "\r\n\0")
    if bad:
        with pytest.raises(ProtocolViolation, match="cannot stand"):
            encode_event(data.encode(), id=id_, event=event, retry=retry)
        return
    parser = SseParser()
    events = parser.feed(encode_event(data.encode(), id=id_, event=event, retry=retry))
    data = data.replace("\r\n", "\n").replace("\r", "\n")
    assert [SseEvent(event or "message", data, id_ or "")] == events
    assert retry == parser.retry_ms


def test_what_is_written():
    """The bytes of an ordinary event: an id, a type unless it is the default, one line of data."""
    assert encode_event(b'{"a":1}', id="5-0", event="message") == b'id: 5-0\ndata: {"a":1}\n\n'
    assert encode_event(b"1", id=None, event="goal", retry=1500) == b"retry: 1500\nevent: goal\ndata: 1\n\n"
    assert encode_event(b"1\n2", id=None, event=None) == b"data: 1\ndata: 2\n\n"


def test_an_id_alone_is_no_event():
    """A heartbeat moves Last-Event-ID on and dispatches nothing."""
    parser = SseParser("1-0")
    assert parser.feed(encode_id_only("7-3")) == []
    assert parser.last_event_id == "7-3"


def test_an_id_counts_only_from_the_empty_line():
    """A connection cut between an event's id and its end resumes before that event."""
    parser = SseParser("1-0")
    parser.feed(b"id: 2-0\ndata: half")
    assert parser.last_event_id == "1-0"
    assert parser.feed(b"\n\n") == [SseEvent("message", "half", "2-0")]
    assert parser.last_event_id == "2-0"


def test_surrogates_are_refused_by_name():
    """Half a character cannot be written, and the error says where it stood."""
    with pytest.raises(ProtocolViolation, match="SSE event is not Unicode"):
        encode_event(b"", id=None, event="\ud800")
    with pytest.raises(ProtocolViolation, match="SSE id is not Unicode"):
        encode_id_only("\udc00")


@pytest.mark.parametrize("line", [b"x", b"data: x\n", b"data: xyz\n", b"ignored: x\rdata:x\r"])
@pytest.mark.parametrize("piece", [1, 7, 100_000])
def test_a_stream_without_end_is_refused(line, piece):
    """An event that never ends is refused at the limit, whether it is one line or many, and nothing more is kept."""
    stream = line * 40_000
    parser = SseParser(max_event_bytes=10_000)
    fed = 0
    with pytest.raises(ProtocolViolation, match="larger than 10000 bytes"):
        for start in range(0, len(stream), piece):
            parser.feed(stream[start : start + piece])
            fed += piece
    assert fed <= 10_000 * len(line) + piece


def test_many_small_events_are_no_large_one():
    """The limit is an event's and not the connection's."""
    parser = SseParser(max_event_bytes=100)
    assert len(parser.feed(b"data: 0123456789\n\n" * 1000)) == 1000


def test_retry_with_very_many_digits():
    """A number that int() itself would refuse is only very long; leading zeros are nothing."""
    parser = SseParser()
    parser.feed(b"retry: " + b"9" * 10_000 + b"\n")
    assert parser.retry_ms == 10**18
    parser.feed(b"retry: " + b"0" * 10_000 + b"7\n")
    assert parser.retry_ms == 7


@given(st.binary(max_size=300))
def test_chunk(body):
    """A chunk says its size in hexadecimal; an empty body is no chunk, since that would end the response."""
    written = chunk(body)
    if body:
        size, rest = written.split(b"\r\n", 1)
        assert (len(body), body + b"\r\n") == (int(size, 16), rest)
    else:
        assert written == b""
