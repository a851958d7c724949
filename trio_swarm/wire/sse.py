"""Server-sent events, both ways, by the letter of the HTML standard (WHATWG, "Server-sent events").

Writing: a field ends with its line, so a line break inside a value would begin a field of its own. `data` may hold
line breaks (each line becomes a `data` field, which is what the format has them for); an id or a type may not, and
is refused.

Reading: `SseParser` takes the stream in pieces cut anywhere, even inside a character or between CR and LF, and
gives each event as soon as its empty line is there. A line is decoded only when it is whole, so a piece never
matters to the outcome. What waits is bounded.
"""

import attrs

from trio_swarm.errors import ProtocolViolation
from trio_swarm.settings import MIB

MAX_EVENT_BYTES = 4 * MIB  # as upstream frames: the largest known has 709 KB
DEFAULT_TYPE = "message"

_RETRY_DIGITS = 18  # beyond the age of the universe; int() refuses what is much longer
_LF, _CR = b"\n\r"  # as numbers: looking for a byte is quicker than looking for bytes
_BOM = b"\xef\xbb\xbf"


def encode_event(data: bytes, *, id: str | None, event: str | None, retry: int | None = None) -> bytes:
    """One event, which a conformant parser reads as exactly this one; CR and CRLF in `data` become LF.

    Args:
        data: UTF-8.
        id: what the client resumes by; None leaves it as it was.
        event: the type; None, empty and `message` are the default and take no line.
        retry: milliseconds that the client waits before it comes back.

    Raises:
        ProtocolViolation: `id` or `event` holds CR, LF, NUL or a lone surrogate, or `retry` is no whole number or
            negative.
    """
    if _LF in data or _CR in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\ndata: ")
    if id is not None and event is None and retry is None:  # nearly all
        return b"id: %b\ndata: %b\n\n" % (_field("id", id), data)
    if retry is None:
        head = b""
    elif retry.__class__ is not int or retry < 0:  # a float would be cut without a word
        raise ProtocolViolation(f"retry is a whole number of milliseconds, not {retry!r}")
    else:
        head = b"retry: %d\n" % retry
    if id is not None:
        head += b"id: %b\n" % _field("id", id)
    if event and event != DEFAULT_TYPE:
        head += b"event: %b\n" % _field("event", event)
    return b"%bdata: %b\n\n" % (head, data)


def encode_id_only(id: str) -> bytes:
    """No event by the standard, but the client's Last-Event-ID moves on: a heartbeat that saves replay.

    Raises:
        ProtocolViolation: as `encode_event`.
    """
    return b"id: %b\n\n" % _field("id", id)


def chunk(body: bytes) -> bytes:
    """`body` as one chunk of an HTTP/1.1 response; nothing for an empty one, which would end the response."""
    return b"%x\r\n%b\r\n" % (len(body), body) if body else b""


def _field(name: str, value: str) -> bytes:
    if not value.isprintable() and ("\n" in value or "\r" in value or "\0" in value):
        raise ProtocolViolation(f"CR, LF and NUL cannot stand in an SSE {name}: {value[:80]!r}")
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise ProtocolViolation(f"an SSE {name} is not Unicode text: {value[:80]!r}") from error


@attrs.frozen
class SseEvent:
    """One event as a browser would dispatch it."""

    type: str
    data: str
    last_event_id: str


class SseParser:
    """Reads one response body.

    Attributes:
        last_event_id: what to send as Last-Event-ID at the next connect; empty means no header.
        retry_ms: the wait before the next connect, as the server asked for it; None when it did not.

    Args:
        last_event_id: the one that this connection was opened with.
        max_event_bytes: what one event, whole or not yet, may take.
    """

    def __init__(self, last_event_id: str = "", *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self.last_event_id = last_event_id
        self.retry_ms: int | None = None
        self._max = max_event_bytes
        self._line = bytearray()  # a line whose end has not come
        self._begun = False  # past a possible byte order mark
        self._after_cr = False  # an LF now belongs to the line before
        self._id = last_event_id  # takes effect with the next empty line
        self._type = ""
        self._data: list[bytes] = []
        self._size = 0  # of the data above

    def feed(self, piece: bytes) -> list[SseEvent]:
        """Take the next piece; the events that it completes.

        Raises:
            ProtocolViolation: an event is larger than allowed; the stream is of no further use.
        """
        if not piece:
            return []
        if self._after_cr:
            self._after_cr = False
            if piece.startswith(b"\n"):
                piece = piece[1:]
        self._line += piece
        if not self._begun:
            if len(self._line) < len(_BOM) and _BOM.startswith(self._line):
                return []
            self._begun = True
            if self._line.startswith(_BOM):
                del self._line[: len(_BOM)]
        events: list[SseEvent] = []
        if b"\n" in piece or b"\r" in piece:
            lines = self._line.splitlines(keepends=True)
            self._line = bytearray() if lines[-1].endswith((b"\n", b"\r")) else lines.pop()
            self._after_cr = piece.endswith(b"\r")
            for line in lines:
                self._take(bytes(line.rstrip(b"\r\n")), events)
        if self._size + len(self._line) > self._max:
            raise ProtocolViolation(f"an SSE event is larger than {self._max} bytes")
        return events

    def _take(self, line: bytes, events: list[SseEvent]) -> None:
        if not line:
            self._dispatch(events)
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._size += len(value) + 1
            if self._size > self._max:
                raise ProtocolViolation(f"an SSE event is larger than {self._max} bytes")
            self._data.append(value)
        elif name == b"event":
            self._type = _text(value)
        elif name == b"id":
            if b"\0" not in value:
                self._id = _text(value)
        elif name == b"retry" and not value:
            self.retry_ms = None  # back to the client's own; the standard leaves it open, Chromium does this
        elif name == b"retry" and value.isdigit():
            digits = value.lstrip(b"0") or b"0"
            self.retry_ms = int(digits) if len(digits) <= _RETRY_DIGITS else 10**_RETRY_DIGITS

    def _dispatch(self, events: list[SseEvent]) -> None:
        self.last_event_id = self._id
        if self._data:
            events.append(SseEvent(self._type or DEFAULT_TYPE, _text(b"\n".join(self._data)), self._id))
            self._data = []
            self._size = 0
        self._type = ""


def _text(value: bytes) -> str:
    return value.decode(errors="replace")
