"""The JSON of the WebSocket protocol: what clients may say, and what they are told.

A client's message is `{"type", "data", "messageId"?, "timestamp"?}`. `parse` gives one of the classes below, in
which every name is checked, or raises `InvalidMessage` with a stable code, a sentence for the one who wrote the
client, and the `messageId` wherever the message is legible enough to hold one. What the protocol does not know is
ignored (`timestamp` is for logs of the client's own), so that newer clients can talk to older servers.

Answers and events leave as bytes. An event's `data` is spliced in as it came: it is encoded once in its life.
`event_message` is also what SSE carries with `format=envelope`.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any

import msgspec

from trio_swarm.errors import InvalidMessage, InvalidName
from trio_swarm.settings import PREFIXES
from trio_swarm.wire.names import MAX_MESSAGE_ID, check_key, check_topic, check_type, split_stream
from trio_swarm.wire.readable import why_unreadable

MAX_BATCH = 1_000  # subscriptions in one message, each with an answer several times its size
_SURROGATE = re.compile(r"\\u[dD][89A-Fa-f]")

MessageId = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_MESSAGE_ID)]


class Subscription(msgspec.Struct, frozen=True):
    """What to subscribe to: `topics` None is all; `since` is an event id, not yet judged."""

    stream: str
    topics: tuple[str, ...] | None = None
    since: str | None = None

    def __post_init__(self) -> None:
        _check(self.stream, self.topics)


class Unsubscription(msgspec.Struct, frozen=True):
    """What to end: the whole stream, or some of its topics."""

    stream: str
    topics: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        _check(self.stream, self.topics)


class Subscriptions(msgspec.Struct, frozen=True):
    """Several at once, done in order."""

    subscriptions: Annotated[tuple[Subscription, ...], msgspec.Meta(min_length=1, max_length=MAX_BATCH)]


class Unsubscriptions(msgspec.Struct, frozen=True):
    """Several at once, done in order."""

    subscriptions: Annotated[tuple[Unsubscription, ...], msgspec.Meta(min_length=1, max_length=MAX_BATCH)]


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """One event as a client gives it; over HTTP this is the body, or a line of it."""

    data: msgspec.Raw
    type: str = "message"
    topic: str = ""
    key: str | None = None
    durable: bool = False
    message_id: MessageId | None = msgspec.field(name="messageId", default=None)

    def __post_init__(self) -> None:
        check_type(self.type)
        check_topic(self.topic)
        if self.key is not None:
            check_key(self.key)


class StreamPublication(Publication, frozen=True, kw_only=True):
    """One event as a client gives it over a WebSocket, where no URL says whither."""

    stream: str

    def __post_init__(self) -> None:
        super().__post_init__()
        split_stream(self.stream)


class Invocation(msgspec.Struct, frozen=True):
    """A call: an array of arguments is positional, an object keywords."""

    stream: str
    method: str
    arguments: list[Any] | dict[str, Any] = msgspec.field(default_factory=list)

    def __post_init__(self) -> None:
        split_stream(self.stream)


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    message_id: MessageId | None = msgspec.field(name="messageId", default=None)


class Subscribe(_Message, frozen=True, kw_only=True, tag="subscribe"):
    """Answered `subscribed`."""

    data: Subscription


class Unsubscribe(_Message, frozen=True, kw_only=True, tag="unsubscribe"):
    """Answered `unsubscribed`."""

    data: Unsubscription


class BatchSubscribe(_Message, frozen=True, kw_only=True, tag="batch_subscribe"):
    """Answered `batch_subscribed`."""

    data: Subscriptions


class BatchUnsubscribe(_Message, frozen=True, kw_only=True, tag="batch_unsubscribe"):
    """Answered `batch_unsubscribed`."""

    data: Unsubscriptions


class Publish(_Message, frozen=True, kw_only=True, tag="publish"):
    """Answered `published`."""

    data: StreamPublication


class Call(_Message, frozen=True, kw_only=True, tag="call"):
    """Answered `result`."""

    data: Invocation


class Ping(_Message, frozen=True, kw_only=True, tag="ping"):
    """Answered `pong`."""


class Pong(_Message, frozen=True, kw_only=True, tag="pong"):
    """Not answered: a sign of life."""


ClientMessage = Subscribe | Unsubscribe | BatchSubscribe | BatchUnsubscribe | Publish | Call | Ping | Pong

_TYPES = ("subscribe", "unsubscribe", "batch_subscribe", "batch_unsubscribe", "publish", "call", "ping", "pong")


class _Envelope(msgspec.Struct):
    """What can still be read of a message that cannot be taken."""

    type: Any = None
    message_id: Any = msgspec.field(name="messageId", default=None)


_decode_message = msgspec.json.Decoder(ClientMessage).decode
_decode_publication = msgspec.json.Decoder(Publication).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_any = msgspec.json.Decoder().decode
_decode_nothing = msgspec.json.Decoder(msgspec.Raw).decode  # only reads over it
_encode = msgspec.json.Encoder().encode


def parse(text: str | bytes) -> ClientMessage:
    """Read what a client sent.

    Raises:
        InvalidMessage: it cannot be taken; see the module.
    """
    try:
        text = _text(text)
        message: ClientMessage = _decode_message(text)
    except InvalidName as error:
        raise InvalidMessage(str(error), _message_id(text), error.code) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _explained(text, error) from error
    _refuse_unreadable(text, message.message_id)
    return message


def parse_publication(text: str | bytes) -> Publication:
    """Read one event of an HTTP publish.

    Raises:
        InvalidMessage: it cannot be taken.
    """
    try:
        text = _text(text)
        publication: Publication = _decode_publication(text)
    except InvalidName as error:
        raise InvalidMessage(str(error), _message_id(text), error.code) from error
    except msgspec.ValidationError as error:
        raise _broken(text) or InvalidMessage(_sentence(error), _message_id(text)) from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _not_json(text, error) from error
    _refuse_unreadable(text, publication.message_id)
    return publication


def parse_arguments(text: str | bytes) -> Any:
    """Read the arguments of an HTTP call.

    Raises:
        InvalidMessage: they are not JSON, or not such as every reader could take.
    """
    try:
        text = _text(text)
        arguments = _decode_any(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _not_json(text, error) from error
    _refuse_unreadable(text, None)
    return arguments


def _check(stream: str, topics: tuple[str, ...] | None) -> None:
    split_stream(stream)
    if topics is not None:
        if not topics:
            raise ValueError("`topics` names none; leave it out to mean all")  # msgspec adds the place
        for topic in topics:
            check_topic(topic)


def _text(text: str | bytes) -> str:
    """As a string: `Raw` parts of bytes would pass through msgspec without being checked to be UTF-8."""
    return text if isinstance(text, str) else text.decode()


def _envelope(text: str | bytes) -> _Envelope:
    try:
        envelope: _Envelope = _decode_envelope(_text(text))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _Envelope()
    return envelope


def _message_id(text: str | bytes) -> str | None:
    found = _envelope(text).message_id
    return found if isinstance(found, str) and 0 < len(found) <= MAX_MESSAGE_ID else None


def _explained(text: str | bytes, error: Exception) -> InvalidMessage:
    if not isinstance(error, msgspec.ValidationError):
        return _not_json(text, error)
    broken = _broken(text)
    if broken is not None:
        return broken
    found = _envelope(text).type
    message_id = _message_id(text)
    if isinstance(found, str) and found not in _TYPES:
        reason = f"there is no message type {found[:80]!r}; there are: {', '.join(_TYPES)}"
        return InvalidMessage(reason, message_id, "unknown_type")
    return InvalidMessage(_sentence(error), message_id)


def _broken(text: str | bytes) -> InvalidMessage | None:
    """Why this is not JSON, which may show only behind the place where the reader stopped; None where it is."""
    try:
        _decode_nothing(_text(text))
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        return _not_json(text, error)
    return None


def _sentence(error: msgspec.ValidationError) -> str:
    """The words of msgspec say what was expected and where."""
    return f"the message is not as expected: {error}"


def _refuse_unreadable(text: str, message_id: str | None) -> None:
    reason = why_unreadable(text)
    if reason is not None:
        raise InvalidMessage(reason, message_id, "invalid_json")


def _not_json(text: str | bytes, error: Exception) -> InvalidMessage:
    if isinstance(error, RecursionError):
        reason = "the JSON is nested too deeply"
    elif isinstance(error, UnicodeError):
        reason = "the text is not valid Unicode"
    elif isinstance(text, str) and _SURROGATE.search(text) is not None:
        reason = "this is not JSON, or half of a surrogate pair stands alone in it"  # of which msgspec says "truncated"
    else:
        reason = f"this is not JSON: {error}"
    return InvalidMessage(reason, None, "invalid_json")


# -- what the server says


def _answer(type_: str, message_id: str | None, data: Any) -> bytes:
    fields: dict[str, Any] = {"type": type_}
    if message_id is not None:
        fields["messageId"] = message_id
    if data is not None:
        fields["data"] = data
    return _encode(fields)


def subscribed(
    message_id: str | None,
    *,
    stream: str,
    id: str,
    recovered: bool,
    gap: tuple[str, str] | None = None,
    snapshot: bytes | None = None,
) -> bytes:
    """The stream goes on after `id`; `gap` is (after, before), `snapshot` is JSON."""
    data: dict[str, Any] = {"stream": stream, "id": id, "recovered": recovered}
    if gap is not None:
        data["gap"] = {"after": gap[0], "before": gap[1]}
    if snapshot is not None:
        data["snapshot"] = msgspec.Raw(snapshot)
    return _answer("subscribed", message_id, data)


def unsubscribed(message_id: str | None, *, stream: str) -> bytes:
    """The subscription is over."""
    return _answer("unsubscribed", message_id, {"stream": stream})


def published(message_id: str | None, *, id: str, count: int) -> bytes:
    """`count` events are in the journal, the last one under `id`."""
    return _answer("published", message_id, {"id": id, "count": count})


def result(message_id: str | None, value: Any) -> bytes:
    """What a call gave.

    Raises:
        TypeError: it cannot be said in JSON.
    """
    return _answer("result", message_id, {"result": value})


def pong(message_id: str | None) -> bytes:
    """The answer to a ping."""
    return _answer("pong", message_id, None)


def error(message_id: str | None, code: str, message: str) -> bytes:
    """The message was not done; `code` is stable."""
    fields: dict[str, Any] = {"type": "error"}
    if message_id is not None:
        fields["messageId"] = message_id
    return _encode({**fields, "code": code, "message": message})


def batch_subscribed(message_id: str | None, results: Sequence[bytes]) -> bytes:
    """The answers of a batch in order, each as it would be alone, without a messageId."""
    return _answer("batch_subscribed", message_id, {"results": [msgspec.Raw(each) for each in results]})


def batch_unsubscribed(message_id: str | None, results: Sequence[bytes]) -> bytes:
    """The answers of a batch in order, each as it would be alone, without a messageId."""
    return _answer("batch_unsubscribed", message_id, {"results": [msgspec.Raw(each) for each in results]})


# -- what streams carry


def event_message(stream: str, topic: str, event: str, id: str, offset: int | None, data: bytes) -> bytes:
    """An event, the same bytes for every client; `data` is JSON. Events of `latest` topics carry no offset."""
    prefix = _event_prefix(stream, topic, event)
    if offset is None:
        return b'%b"%b","data":%b}' % (prefix, id.encode(), data)
    return b'%b"%b","offset":%d,"data":%b}' % (prefix, id.encode(), offset, data)


@lru_cache(maxsize=PREFIXES)
def _event_prefix(stream: str, topic: str, event: str) -> bytes:
    names = (_encode(stream), _encode(topic), _encode(event))
    return b'{"type":"event","stream":%b,"topic":%b,"event":%b,"id":' % names


def gap_message(stream: str, id: str, after: str, before: str) -> bytes:
    """Events above `after`, up to and including `before`, are not delivered; the stream goes on after `id`."""
    return _encode({"type": "gap", "stream": stream, "id": id, "data": {"after": after, "before": before}})


def snapshot_message(stream: str, id: str, data: bytes) -> bytes:
    """The object's state, from which the stream goes on after `id`; `data` is JSON."""
    return _encode({"type": "snapshot", "stream": stream, "id": id, "data": msgspec.Raw(data)})


def status_message(stream: str, feed: str, state: str, reason: str | None) -> bytes:
    """How a feed of the object is doing."""
    return _encode({"type": "status", "stream": stream, "data": {"feed": feed, "state": state, "reason": reason}})
