"""Clients as cheap as a test needs: plain sockets, the wire read by hand, nothing of the server's own code."""

import base64
import hashlib
import os
import re

import attrs
import msgspec
import trio


class _Gap(msgspec.Struct):
    after: str
    before: str


class _Subscribed(msgspec.Struct):
    id: str
    gap: _Gap | None = None


class _Envelope(msgspec.Struct):
    type: str
    topic: str = ""
    event: str = ""
    id: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")


_RETRY = re.compile(rb"retry_ms=(\d+)")
_decode = msgspec.json.Decoder(_Envelope).decode
_decode_gap = msgspec.json.Decoder(_Gap).decode
_decode_subscribed = msgspec.json.Decoder(_Subscribed).decode


@attrs.define
class Record:
    """What one client received: a count and a hash of each event's data in order, and whatever should not be there."""

    name: str
    topic: str | None
    count: int = 0
    hash: "hashlib._Hash" = attrs.Factory(hashlib.sha256)
    last: tuple[int, int] = (0, 0)
    out_of_order: int = 0
    strange: list[str] = attrs.Factory(list)
    ended: str = ""
    position: str = ""  # what it would resume by
    retry_s: float | None = None  # told by the goodbye, if there was one
    gaps: list[tuple[str, str]] | None = None  # None: a gap is strange

    def connected(self):
        """The stream has begun."""

    def event(self, id, data):
        ms, counter = map(int, id.split("-"))
        if (ms, counter) <= self.last:
            self.out_of_order += 1
        self.last = ms, counter
        self.position = id
        self.count += 1
        self.hash.update(data)
        self.hash.update(b"\n")

    def gap(self, gap):
        if self.gaps is None:
            self.strange.append(f"a gap: {gap}")
        else:
            self.gaps.append((gap.after, gap.before))


async def sse(record, port, path, *, last_event_id=""):
    """Read a stream of server-sent events until cancelled: chunked HTTP/1.1, parsed by hand."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        resume = f"Last-Event-ID: {last_event_id}\r\n" if last_event_id else ""
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{resume}\r\n".encode())
        head, rest = await _read_head(stream)
        if not head.startswith(b"HTTP/1.1 200"):
            record.strange.append(head.decode())
            return
        record.connected()
        raw = bytearray(rest)
        text = bytearray()
        over = False
        while True:
            while not over:
                line_end = raw.find(b"\r\n")
                if line_end < 0:
                    break
                size = int(raw[:line_end], 16)
                if len(raw) < line_end + 2 + size + 2:
                    break
                text += raw[line_end + 2 : line_end + 2 + size]
                del raw[: line_end + 2 + size + 2]
                over = size == 0
            *blocks, text = text.split(b"\n\n")
            for block in blocks:
                _sse_block(record, bytes(block))
            if over:  # the goodbye may have come together with it
                record.ended = "end of the response"
                return
            received = await stream.receive_some(262_144)
            if not received:
                record.ended = "end of file"
                return
            raw += received


def _sse_block(record, block):
    fields = dict(line.partition(b": ")[::2] for line in block.split(b"\n"))
    kind = fields.get(b"event", b"message")
    if b"retry" in fields:
        record.retry_s = int(fields[b"retry"]) / 1000
    if b"id" in fields:
        record.position = fields[b"id"].decode()
    if kind == b"message":
        if b"data" in fields:
            record.event(fields[b"id"].decode(), fields[b"data"])
    elif kind == b"gap":
        record.gap(_decode_gap(fields[b"data"]))
    elif kind not in {b"hello", b"status"}:
        record.strange.append(block.decode())


async def _read_head(stream):
    """The head of an answer, and what came behind it."""
    raw = bytearray()
    while b"\r\n\r\n" not in raw:
        received = await stream.receive_some(65536)
        if not received:
            raise trio.BrokenResourceError("it ended before it answered")
        raw += received
    head, _, rest = bytes(raw).partition(b"\r\n\r\n")
    return head, rest


async def websocket(record, port, stream_name, *, since="0-0", topics=None):
    """Subscribe over a WebSocket and read its frames until cancelled."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        key = base64.b64encode(os.urandom(16)).decode()
        await stream.send_all(
            f"GET /v1/ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head, rest = await _read_head(stream)
        if not head.startswith(b"HTTP/1.1 101"):
            record.strange.append(head.decode())
            return
        record.connected()
        data = {"stream": stream_name, "since": since}
        if topics or record.topic is not None:
            data["topics"] = list(topics or [record.topic])
        subscribe = {"type": "subscribe", "messageId": "1", "data": data}
        await stream.send_all(client_frame(0x1, msgspec.json.encode(subscribe)))
        raw = bytearray(rest)
        while True:
            consumed = 0
            while (frame := _server_frame(raw, consumed)) is not None:
                opcode, payload, consumed = frame
                if opcode == 0x9:
                    await stream.send_all(client_frame(0xA, payload))
                elif opcode == 0x8:
                    record.ended = f"closed {int.from_bytes(payload[:2], 'big')}"
                    told = _RETRY.search(payload)
                    record.retry_s = None if told is None else int(told[1]) / 1000
                    return
                else:
                    _message(record, payload)
            del raw[:consumed]
            received = await stream.receive_some(262_144)
            if not received:
                record.ended = "end of file"
                return
            raw += received


def client_frame(opcode, payload):
    """A whole masked frame."""
    mask = os.urandom(4)
    size = len(payload)
    if size < 126:
        head = bytes([0x80 | opcode, 0x80 | size])
    elif size < 65536:
        head = bytes([0x80 | opcode, 0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x80 | opcode, 0x80 | 127]) + size.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))


def _server_frame(raw, at):
    if len(raw) < at + 2:
        return None
    assert raw[at] & 0x80, "a fragment"
    assert not raw[at + 1] & 0x80, "a masked frame from the server"
    size, begin = raw[at + 1], at + 2
    if size == 126:
        size, begin = int.from_bytes(raw[at + 2 : at + 4], "big"), at + 4
    elif size == 127:
        size, begin = int.from_bytes(raw[at + 2 : at + 10], "big"), at + 10
    if len(raw) < begin + size:
        return None
    return raw[at] & 0xF, bytes(raw[begin : begin + size]), begin + size


def _message(record, payload):
    message = _decode(payload)
    if message.type == "event":
        record.event(message.id, bytes(message.data))
    elif message.type == "gap":
        record.gap(_decode_gap(message.data))
    elif message.type == "subscribed":
        subscribed = _decode_subscribed(message.data)
        record.position = subscribed.id
        if subscribed.gap is not None:
            record.gap(subscribed.gap)
    elif message.type not in {"status", "hello"}:
        record.strange.append(payload.decode())
