"""What the query and the headers of a request for events or history say: topics, position, format, number.

A topic holds no comma, so the list is split before its names are decoded. An empty name is the default topic.
"""

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

import attrs

from trio_swarm.errors import InvalidPosition, RequestRefused, TooManyTopics
from trio_swarm.journal.event import EventId
from trio_swarm.wire.names import check_topic
from trio_swarm.wire.percent import decode_name

HISTORY_EVENTS = 100  # an answer without `limit`
MOST_HISTORY_EVENTS = 1_000  # one answer is encoded in one go: a few milliseconds; more is asked for with `since`


@attrs.frozen
class Wanted:
    """Which events a reader wants. `topics` None means all; `since` None means from now."""

    topics: frozenset[str] | None
    since: EventId | None
    envelope: bool = False
    limit: int = HISTORY_EVENTS


def header(scope: Mapping[str, Any], name: bytes) -> bytes | None:
    """The header of this (lower-case) name.

    Raises:
        RequestRefused: it is given twice, and whoever stands between may have read the other one.
    """
    values = [bytes(value) for key, value in scope["headers"] if key.lower() == name]
    if len(values) > 1:
        raise RequestRefused(400, "bad_request", f"the header {name.decode('ascii')} is given twice")
    return values[0] if values else None


def read_wanted(scope: Mapping[str, Any], most_topics: int) -> Wanted:
    """Read a request's query and its Last-Event-ID, which wins over `since`.

    Raises:
        InvalidName, InvalidPosition, RequestRefused, TooManyTopics: what it says cannot be.
    """
    topics: set[str] | None = None
    since: EventId | None = None
    envelope = False
    limit = HISTORY_EVENTS
    for key, value in _pairs(scope["query_string"]):
        if key == b"topics":
            names = value.replace(b"+", b" ").split(b",")
            topics = (topics or set()) | {decode_name("topic", name) for name in names}
        elif key == b"since":
            since = EventId.parse(_position(unquote_to_bytes(value)))
        elif key == b"format":
            if value != b"envelope":
                raise RequestRefused(400, "bad_request", "the only other `format` is envelope")
            envelope = True
        elif key == b"limit":
            limit = _number(value)
    last = header(scope, b"last-event-id")
    if last:
        since = EventId.parse(_position(last))
    return Wanted(check_topics(topics, most_topics), since, envelope, limit)


def check_topics(names: Iterable[str] | None, most: int) -> frozenset[str] | None:
    """Check the topics of one subscription.

    Raises:
        InvalidName, TooManyTopics: one is malformed; there are too many.
    """
    if names is None:
        return None
    topics = frozenset(names)
    if len(topics) > most:
        raise TooManyTopics(most)
    for topic in topics:
        check_topic(topic)
    return topics


def _pairs(query: bytes) -> Iterable[tuple[bytes, bytes]]:
    for part in query.split(b"&"):
        key, _, value = part.partition(b"=")
        yield key, value


def _position(raw: bytes) -> str:
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError:
        raise InvalidPosition(raw.decode("latin-1")) from None


def _number(raw: bytes) -> int:
    if not raw.isdigit() or len(raw) > 9 or not 1 <= (number := int(raw)) <= MOST_HISTORY_EVENTS:
        raise RequestRefused(400, "bad_request", f"`limit` is a number from 1 to {MOST_HISTORY_EVENTS}")
    return number
