"""What was asked and how it ended: counted for each request, and a line in the access log where one is wanted.

A request has its line when it is answered, a stream and a WebSocket when they end. The line says who, what and how
long, and never what was in it: no query string (a token may stand there), no header, no payload. The path is what the
client sent, percent-encoded; anything in it that could leave its line, or speak to a terminal, is escaped.

Everything here runs once for each request, so it is written to be cheap: a few microseconds, and no copy of a payload.
"""

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, Literal

import attrs
import msgspec
import trio

from trio_swarm.edge.answers import Message, Scope, Send
from trio_swarm.edge.clients import Client
from trio_swarm.edge.listeners import join_address
from trio_swarm.edge.reasons import GONE
from trio_swarm.edge.transport import DETACHED
from trio_swarm.health.logs import printable

PATH_CHARACTERS: Final = 500  # the longest that can name something: kind, id and method, percent-encoded
_STREAMING: Final = frozenset({101, 200})  # a client with any other status was refused
NOT_ANSWERED: Final = 0  # in place of a status: the client went away first, or the service ended

REQUEST: Final = "request_answered"
STREAM: Final = "stream_ended"
"""The two names of an access log's lines."""


class Answer:
    """The host's `send` for one request, and what went through it."""

    __slots__ = ("action", "began", "client", "send", "sent_bytes", "status")

    def __init__(self, send: Send) -> None:
        self.send = send
        self.action = "invalid"  # what was asked for, once that is known
        self.status = NOT_ANSWERED
        self.sent_bytes = 0  # through here: a stream's own bytes go to the socket
        self.client: Client | None = None
        self.began = trio.current_time()

    def __call__(self, message: Message) -> Awaitable[None]:
        """Pass a message on; no coroutine of our own stands around it."""
        kind = message["type"]
        if kind == "http.response.body":
            self.sent_bytes += len(message.get("body", b""))
        elif kind == "websocket.send":
            self.sent_bytes += len(message.get("text") or message.get("bytes") or b"")
        elif kind == "websocket.accept":
            self.status = 101
        elif kind == "websocket.close":
            self.status = self.status or 403
        elif kind.endswith("http.response.start"):
            self.status = message["status"]
        return self.send(message)


@attrs.frozen
class AnsweredStatistics:
    """Requests so far by (action, status); a status of 0: not answered."""

    counts: dict[tuple[str, int], int]


class _Line(msgspec.Struct, omit_defaults=True):
    timestamp: str
    level: str
    event: str
    method: str
    path: str
    status: int
    seconds: float
    http: str
    client: str | None = None
    bytes: int | None = None
    reason: str | None = None


class AccessLog:
    """See the module.

    Args:
        write: takes a line, without waiting.
        form: for machines, or for people.
        now_ns: the wall clock.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        form: Literal["json", "console"],
        *,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._write = write
        self._form = _json if form == "json" else _console
        self._now_ns = now_ns
        self._second = -1
        self._prefix = ""

    def note(self, scope: Scope, answer: Answer) -> None:
        """Write the line of a request that is over."""
        client = answer.client if answer.status in _STREAMING else None
        raw = scope.get("raw_path")
        path = raw.decode("latin-1") if raw else scope["path"]
        if len(path) > PATH_CHARACTERS:
            path = f"{path[:PATH_CHARACTERS]}…"
        address = scope.get("client")
        line = _Line(
            timestamp=self._timestamp(),
            level="info",
            event=REQUEST if client is None else STREAM,
            method=scope.get("method") or "GET",
            path=printable(path),
            status=answer.status,
            seconds=round(trio.current_time() - answer.began, 6),
            http=scope.get("http_version", ""),
            client=None if address is None else join_address(*address[:2]),
            bytes=None if client is not None and client.is_direct else answer.sent_bytes,
            reason=None if client is None else why_ended(client),
        )
        self._write(self._form(line))

    def _timestamp(self) -> str:
        second, rest = divmod(self._now_ns(), 1_000_000_000)
        if second != self._second:
            self._second = second
            if self._form is _json:
                self._prefix = f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"
            else:  # as the other lines for people have it
                self._prefix = f"{datetime.fromtimestamp(second, UTC).astimezone():%H:%M:%S}"
        return f"{self._prefix}.{rest // 1_000_000:03d}{'Z' if self._form is _json else ''}"


class Answered:
    """Counts requests, and has the access log write them, where there is one."""

    def __init__(self) -> None:
        self.log: AccessLog | None = None
        self._counts: dict[tuple[str, int], int] = {}

    def note(self, scope: Scope, answer: Answer) -> None:
        """A request is over."""
        key = answer.action, answer.status
        self._counts[key] = self._counts.get(key, 0) + 1
        if self.log is not None:
            self.log.note(scope, answer)
        answer.client = None  # the client holds the answer: its memory goes now, not with a collection

    def statistics(self) -> AnsweredStatistics:
        """A moment of the counts."""
        return AnsweredStatistics(dict(self._counts))


def why_ended(client: Client) -> str:
    """Why a client's stream is over, in a few words of ours."""
    if client.why:
        return client.why
    closed_by = client.transport.closed_by
    return "client left" if closed_by in {"", DETACHED, GONE} else closed_by


_encode = msgspec.json.Encoder().encode


def _json(line: _Line) -> bytes:
    return _encode(line) + b"\n"


def _console(line: _Line) -> bytes:
    size = "" if line.bytes is None else f" {line.bytes} B"
    reason = "" if line.reason is None else f" {line.reason}"
    text = f"{line.timestamp} {line.client or '-'} {line.method} {line.path} {line.status}{size}"
    return f"{text} {line.seconds * 1000:.1f} ms{reason}\n".encode()
