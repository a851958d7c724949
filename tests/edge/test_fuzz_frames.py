"""WebSocket frames of every kind, right and wrong, with the sans-I/O side of `websockets` as the oracle.

It is given the same bytes as the service and says which frames are in them, and where the rules are broken. From
that follows what the service must do: which pings it answers, which messages it reads, and how it ends. What the
service sends is read by a client of the same library, which accepts no fault either.
"""

import codecs
import json
from collections import Counter

import attrs
import pytest
import trio
from fuzzed_service import connected, fuzzed_service, many, receive, rude_service, send
from hypothesis import event, given
from hypothesis import strategies as st
from websockets.exceptions import ProtocolError
from websockets.frames import Opcode
from websockets.protocol import CLIENT, SERVER, Protocol

from trio_swarm.edge.websocket import BAD_MESSAGES
from trio_swarm.settings import Limits

MESSAGE_BYTES = Limits().message_bytes
HANDSHAKE = (
    b"GET /v1/ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
PING = b'{"type":"ping","messageId":"%s"}'  # %s becomes a number of its own
LAST = b'{"type":"ping","messageId":"last"}'
REQUESTS = [
    b'{"type":"subscribe","messageId":"s","data":{"stream":"room/fuzz"}}',
    b'{"type":"subscribe","data":{"stream":"board/fuzz","topics":["a"],"since":"0-0"}}',
    b'{"type":"unsubscribe","data":{"stream":"room/fuzz"}}',
    b'{"type":"batch_subscribe","data":{"subscriptions":[{"stream":"room/a"},{"stream":"none/b"}]}}',
    b'{"type":"publish","data":{"stream":"room/fuzz","data":{"a":"\xc3\xa9"}}}',
    b'{"type":"call","data":{"stream":"room/fuzz","method":"double","arguments":[4]}}',
    b'{"type":"pong"}',
]
UNREADABLE = [
    b"", b"no json", b"[]", b'"ping"', b"{}", b'{"type":7}', b'{"type":"sing"}', b'{"type":"ping"', b"NaN",
    b'{"type":"subscribe"}', b'{"type":"subscribe","data":{"stream":7}}', b"[" * 3_000,
]  # fmt: skip

mostly = st.integers(0, 9).map(bool)  # true nine times of ten
texts = st.one_of(
    st.just(PING), st.just(PING), st.sampled_from(REQUESTS), st.sampled_from(UNREADABLE),
    st.binary(max_size=40), st.text(max_size=20).map(str.encode),
    st.integers(MESSAGE_BYTES - 60, MESSAGE_BYTES + 60).map(lambda size: b'{"type":"sing","pad":"%b"}' % (b"x" * size)),
)  # fmt: skip
closes = st.one_of(
    st.just(b""),
    st.tuples(st.integers(0, 5_100), st.binary(max_size=8)).map(lambda c: c[0].to_bytes(2, "big") + c[1]),
    st.tuples(st.sampled_from([1000, 1001, 3000, 4999]), st.text(max_size=30)).map(
        lambda c: c[0].to_bytes(2, "big") + c[1].encode()
    ),
    st.binary(max_size=130),
)


@attrs.frozen
class Written:
    """One frame as it is put on the wire."""

    opcode: int
    payload: bytes = attrs.field(default=b"", repr=lambda payload: repr(payload[:300]))
    fin: bool = True
    reserved: int = 0
    masked: bool = True


@st.composite
def messages(draw):
    """One text, whole or in fragments, with control frames between them; seldom left without an end."""
    payload = draw(texts)
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3)))
    parts = [payload[a:b] for a, b in zip([0, *cuts], [*cuts, len(payload)], strict=True)]
    frames = []
    for n, part in enumerate(parts):
        last = n == len(parts) - 1
        frames.append(Written(0 if n else 1, part, fin=last and draw(mostly)))
        if not last:
            frames += draw(st.lists(controls, max_size=1))
    return frames


controls = st.builds(Written, st.sampled_from([9, 9, 10]), st.binary(max_size=10))
strange = st.builds(
    Written,
    st.integers(0, 15),
    st.binary(max_size=200),
    fin=mostly,
    reserved=st.sampled_from([0, 0, 0, 1, 2, 4, 7]),
    masked=mostly,
)
conversations = st.lists(
    st.one_of(
        messages(), messages(), messages(), controls.map(lambda frame: [frame]),
        strange.map(lambda frame: [frame]), closes.map(lambda payload: [Written(8, payload)]),
        st.integers(8, 12).map(lambda count: [Written(1, b"no json")] * count),
        st.binary(max_size=20).map(lambda data: [Written(2, data)]),
    ),
    max_size=8,
).map(lambda parts: [frame for part in parts for frame in part])  # fmt: skip


