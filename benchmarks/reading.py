"""What a client makes of the bytes it got: whole events, strictly read, once for all clients that got the same bytes.

Reading is pure. A thousand clients get the same range, so a `Reader` keeps what it made of recent bytes and compares
(a memcmp) instead of parsing again; the client process then checks every event of every client at the cost of a few
comparisons, and still parses every byte that differs in full. Only whole units are read: what follows the last whole
one is the `rest`.
"""

import hashlib
import itertools
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

Id = tuple[int, int]

_ID = re.compile(rb"(\d+)-(\d+)")
_RECENT = 1_000  # readings kept; at most a few are current, the rest are for clients that lag
_RECENT_BYTES = 64 << 20
_PREFIX = 160  # bytes that tell ranges apart: the first event's id lies within them


class Malformed(Exception):
    """The server wrote what its protocol does not allow."""


class Unit(NamedTuple):
    """One event or control message: `name` is empty for an event, else the control event's or message's name."""

    name: str
    id: Id | None
    data: bytes
    topic: str


class Reading(NamedTuple):
    """What some bytes hold.

    `plain` says that the events are successive (`first` to `last`), of one topic, and that their ids rise; only then
    do the numbers stand for the whole.
    """

    source: bytes
    rest: bytes
    events: tuple[Unit, ...]
    numbers: tuple[int, ...]
    plain: bool
    first: int
    last: int
    first_id: Id
    last_id: Id
    topic: int
    stamps: tuple[tuple[int, int], ...]  # (nanoseconds at which it was published, events)
    others: tuple[str, ...]
    pings: int


class _Payload(msgspec.Struct):
    ts: int
    seq: int
    t: int


class _Message(msgspec.Struct):
    type: str
    id: str = ""
    topic: str = ""
    event: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")


_payload = msgspec.json.Decoder(_Payload)
_message = msgspec.json.Decoder(_Message)


class Reader:
    """Reads one transport's bytes. `keep` keeps the events themselves; `numbered` reads the benchmark's own payload."""

    def __init__(self, transport: str, *, numbered: bool = True) -> None:
        self._units = {"sse": sse_units, "ws": ws_units}[transport]
        self.ending = {"sse": b"\n\n\r\n", "ws": b"}"}[transport]
        self._numbered = numbered
        self._recent: dict[tuple[int, bytes], Reading] = {}
        self._held = 0

    def read(self, data: bytes) -> Reading:
        """Read all whole units in `data`.

        Raises:
            Malformed: the bytes are not what the protocol allows.
        """
        key = len(data), data[:_PREFIX]
        found = self._recent.get(key)
        if found is not None and found.source == data:
            return found
        if len(self._recent) >= _RECENT or self._held > _RECENT_BYTES:
            self._recent.clear()
            self._held = 0
        reading = self._recent[key] = self._read(data)
        self._held += len(data)
        return reading

    def _read(self, data: bytes) -> Reading:
        units, rest, pings = self._units(data)
        events = tuple(unit for unit in units if not unit.name)
        others = tuple(unit.name for unit in units if unit.name)
        payloads = [_payload.decode(unit.data) for unit in events] if self._numbered else []
        numbers = tuple(payload.seq for payload in payloads)
        ids = [unit.id or (0, 0) for unit in events]
        stamps: dict[int, int] = {}
        for payload in payloads:
            stamps[payload.ts] = stamps.get(payload.ts, 0) + 1
        plain = (
            bool(numbers)
            and numbers == tuple(range(numbers[0], numbers[0] + len(numbers)))
            and all(a < b for a, b in itertools.pairwise(ids))
            and len({payload.t for payload in payloads}) == 1
        )
        return Reading(
            source=data,
            rest=rest,
            events=events,
            numbers=numbers,
            plain=plain,
            first=numbers[0] if numbers else 0,
            last=numbers[-1] if numbers else 0,
            first_id=ids[0] if ids else (0, 0),
            last_id=ids[-1] if ids else (0, 0),
            topic=payloads[0].t if payloads else -1,
            stamps=tuple(stamps.items()),
            others=others,
            pings=pings,
        )


def sse_units(data: bytes) -> tuple[list[Unit], bytes, int]:
    """Read a chunked SSE body; this server puts whole events into each chunk, and that is required here."""
    units: list[Unit] = []
    at = 0
    while (eol := data.find(b"\r\n", at)) >= 0:
        try:
            size = int(data[at:eol], 16)
        except ValueError as error:
            raise Malformed(f"a chunk begins with {data[at : at + 40]!r}") from error
        end = eol + 2 + size
        if len(data) < end + 2:
            break
        if data[end : end + 2] != b"\r\n":
            raise Malformed(f"a chunk ends with {data[end : end + 2]!r}")
        if size:
            units.extend(_sse_events(data[eol + 2 : end]))
        at = end + 2
    return units, data[at:], 0


