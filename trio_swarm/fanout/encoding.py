"""How a range of events leaves: once per format and range, the same bytes for every client at that position.

An `Encoding` turns events, and the control events that fan-out itself makes, into the payload one kind of sink takes.
The direct forms carry their framing (HTTP chunks, WebSocket frames), so that a payload goes to the socket as it is;
the others leave the framing to the ASGI host.

    SSE_CHUNKED, SSE_ENVELOPE_CHUNKED   bytes, each range one HTTP/1.1 chunk
    SSE, SSE_ENVELOPE                   bytes, framed by the host
    WS_FRAMES                           bytes, one unmasked text frame an event
    WS_TEXTS                            a tuple of texts, framed by the host
    EVENTS                              a tuple of the `Event`s themselves, for readers in this process
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import attrs
import msgspec

from trio_swarm.journal.event import Event, EventId
from trio_swarm.journal.journal import Gap
from trio_swarm.wire import frames, messages, sse

_encode = msgspec.json.encode


@attrs.frozen
class GapNotice:
    """Fan-out's `gap`: what lay above `gap.after` up to and including `gap.before` is not delivered."""

    id: EventId
    gap: Gap


@attrs.frozen
class SnapshotNotice:
    """The object's state (JSON) as of `id`."""

    id: EventId
    data: bytes


@attrs.frozen
class StatusNotice:
    """A feed's state: connecting, live or down; not journalled."""

    feed: str
    state: str
    reason: str | None


class Encoding(Protocol):
    """One format. Every method gives a whole payload; `stream` is `kind/id`."""

    name: str

    def events(self, stream: str, events: Sequence[Event]) -> Any:
        """Encode a range."""

    def gap(self, stream: str, id: EventId, gap: Gap) -> Any:
        """Encode a gap whose stream goes on after `id`."""

    def snapshot(self, stream: str, id: EventId, data: bytes) -> Any:
        """Encode the object's state as of `id`."""

    def status(self, stream: str, feed: str, state: str, reason: str | None) -> Any:
        """Encode a feed's state."""

    def position(self, stream: str, id: EventId) -> Any:
        """Encode a heartbeat that moves the client's last id on; None where the format has none."""

    def greeting(self, id: EventId, client: str, gap: Gap | None, *, is_all: bool) -> Any:
        """Encode what a new stream begins with; None where the format answers in another way.

        `is_all`: no snapshot follows.
        """


def _gap_data(gap: Gap) -> dict[str, str]:
    """The JSON of a gap, as documented."""
    return {"after": str(gap.after), "before": str(gap.before)}


class _Sse:
    """Server-sent events: the event's JSON as it is."""

    def __init__(self, name: str, *, envelope: bool, chunked: bool) -> None:
        self.name = name
        self._envelope = envelope
        self._wrap = sse.chunk if chunked else bytes

    def events(self, stream: str, events: Sequence[Event]) -> bytes:
        encode = sse.encode_event
        if self._envelope:
            parts = [
                encode(
                    messages.event_message(stream, e.topic, e.type, str(e.id), e.offset, e.data),
                    id=str(e.id),
                    event=None if e.type == "message" else e.type,
                )
                for e in events
            ]
        else:
            parts = [encode(e.data, id=str(e.id), event=None if e.type == "message" else e.type) for e in events]
        return self._wrap(b"".join(parts))

    def gap(self, stream: str, id: EventId, gap: Gap) -> bytes:  # noqa: ARG002 - the stream is the URL's
        return self._wrap(sse.encode_event(_encode(_gap_data(gap)), id=str(id), event="gap"))

    def snapshot(self, stream: str, id: EventId, data: bytes) -> bytes:  # noqa: ARG002
        return self._wrap(sse.encode_event(data, id=str(id), event="snapshot"))

    def status(self, stream: str, feed: str, state: str, reason: str | None) -> bytes:  # noqa: ARG002
        data = _encode({"feed": feed, "state": state, "reason": reason})
        return self._wrap(sse.encode_event(data, id=None, event="status"))

    def position(self, stream: str, id: EventId) -> bytes:  # noqa: ARG002
        return self._wrap(sse.encode_id_only(str(id)))

    def greeting(self, id: EventId, client: str, gap: Gap | None, *, is_all: bool) -> bytes:
        # Only the last of them carries the position: a client cut off between them must not resume after what it
        # has not seen.
        told = [("hello", _encode({"client": client}))]
        if gap is not None:
            told.append(("gap", _encode(_gap_data(gap))))
        last = len(told) - 1 if is_all else None
        parts = [
            sse.encode_event(data, id=str(id) if index == last else None, event=event)
            for index, (event, data) in enumerate(told)
        ]
        return self._wrap(b"".join(parts))


