"""The tables of `docs/protocol.md`, "What wrong input gets", and the two ways to see that a row holds: as a request,
and as what is said over a WebSocket. Clients are raw sockets here: well-bred ones cannot send any of this.
"""

import json
import re
import struct
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio
from structlog.testing import capture_logs
from worker_rig import client_frame

DOCUMENT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
PATIENCE_S = 60.0
STILL = b'{"type":"ping","messageId":"still there"}'
HANDSHAKE = (
    b"GET /v1/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SERVICE_PINGS = ((9, b""), (1, b'{"type":"ping"}'))
KEPT, CLOSED, RESET = "kept", "closed", "reset"
UNANNOUNCED = "closed without a word"  # the answer does not say `Connection: close`


@attrs.frozen
class Row:
    """One row: what comes, what its sender gets, what becomes of the connection; words behind `;` are for people."""

    sent: str
    gets: str
    fate: str


def tables():
    """The rows by the heading of their table."""
    section = DOCUMENT.partition("\n## What wrong input gets\n")[2].partition("\n## ")[0]
    found = {}
    for part in section.split("\n### ")[1:]:
        entry, _, text = part.partition("\n")
        lines = [line.strip("| ").split(" | ") for line in text.split("\n") if line.startswith("| ")]
        assert lines[0] == ["What comes", "What it gets", "The connection"], entry
        found[entry] = [Row(sent, gets.partition(";")[0], fate.partition(";")[0]) for sent, gets, fate in lines[1:]]
    return found


@attrs.frozen
class Talk:
    """Bytes for a WebSocket that is open; `answers` is how many are waited for, and the last one counts."""

    data: bytes
    answers: int = 1


@attrs.frozen
class Behind:
    """A request, and what follows it when its answer has begun."""

    first: bytes
    then: bytes


def text(*messages):
    """Messages, each answered."""
    return Talk(b"".join(client_frame(1, m if isinstance(m, bytes) else m.encode()) for m in messages), len(messages))


def request(line, *fields, body=b""):
    """A request with a `Host`; `line` is without the version."""
    head = [b"%s HTTP/1.1" % line, b"Host: x", *fields]
    if body:
        head.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(head) + b"\r\n\r\n" + body


class Peer:
    """A raw socket, with what has come and is not yet taken."""

    def __init__(self, stream, nursery):
        self.stream = stream
        self.nursery = nursery
        self.buffer = b""
        self.turn = trio.Lock()

    def push(self, data):
        """Send beside reading: a server may answer before it has read all."""
        self.nursery.start_soon(self._push, data)

    async def _push(self, data):
        try:
            async with self.turn:
                await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # what became of the connection is seen by reading

    async def more(self):
        """Wait for bytes; False at the end."""
        with trio.fail_after(PATIENCE_S):
            piece = await self.stream.receive_some(65_536)
        self.buffer += piece
        return bool(piece)

    async def until(self, enough):
        """Read until `enough(buffer)` gives something, and give that; EOFError at the end."""
        while not (found := enough(self.buffer)):
            if not await self.more():
                raise EOFError
        return found

    async def take(self, count):
        await self.until(lambda data: len(data) >= count)
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    async def end(self):
        """How the connection ends, when nothing more may come on it."""
        try:
            while await self.more():
                pass
        except trio.BrokenResourceError:
            return RESET
        assert self.buffer == b"", self.buffer
        return CLOSED

    async def head(self):
        """The head of a response: its status and its fields."""
        at = await self.until(lambda data: data.find(b"\r\n\r\n") + 1) - 1
        lines = (await self.take(at + 4)).decode("latin-1").strip().split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines[1:])
        return int(lines[0].split(" ")[1]), fields

    async def frame(self):
        """One frame of the server, opcode and payload; its own pings, which come in a long test, are no answer."""
        while (frame := await self._any_frame()) in SERVICE_PINGS:
            pass
        return frame

    async def _any_frame(self):
        first, size = await self.take(2)
        assert first & 0xF0 == 0x80, "a server of ours fragments nothing and reserves nothing"
        if size > 125:
            size = int.from_bytes(await self.take(2 if size == 126 else 8), "big")
        return first & 0x0F, await self.take(size)


@asynccontextmanager
async def peer(service):
    async with await service.connect() as stream, trio.open_nursery() as nursery:
        yield Peer(stream, nursery)
        nursery.cancel_scope.cancel()


