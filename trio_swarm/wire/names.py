"""What kinds, ids, topics and event types may be called.

Names travel in URLs, SSE fields, JSON and log lines, so control characters are out everywhere, and what has a
meaning of its own in a URL (`/` and dot segments in an id, `,` between topics) is out where it would be misread.
Each check gives the name back.
"""

import re

from trio_swarm.errors import InvalidName

MAX_NAME_BYTES = 200
MAX_MESSAGE_ID = 200  # characters: it is kept for a while, to know a repeated message
CONTROL_TYPES = frozenset({"hello", "gap", "snapshot", "status", "open", "error"})  # said by the service itself

_KIND = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)
_TEXT = re.compile("[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{0,200}")
_TOPIC = re.compile("[^\x00-\x1f\x7f-\x9f\ud800-\udfff,]{0,200}")
_ID = re.compile("[^\x00-\x1f\x7f-\x9f\ud800-\udfff/]{1,200}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_CHARACTER_BYTES = 4


def check_kind(kind: str) -> str:
    """A kind: a letter, then letters, digits and underscores, lower case.

    Raises:
        InvalidName: it is not.
    """
    if _KIND.fullmatch(kind) is None:
        raise InvalidName("kind", kind, "a lower-case letter, then at most 31 of a-z, 0-9 and _")
    return kind


def check_id(id: str) -> str:
    """An object's id, decoded: one segment of a URL's path.

    Raises:
        InvalidName: it is not.
    """
    if _ID.fullmatch(id) is None or _too_long(id) or id in {".", ".."}:
        raise InvalidName("id", id, "1 to 200 bytes of UTF-8 without control characters and '/', and not '.' or '..'")
    return id


def check_topic(topic: str) -> str:
    """A topic; the empty one is the topic of events that name none.

    Raises:
        InvalidName: it is not.
    """
    if _TOPIC.fullmatch(topic) is None or _too_long(topic):
        raise InvalidName("topic", topic, "at most 200 bytes of UTF-8 without control characters and ','")
    return topic


def check_message_id(text: str) -> str:
    """A message id: the client's own text, of whatever characters.

    Raises:
        InvalidName: it is empty, too long, or no text.
    """
    if not 0 < len(text) <= MAX_MESSAGE_ID:
        raise InvalidName("message id", text, f"1 to {MAX_MESSAGE_ID} characters")
    if _SURROGATE.search(text) is not None:
        raise InvalidName("message id", text, "text that UTF-8 can write")
    return text


def check_type(type: str) -> str:
    """An event's type as a publisher gives it; those of control events are taken.

    Raises:
        InvalidName: it is not.
    """
    if not type or _TEXT.fullmatch(type) is None or _too_long(type):
        raise InvalidName("event type", type, "1 to 200 bytes of UTF-8 without control characters")
    if type in CONTROL_TYPES:
        raise InvalidName("event type", type, f"reserved are {', '.join(sorted(CONTROL_TYPES))}")
    return type


def check_key(key: str) -> str:
    """A key, of which `latest` topics keep the newest event.

    Raises:
        InvalidName: it is not.
    """
    if _TEXT.fullmatch(key) is None or _too_long(key):
        raise InvalidName("key", key, "at most 200 bytes of UTF-8 without control characters")
    return key


def split_stream(stream: str) -> tuple[str, str]:
    """The kind and the id of `kind/id`.

    Raises:
        InvalidName: it is no stream's name.
    """
    kind, slash, id_ = stream.partition("/")
    if not slash:
        raise InvalidName("stream", stream, "it is called <kind>/<id>")
    return check_kind(kind), check_id(id_)


def _too_long(name: str) -> bool:
    return len(name) * _MAX_CHARACTER_BYTES > MAX_NAME_BYTES and len(name.encode()) > MAX_NAME_BYTES