class _WebSocket:
    """JSON messages; `pack` makes of their payloads what the sink takes."""

    def __init__(self, name: str, pack: Callable[[Sequence[bytes]], Any]) -> None:
        self.name = name
        self._pack = pack

    def events(self, stream: str, events: Sequence[Event]) -> Any:
        message = messages.event_message
        return self._pack([message(stream, e.topic, e.type, str(e.id), e.offset, e.data) for e in events])

    def gap(self, stream: str, id: EventId, gap: Gap) -> Any:
        return self._pack([messages.gap_message(stream, str(id), str(gap.after), str(gap.before))])

    def snapshot(self, stream: str, id: EventId, data: bytes) -> Any:
        return self._pack([messages.snapshot_message(stream, str(id), data)])

    def status(self, stream: str, feed: str, state: str, reason: str | None) -> Any:
        return self._pack([messages.status_message(stream, feed, state, reason)])

    def position(self, stream: str, id: EventId) -> None:  # noqa: ARG002 - pings keep a WebSocket alive
        return None

    def greeting(self, id: EventId, client: str, gap: Gap | None, *, is_all: bool) -> None:  # noqa: ARG002
        return None  # the answer `subscribed` says it


def _frames(payloads: Sequence[bytes]) -> bytes:
    return b"".join(map(frames.text_frame, payloads))


def _texts(payloads: Sequence[bytes]) -> tuple[str, ...]:
    return tuple(payload.decode() for payload in payloads)


class _Events:
    """No bytes at all: readers in this process share the events."""

    name = "events"

    def events(self, stream: str, events: Sequence[Event]) -> tuple[Event, ...]:  # noqa: ARG002
        return tuple(events)

    def gap(self, stream: str, id: EventId, gap: Gap) -> tuple[GapNotice, ...]:  # noqa: ARG002
        return (GapNotice(id, gap),)

    def snapshot(self, stream: str, id: EventId, data: bytes) -> tuple[SnapshotNotice, ...]:  # noqa: ARG002
        return (SnapshotNotice(id, data),)

    def status(self, stream: str, feed: str, state: str, reason: str | None) -> tuple[StatusNotice, ...]:  # noqa: ARG002
        return (StatusNotice(feed, state, reason),)

    def position(self, stream: str, id: EventId) -> None:  # noqa: ARG002
        return None

    def greeting(self, id: EventId, client: str, gap: Gap | None, *, is_all: bool) -> None:  # noqa: ARG002
        return None


SSE_CHUNKED: Encoding = _Sse("sse-chunked", envelope=False, chunked=True)
SSE_ENVELOPE_CHUNKED: Encoding = _Sse("sse-envelope-chunked", envelope=True, chunked=True)
SSE: Encoding = _Sse("sse", envelope=False, chunked=False)
SSE_ENVELOPE: Encoding = _Sse("sse-envelope", envelope=True, chunked=False)
WS_FRAMES: Encoding = _WebSocket("websocket-frames", _frames)
WS_TEXTS: Encoding = _WebSocket("websocket-texts", _texts)
EVENTS: Encoding = _Events()