async def ask(service, sent):
    """What a request gets, and what becomes of its connection."""
    async with peer(service) as client:
        client.push(sent.first if isinstance(sent, Behind) else sent)
        try:
            status, fields = await client.head()
            while status == 100:
                status, fields = await client.head()
            if status == 101:
                return "101", await _fate_of_websocket(client)
            if fields.get("content-type") == "text/event-stream":
                return await _fate_of_stream(service, client, sent)
            body = await client.take(int(fields["content-length"]))
        except EOFError:
            return "nothing", CLOSED
        except trio.BrokenResourceError:
            return "nothing", RESET
        gets = str(status) if status < 400 else f"{status} {_checked_code(json.loads(body)['error'], fields)}"
        return gets, await (client.end() if fields.get("connection") == "close" else _fate_of_connection(client))


def _checked_code(error, fields=None):
    """The code, in the form of the tables; the sentence is looked at in passing."""
    if fields is not None:
        assert fields["content-type"] == "application/json"
    assert 0 < len(error["message"]) <= 400
    assert "Traceback" not in error["message"]
    assert re.fullmatch("[a-z_]+", error["code"])
    return f"`{error['code']}`"


async def _fate_of_connection(client):
    client.push(request(b"GET /healthz"))
    try:
        status, _ = await client.head()
    except EOFError:
        return UNANNOUNCED
    except trio.BrokenResourceError:
        return RESET
    return KEPT if status == 200 else CLOSED


async def _fate_of_stream(service, client, sent):
    await client.until(lambda data: b"\n\n" in data)
    gets = "200, a gap, the stream" if b"event: gap" in client.buffer else "200, the stream"
    if isinstance(sent, Behind):
        client.buffer = b""
        client.push(sent.then)
        with trio.move_on_after(0.5):  # a foreign host keeps it: then nothing comes
            return gets, await client.end()
    await service.publish("still there")
    await client.until(lambda data: b"still there" in data)
    return gets, KEPT


async def _fate_of_websocket(client):
    client.push(client_frame(1, STILL))
    _, payload = await client.frame()
    return KEPT if json.loads(payload) == {"type": "pong", "messageId": "still there"} else CLOSED


async def say(service, talk):
    """What is got by what is said over a WebSocket, and what becomes of the connection."""
    async with peer(service) as client:
        client.push(HANDSHAKE)
        assert (await client.head())[0] == 101
        client.push(talk.data)
        gets, answers = "nothing", 0
        try:
            while answers < talk.answers:
                opcode, payload = await client.frame()
                if opcode == 8:
                    client.push(client_frame(8, payload[:2]))
                    return str(struct.unpack("!H", payload[:2])[0]), await client.end()
                told = _told(opcode, payload)
                if told is not None:
                    gets, answers = told, answers + 1
        except EOFError:
            return "nothing", CLOSED
        except trio.BrokenResourceError:
            return "nothing", RESET
        client.push(client_frame(1, STILL))
        while b"still there" not in (await client.frame())[1]:
            pass  # more pongs, or events
        return gets, KEPT


def _told(opcode, payload):
    if opcode == 10:
        return "`pong`"
    message = json.loads(payload)
    if message["type"] == "event":
        return None
    if message["type"] == "error":
        return f"error {_checked_code(message)}"
    return f"`{message['type']}`" + (", with a gap" if "gap" in message.get("data", {}) else "")


class Witness:
    """Two readers of one stream, who must get every event in order whatever happens beside them; and the log."""

    def __init__(self, service, sse, ws, log):
        self.service = service
        self.sse = sse
        self.ws = ws
        self.log = log
        self.count = 0

    async def noticed(self):
        """What they have noticed since the last time: nothing, where all is well."""
        self.count += 1
        await self.service.publish(self.count, id="witness")
        while (said := await self.ws.next()) == {"type": "ping"}:  # from a host that cannot send ping frames
            await self.ws.send(type="pong")
        seen = (await self.sse.next()).data, said["data"]
        wrong = [entry for entry in self.log if entry["log_level"] in {"error", "critical"} or "exc_info" in entry]
        self.log.clear()
        return wrong if seen == (self.count, self.count) else [*wrong, seen]


@asynccontextmanager
async def witnessed(service):
    """A witness of this service."""
    with capture_logs() as log:
        async with service.sse("/v1/room/witness/events") as sse, service.ws() as ws:
            await sse.next()
            await ws.subscribe("room/witness")
            yield Witness(service, sse, ws, log)


async def outcome(service, case):
    """What one variant of a row gets, and the fate of its connection."""
    if callable(case):
        return await case(service)
    return await (say if isinstance(case, Talk) else ask)(service, case)


async def outcomes(service, entry, cases):
    """What each row of an entry gets: a set, which holds one pair where all its variants are treated alike."""
    found = {}
    async with witnessed(service) as witness:
        for row in tables()[entry]:
            found[row.sent] = set()
            for case in cases.get(row.sent, ()):
                with trio.fail_after(2 * PATIENCE_S):  # a flood takes its time on a busy machine
                    found[row.sent].add(await outcome(service, case))
                if noticed := await witness.noticed():
                    found[row.sent].add(str(noticed))
    return found