def encode(frames):
    """The bytes of frames; each ping in JSON gets a number of its own, where it stands in one frame."""
    found = bytearray()
    for number, frame in enumerate(frames):
        payload = frame.payload.replace(b"%s", b"%d" % number) if frame.payload == PING else frame.payload
        size = len(payload)
        found.append(frame.fin << 7 | frame.reserved << 4 | frame.opcode)
        if size < 126:
            found.append(frame.masked << 7 | size)
        elif size < 65_536:
            found += bytes([frame.masked << 7 | 126]) + size.to_bytes(2, "big")
        else:
            found += bytes([frame.masked << 7 | 127]) + size.to_bytes(8, "big")
        key = b"\x1f\x2e\x3d\x4c"
        if frame.masked:
            found += key
            payload = (
                bytes(byte ^ key[n % 4] for n, byte in enumerate(payload)) if size < 1_000 else _mask(payload, key)
            )
        found += payload
    return bytes(found)


def _mask(payload, key):
    whole = key * (len(payload) // 4 + 1)
    size = len(payload)
    return (int.from_bytes(payload, "big") ^ int.from_bytes(whole[:size], "big")).to_bytes(size, "big")


@attrs.define
class Judgement:
    """What the service must do about some bytes."""

    pongs: list[bytes] = attrs.Factory(list)
    answers: list[str] = attrs.Factory(list)
    close: set[int] | None = None  # the codes that are right; None: it stays open
    open_end: str = ""  # in the middle of a `frame` or of a `message`: it may find fault already, and need not


class Judge:
    """Follows the oracle's frames as the protocol's words (docs/protocol.md) have it."""

    def __init__(self):
        self.judgement = Judgement()
        self._parts = []
        self._unreadable = 0
        # What the application ends a connection for is found out behind the protocol's back: a fault that came with it
        # may be told first.
        self._own = set()

    def judge(self, data):
        """What is to be done about these bytes."""
        oracle = Protocol(SERVER, max_size=MESSAGE_BYTES)
        oracle.receive_data(data)
        for frame in oracle.events_received():
            self._take(frame)
            if self.judgement.close is not None:
                break
        else:
            self._end(oracle)
        if self._own:
            perhaps = {1002, 1007, 1009} if self.judgement.open_end else set()
            self.judgement.close = self._own | (self.judgement.close or perhaps)
        return self.judgement

    def _end(self, oracle):
        """What the oracle makes of the bytes behind the last whole frame."""
        fault = oracle.parser_exc
        if isinstance(fault, ProtocolError):
            # The oracle takes a close inside a fragmented message for a fault, and RFC 6455 (5.4) does not: any code.
            self.judgement.close = set(range(5_000)) if "incomplete fragmented" in str(fault) else {1002}
        elif isinstance(fault, UnicodeDecodeError):
            self.judgement.close = {1007, 1002}  # of a close whose code may be wrong as well
        elif fault is not None:
            # Inside a fragmented message the oracle counts control frames as parts of it, and they are not.
            self.judgement.close = set(range(5_000)) if self._parts else {1009}
        else:
            oracle.receive_eof()
            self.judgement.open_end = (
                "frame" if "stream ends" in str(oracle.parser_exc) else "message" * bool(self._parts)
            )

    def _take(self, frame):
        if frame.opcode is Opcode.PING:
            self.judgement.pongs.append(bytes(frame.data))
        elif frame.opcode is Opcode.CLOSE:
            code = int.from_bytes(frame.data[:2], "big")
            self.judgement.close = {code} if code else {1000, 1005}
        elif frame.opcode is Opcode.BINARY or (frame.opcode is Opcode.CONT and self._parts and self._parts[0] is None):
            self._parts.append(None)
            if frame.fin:
                self._parts.clear()
                self._own.add(1003)
        elif frame.opcode in {Opcode.TEXT, Opcode.CONT}:
            self._parts.append(bytes(frame.data))
            self._take_text(frame.fin)

    def _take_text(self, whole):
        data = b"".join(self._parts)
        try:
            codecs.getincrementaldecoder("utf-8")().decode(data, whole)
        except UnicodeDecodeError:
            self.judgement.close = {1007}
            return
        if not whole:
            return
        self._parts.clear()
        self._read(data)

    def _read(self, text):
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            message = None
        kind = message.get("type") if isinstance(message, dict) else None
        if kind == "ping":
            self.judgement.answers.append(message.get("messageId"))
        elif text not in REQUESTS:
            self._unreadable += 1
            if self._unreadable > BAD_MESSAGES:
                self._own.add(4500)


class Heard:
    """What the service says, read by a client that accepts no fault."""

    def __init__(self, sock, begun):
        self._sock = sock
        self._client = Protocol(CLIENT, max_size=None)
        self._client.receive_data(begun)
        self.pongs = []
        self.answers = []
        self.code = None
        self.over = False

    def listen(self, enough):
        """Read until it is enough, or over."""
        while not self.over and not enough():
            data = receive(self._sock)
            if not data:
                self.over = True
            self._client.receive_data(data) if data else self._client.receive_eof()
            assert not isinstance(self._client.parser_exc, ProtocolError), self._client.parser_exc
            for frame in self._client.events_received():
                self._take(frame)

    def _take(self, frame):
        if frame.opcode is Opcode.PONG:
            self.pongs.append(bytes(frame.data))
        elif frame.opcode is Opcode.CLOSE:
            self.code = int.from_bytes(frame.data[:2], "big") or 1005
        elif frame.opcode is Opcode.TEXT:
            message = json.loads(frame.data)
            if message["type"] == "pong":
                self.answers.append(message.get("messageId"))


def converse(address, frames, cuts, tail):
    """Say all that, and compare what comes back with what must; gives in a word what it was."""
    data = encode(frames)
    data = data[: len(data) - tail] if tail else data
    expected = Judge().judge(data)
    with connected(address) as sock:
        sock.sendall(HANDSHAKE)
        head = b""
        while b"\r\n\r\n" not in head:
            part = receive(sock)
            assert part, head
            head += part
        assert head.startswith(b"HTTP/1.1 101"), head
        heard = Heard(sock, head.partition(b"\r\n\r\n")[2])
        send(sock, data, cuts)
        if expected.close is None and not expected.open_end:
            sock.sendall(encode([Written(1, LAST)]))
            expected.answers.append("last")
        elif expected.close is None and expected.open_end == "message":
            send(sock, encode([Written(9, b"last")]), ())
            expected.pongs.append(b"last")
        if expected.close is not None:
            heard.listen(lambda: heard.code is not None)
            # Always, and exactly: what came behind the fault is read and dropped (connection.py, `DISCARD_BYTES`, which
            # is more than a conversation has), so that no reset takes the code away.
            assert heard.code in expected.close, (heard.code, expected)
            check_beginning(heard, expected)
        elif expected.open_end:
            if expected.open_end == "message":
                heard.listen(lambda: heard.pongs[-1:] == [b"last"] or heard.code is not None)
            check_beginning(heard, expected)
        else:
            due = len(expected.answers)
            heard.listen(lambda: len(heard.answers) >= due and heard.pongs[-1:] == expected.pongs[-1:])
            assert (None, due) == (heard.code, len(heard.answers))
            check_beginning(heard, expected)
    return f"close {min(expected.close)}" if expected.close else f"open {expected.open_end}"


def check_beginning(heard, expected):
    """What came is what was due. A JSON ping is answered at once, and may overtake one that waits for room; of pings
    that came together one may stand for all.
    """
    assert not Counter(heard.answers) - Counter(expected.answers), (expected.answers, heard.answers)
    due = iter(expected.pongs)
    assert all(pong in due for pong in heard.pongs), (expected.pongs, heard.pongs)


@pytest.mark.slow
@pytest.mark.parametrize("foreign", [False, True], ids=["direct", "asgi"])
async def test_whatever_frames_come_the_service_does_what_the_oracle_says(foreign, request):
    """Right frames are answered in order, wrong ones end their connection with the code for them, and nothing else.

    `--examples N` tries more than CI does.
    """
    async with fuzzed_service(foreign=foreign) as address:

        @many(request)
        @given(conversations, st.lists(st.integers(0, 1 << 17), max_size=4), st.sampled_from([0, 0, 0, 1, 2, 5]))
        def fuzz(frames, cuts, tail):
            event(converse(address, frames, cuts, tail))

        await trio.to_thread.run_sync(fuzz)


@pytest.mark.parametrize(
    "frames", [[Written(8)], [Written(3)], [Written(8), Written(9)]], ids=["close", "fault", "more behind"]
)
def test_a_service_that_resets_without_a_code_is_found_out(frames):
    """Where a close is due its code is, whatever comes behind."""
    with rude_service(b"HTTP/1.1 101 \r\n\r\n") as address, pytest.raises(AssertionError):
        converse(address, frames, (), 0)
