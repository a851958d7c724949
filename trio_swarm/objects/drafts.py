"""From what a turn publishes to a draft: names checked, data encoded, once."""

from functools import lru_cache
from typing import Any, Final

import msgspec

from trio_swarm.journal.event import Draft
from trio_swarm.wire.names import check_key, check_topic, check_type

# The same few names come again and again; a refused one is never kept. 4,096 x 200 bytes each at most.
_topic: Final = lru_cache(4096)(check_topic)
_type: Final = lru_cache(4096)(check_type)
_key: Final = lru_cache(4096)(check_key)

encode_json: Final = msgspec.json.Encoder().encode


def make_draft(topic: str, data: Any, type: str, key: str | None, *, durable: bool, raw: bool) -> Draft:
    """Check the names and encode the data.

    Raises:
        InvalidName: the topic, type or key breaks the naming rules.
        TypeError: the data has no JSON.
    """
    _topic(topic)
    if type != "message":
        _type(type)
    if key is not None:
        _key(key)
    return Draft(bytes(data) if raw else encode_json(data), topic, type, key, durable)


def check_draft(draft: Draft) -> None:
    """Check the names of a draft that was made elsewhere.

    Raises:
        InvalidName: the topic, type or key breaks the naming rules.
    """
    _topic(draft.topic)
    if draft.type != "message":
        _type(draft.type)
    if draft.key is not None:
        _key(draft.key)
