"""WebSocket frames, read by the `websockets` library's client side."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Close, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from trio_swarm.wire.frames import close_frame, ping_frame, text_frame


def receive(stream, piece=None):
    """What a strict client makes of these bytes."""
    client = ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN, max_size=None)
    step = piece or len(stream)
    for start in range(0, len(stream), step):
        client.receive_data(stream[start : start + step])
    assert client.parser_exc is None
    return client, client.events_received()


sizes = st.sampled_from([0, 1, 124, 125, 126, 127, 128, 255, 65_534, 65_535, 65_536, 65_537, 200_000])


@given(st.lists(sizes | st.integers(0, 2_000), min_size=1, max_size=5))
def test_text_frames(lengths):
    """Texts of any length, one behind the other, arrive as they are: whole, final, in order."""
    payloads = [bytes([97 + i]) * length for i, length in enumerate(lengths)]
    _, frames = receive(b"".join(map(text_frame, payloads)))
    assert payloads == [bytes(frame.data) for frame in frames]
    assert all((frame.opcode, frame.fin, frame.rsv1) == (Opcode.TEXT, True, False) for frame in frames)


def test_text_frames_use_the_shortest_length():
    """The header has two, four or ten bytes, as the standard demands."""
    assert [len(text_frame(b"x" * size)) - size for size in (125, 126, 65_535, 65_536)] == [2, 4, 4, 10]


@given(st.binary(max_size=125))
def test_ping_is_answered_with_the_same_payload(payload):
    """A ping of any permitted payload is understood: the client's pong carries it."""
    client, (frame,) = receive(ping_frame(payload))
    assert (Opcode.PING, payload) == (frame.opcode, bytes(frame.data))
    assert client.data_to_send() != []


def test_ping_that_is_too_long():
    """A control frame's payload is bounded by the standard."""
    with pytest.raises(ValueError, match="125 bytes, not 126"):
        ping_frame(b"x" * 126)


good_codes = st.sampled_from([1000, 1001, 1003, 1007, 1009, 1011]) | st.integers(3000, 4999)


@given(good_codes, st.text(st.characters(exclude_categories=("Cs",)), max_size=200))
def test_close(code, reason):
    """A close arrives with its code and as much of its reason as fits, whole characters only."""
    client, _ = receive(close_frame(code, reason))
    received = client.close_rcvd
    assert code == received.code
    assert reason.startswith(received.reason)
    assert len(received.reason.encode()) > 123 - 4 or received.reason == reason


def test_close_cuts_between_characters():
    """A reason of three-byte characters is cut before the one that would not fit whole."""
    client, _ = receive(close_frame(4002, "a" + "€" * 100), piece=1)
    assert client.close_rcvd == Close(4002, "a" + "€" * 40)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 5000, -1])
def test_close_codes_that_may_not_be_sent(code):
    """Codes that the standard keeps for other uses are a mistake of the caller."""
    with pytest.raises(ValueError, match="no close code"):
        close_frame(code)
