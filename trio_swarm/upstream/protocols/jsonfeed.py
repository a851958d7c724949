"""Any feed that speaks JSON over a WebSocket, described by its settings alone.

    [[feed]]
    name = "bitmex"
    protocol = "jsonfeed"
    url = "wss://www.bitmex.com/realtime"
    topics = ["XBTUSD", "BCHUSD"]             # leave it out: what clients subscribe to is subscribed upstream
    subscribe = '{"op":"subscribe","args":["orderBookL2:{topic}","quote:{topic}","trade:{topic}"]}'
    unsubscribe = '{"op":"unsubscribe","args":["orderBookL2:{topic}","quote:{topic}","trade:{topic}"]}'
    topic_path = "data.0.symbol"              # a frame without it has the topic ""
    skip = ["info", "success", "error"]       # frames that have one of these are no events

**Templates.** `{topics}` is a JSON list of topics: one message for up to a hundred. `{topic}` stands for one topic
inside a JSON string: one message each. A `subscribe` with neither is sent once on each connection, whatever is
wanted.

**Paths** are keys joined by dots; a number (`0`, `-1`) is a place in a list, or a key where there is an object. What
a path leads to may be missing: then there is no topic (""), no key, no sequence. A key or topic may be text or a
number; a sequence is a whole number.

**Skip rules.** `path` skips frames that have it; `path=value` those where it is that text, number, `true`, `false` or
`null`.

Nothing is decoded but the way along the paths: the decoder cuts a level into raw pieces and opens only those needed.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from trio_swarm.errors import ProtocolViolation
from trio_swarm.upstream.protocols.base import UNDECODABLE, FeedEvent, Notice, event, portions

_Path = tuple[str, ...]

_encode = msgspec.json.encode
_open_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_open_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


class JsonFeed:
    """See the module.

    Args:
        subscribe: the template of a subscription.
        unsubscribe: the template of its end; without one, topics are never given up upstream.
        topic_path: dotted path of the topic.
        key_path: dotted path of the key for `latest` topics.
        sequence_path: dotted path of the feed's own number, rising by one within a topic.
        skip: rules of what is no event.
    """

    def __init__(
        self,
        *,
        subscribe: str = "",
        unsubscribe: str = "",
        topic_path: str = "",
        key_path: str = "",
        sequence_path: str = "",
        skip: Sequence[str] = (),
    ) -> None:
        self._subscribe = subscribe
        self._unsubscribe = unsubscribe
        self._topic = _path(topic_path)
        self._key = _path(key_path)
        self._sequence = _path(sequence_path)
        self._skip = [_rule(text) for text in skip]

    def opening(self) -> list[str]:
        """The subscription, if it names no topics."""
        return [self._subscribe] if self._subscribe and not _names_topics(self._subscribe) else []

    def subscribe(self, topics: Sequence[str]) -> list[str]:
        """The filled template."""
        return _fill(self._subscribe, topics)

    def unsubscribe(self, topics: Sequence[str]) -> list[str]:
        """The filled template."""
        return _fill(self._unsubscribe, topics)

    def parse(self, frame: str | bytes) -> FeedEvent | Notice | None:
        """See `FeedProtocol.parse`."""
        try:
            top = _split(frame)
            for path, value in self._skip:
                found = _walk(top, path)
                if found is not None and (value is None or value == _text(found)):
                    return None
            topic = _text(_walk(top, self._topic)) or ""
            key = _text(_walk(top, self._key))
            sequence = _whole(_walk(top, self._sequence))
        except UNDECODABLE as error:
            raise ProtocolViolation(f"not JSON: {error}") from error
        return event(topic, frame, key, sequence)


def _path(text: str) -> _Path:
    return tuple(text.split(".")) if text else ()


def _rule(text: str) -> tuple[_Path, str | None]:
    path, equals, value = text.partition("=")
    return _path(path), value if equals else None


def _names_topics(template: str) -> bool:
    return "{topic}" in template or "{topics}" in template


def _fill(template: str, topics: Sequence[str]) -> list[str]:
    if "{topics}" in template:
        return [template.replace("{topics}", _encode(list(some)).decode()) for some in portions(topics)]
    if "{topic}" in template:
        return [template.replace("{topic}", _encode(topic).decode()[1:-1]) for topic in topics]
    return []


def _split(raw: Any) -> Any:
    """Open one level: an object or a list of raw pieces; of anything else, the value."""
    if isinstance(raw, msgspec.Raw):
        first = bytes(memoryview(raw)[:1])
    else:
        raw = raw.strip()  # only a whole frame can have space around it
        first = raw[:1] if isinstance(raw, bytes) else raw[:1].encode()
    if first == b"{":
        return _open_object(raw)
    if first == b"[":
        return _open_list(raw)
    return msgspec.json.decode(raw)


def _walk(level: Any, path: _Path) -> Any:
    """Follow a path from an opened level; None where it leads nowhere, or is empty.

    A JSON null is a `Raw` like any value.
    """
    if not path:
        return None
    last = len(path) - 1
    for place, step in enumerate(path):
        if isinstance(level, dict):
            found = level.get(step)
        elif isinstance(level, list):
            found = _at(level, step)
        else:
            return None
        if found is None or place == last:
            return found
        level = _split(found)
    return None


def _at(pieces: list[msgspec.Raw], step: str) -> msgspec.Raw | None:
    try:
        return pieces[int(step)]
    except (ValueError, IndexError):
        return None


def _text(raw: msgspec.Raw | None) -> str | None:
    """A scalar as text: a string's content, else its JSON; None for what is no scalar, or is not there."""
    if raw is None:
        return None
    piece = bytes(raw)
    if piece[:1] in (b"{", b"["):
        return None
    return msgspec.json.decode(piece, type=str) if piece[:1] == b'"' else piece.decode()


def _whole(raw: msgspec.Raw | None) -> int | None:
    if raw is None:
        return None
    piece = bytes(raw)
    return int(piece) if piece.removeprefix(b"-").isdigit() else None