def _sse_events(body: bytes) -> Iterable[Unit]:
    if not body.endswith(b"\n\n"):
        raise Malformed(f"a chunk holds a part of an event: {body[-40:]!r}")
    for block in body[:-2].split(b"\n\n"):
        name, id_, data = "", None, []
        for line in block.split(b"\n"):
            field, _, value = line.partition(b": ")
            if field == b"data":
                data.append(value)
            elif field == b"id":
                id_ = parse_id(value)
            elif field == b"event":
                name = value.decode()
        yield Unit(name or ("" if data else "position"), id_, b"\n".join(data), "")


def ws_units(data: bytes) -> tuple[list[Unit], bytes, int]:
    """Read unmasked server frames; events come as whole text frames."""
    units: list[Unit] = []
    pings = at = 0
    while len(data) >= at + 2:
        opcode, length = data[at] & 0x0F, data[at + 1]
        head = 2
        if length == 126:
            length, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
        elif length == 127:
            length, head = int.from_bytes(data[at + 2 : at + 10], "big"), 10
        if len(data) < at + head + length:
            break
        body = data[at + head : at + head + length]
        at += head + length
        if opcode == 0x9:
            pings += 1
        elif opcode == 0x8:
            units.append(Unit(f"close {int.from_bytes(body[:2], 'big')}", None, body[2:], ""))
        elif opcode == 0x1:
            units.append(_ws_message(body))
        else:
            raise Malformed(f"a frame with opcode {opcode}")
    return units, data[at:], pings


def _ws_message(body: bytes) -> Unit:
    try:
        message = _message.decode(body)
    except msgspec.DecodeError as error:
        raise Malformed(f"a message that is not ours: {body[:80]!r}") from error
    is_event = message.type == "event" and message.event == "message"
    name = "" if is_event else message.type
    return Unit(name, parse_id(message.id.encode()) if message.id else None, bytes(message.data), message.topic)


def parse_id(text: bytes) -> Id:
    """Read an event id."""
    match = _ID.fullmatch(text)
    if match is None:
        raise Malformed(f"an id {text[:40]!r}")
    return int(match[1]), int(match[2])


class Tally:
    """What one client has had: each number once and in order, or how often not."""

    __slots__ = ("bytes", "disordered", "events", "last_id", "lost", "next", "repeated", "strange", "tail", "topic")

    def __init__(self, topic: int) -> None:
        self.topic = topic  # -1: any
        self.next = 1
        self.last_id: Id = (0, 0)
        self.events = 0
        self.lost = 0
        self.repeated = 0
        self.disordered = 0  # ids that do not rise
        self.strange = 0  # events of a topic that was not asked for
        self.bytes = 0
        self.tail = b""

    def take(self, reading: Reading) -> None:
        """Check what came against what was due."""
        self.events += len(reading.events)
        if (
            reading.plain
            and reading.first == self.next
            and reading.first_id > self.last_id
            and (reading.topic == self.topic or self.topic < 0)
        ):
            self.next = reading.last + 1
            self.last_id = reading.last_id
            return
        if reading.events and reading.topic != self.topic >= 0:
            self.strange += 1
        for number, unit in zip(reading.numbers, reading.events, strict=True):
            if number >= self.next:
                self.lost += number - self.next
                self.next = number + 1
            else:
                self.repeated += 1
            id_ = unit.id or (0, 0)
            self.disordered += id_ <= self.last_id
            self.last_id = id_

    def statistics(self, due: int) -> dict[str, Any]:
        """Return the faults, given how many events this client should have had."""
        return {
            "lost": self.lost + max(0, due + 1 - self.next),
            "repeated": self.repeated,
            "disordered": self.disordered + self.strange,
        }


class Digest(Tally):
    """For events that carry no number: the hash of their bytes in order, and their number."""

    __slots__ = ("_hash", "_seen")

    def __init__(self, topic: int) -> None:
        super().__init__(topic)
        self._hash = hashlib.blake2b(digest_size=16)
        self._seen: set[Id] = set()

    def take(self, reading: Reading) -> None:
        """Add what came to the hash."""
        self.events += len(reading.events)
        update = self._hash.update
        for unit in reading.events:
            update(unit.data + b"\n")
            id_ = unit.id or (0, 0)
            self.repeated += id_ in self._seen
            self._seen.add(id_)
            self.disordered += id_ <= self.last_id
            self.last_id = id_

    def statistics(self, due: int) -> dict[str, Any]:
        """Return the faults, and the hash."""
        faults = {"repeated": self.repeated, "disordered": self.disordered, "lost": max(0, due - self.events)}
        return {**faults, "events": self.events, "digest": self._hash.hexdigest()}
