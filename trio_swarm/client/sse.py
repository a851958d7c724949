"""One connection of server-sent events.

Any server will do. One of ours says `hello` first, and from then on its promises hold: the names of control events are
its own, ids can be compared, so that what was seen is not told twice, and something comes every 10 s, so that silence
is the end. With others an event is an event, whatever its type, and silence means nothing (the kernel watches whether
the other end is there).
"""

import re
from typing import Any

import msgspec
import trio

from trio_swarm.client.access import EVENT_BYTES, Access
from trio_swarm.client.coming_back import bounded
from trio_swarm.client.happenings import Connected, Event, Gap, Problem, Snapshot, Status
from trio_swarm.client.http import Head, HttpConnection
from trio_swarm.client.way import Tell
from trio_swarm.errors import InvalidPosition, ProtocolViolation, ServiceRefused, ServiceUnavailable
from trio_swarm.journal.event import EventId
from trio_swarm.wire.names import CONTROL_TYPES
from trio_swarm.wire.sse import SseEvent, SseParser

_MEDIA = "text/event-stream"
_NO_VALUE = re.compile(rb"[\x00\n\x0b\f\r]")  # h11 sends none of them
_NO_MORE = 204  # by the standard: do not come back


class _Envelope(msgspec.Struct):
    stream: str
    topic: str
    event: str
    data: msgspec.Raw


class _Range(msgspec.Struct):
    after: str
    before: str


class _Complaint(msgspec.Struct):
    code: str
    message: str


class _Hello(msgspec.Struct):
    client: str


class SseWay:
    """Reads one stream, over one connection at a time, and remembers the last id between them.

    Args:
        url: the events' own.
        access: how the service is reached.
        since: the id to begin after; any server's `Last-Event-ID`.
        stream: what events are said to be of.
        envelope: the URL asks for `format=envelope`.
    """

    def __init__(
        self, url: str, *, access: Access, since: str | None = None, stream: str | None = None, envelope: bool = False
    ) -> None:
        self._url = url
        self._access = access
        self._last_id = since or ""
        self._stream = stream
        self._envelope = envelope
        self._ours = False
        self._position: EventId | None = None
        self.retry_s: float | None = None

    async def read(self, tell: Tell) -> None:
        """See `Way.read`."""
        limits = self._access.settings
        http: HttpConnection | None = None
        head: Head | None = None
        try:
            with trio.move_on_after(limits.connect_s):
                http = await HttpConnection.open(self._url, self._access)
                head = await http.ask("GET", self._url, self._headers())
            if http is None or head is None:
                raise ServiceUnavailable(f"no answer within {limits.connect_s:g} s", uncertain=False)
            if head.status == _NO_MORE:
                return
            if head.status != 200:
                raise await http.refusal(head)
            _check(head)
            await tell(Connected())
            await self._follow(http, tell)
        finally:
            if http is not None:
                await http.aclose()

    def _headers(self) -> list[tuple[str, str | bytes]]:
        fields: list[tuple[str, str | bytes]] = [
            ("accept", _MEDIA),
            ("accept-encoding", "identity"),
            ("cache-control", "no-cache"),
        ]
        if last_id := _sendable(self._last_id):
            fields.append(("last-event-id", last_id))
        return fields

    async def _follow(self, http: HttpConnection, tell: Tell) -> None:
        parser = SseParser(self._last_id, max_event_bytes=EVENT_BYTES)
        self._ours = False
        first = True
        while piece := await self._next_piece(http):
            try:
                events = parser.feed(piece)
            except ProtocolViolation as error:  # it would be the same again
                raise ServiceRefused(str(error)) from error
            self.retry_s = None if parser.retry_ms is None else bounded(parser.retry_ms / 1000)
            for event in events:
                if first:
                    self._ours = _is_hello(event)
                    first = False
                happening = self._read(event)
                if happening is not None:
                    await tell(happening)
                self._last_id = event.last_event_id
            self._last_id = parser.last_event_id
        raise ServiceUnavailable("the service ended the stream")

    async def _next_piece(self, http: HttpConnection) -> bytes:
        with trio.CancelScope() as scope:
            if self._ours:
                scope.deadline = trio.current_time() + self._access.settings.dead_s
            return await http.next_piece()
        raise ServiceUnavailable(f"the service was silent for {self._access.settings.dead_s:g} s")

    def _read(self, event: SseEvent) -> Event | Gap | Snapshot | Status | Problem | None:
        """What an event of the wire means; None for what is told already, or is no news."""
        if not self._ours:
            return Event(self._stream, event.last_event_id or None, None, event.type, event.data)
        if event.type in CONTROL_TYPES:
            return self._read_control(event)
        position = _position(event.last_event_id)
        if position is not None:
            if self._position is not None and position <= self._position:
                return None
            self._position = position
        inner = _decoded(event.data, _Envelope) if self._envelope else None
        if inner is None:
            return Event(self._stream, event.last_event_id, None, event.type, event.data)
        return Event(inner.stream, event.last_event_id, inner.topic, inner.event, bytes(inner.data).decode())

    def _read_control(self, event: SseEvent) -> Gap | Snapshot | Status | Problem | None:
        if event.type == "status":
            return Status(self._stream, event.data)
        if event.type == "error":
            complaint = _decoded(event.data, _Complaint) or _Complaint("error", event.data)
            return Problem(self._stream, complaint.code, complaint.message)
        self._position = _position(event.last_event_id)  # the stream goes on from here, wherever that is
        if event.type == "snapshot":
            return Snapshot(self._stream, event.last_event_id, event.data)
        if event.type == "gap" and (missing := _decoded(event.data, _Range)) is not None:
            return Gap(self._stream, missing.after, missing.before)
        return None


def _sendable(id: str) -> bytes:
    """An id as it stands in a header; empty where none can hold it: better none than a connection that never comes up.

    It is UTF-8 by the standard, and HTTP takes white space at its edges for its own.
    """
    value = id.strip(" \t").encode(errors="replace")
    return b"" if _NO_VALUE.search(value) else value


def _check(head: Head) -> None:
    """Refuse what is no stream of events: to ask again would not make it one."""
    if head.media != _MEDIA:
        raise ServiceRefused(f"this is no stream of events, but {head.media or 'of no type'}")
    if head.headers.get("content-encoding", "identity").lower() != "identity":
        raise ServiceRefused("the stream is compressed, although that was not asked for")


def _is_hello(event: SseEvent) -> bool:
    return event.type == "hello" and _decoded(event.data, _Hello) is not None


def _decoded(data: str, type_: Any) -> Any:
    try:
        return msgspec.json.decode(data, type=type_)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _position(text: str) -> EventId | None:
    try:
        return EventId.parse(text)
    except InvalidPosition:
        return None
