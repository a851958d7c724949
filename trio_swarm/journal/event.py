"""An event: what an object published, once it has its place in the object's history."""

import re
from typing import NamedTuple

import attrs

from trio_swarm.errors import InvalidPosition

_ID = re.compile(r"(0|[1-9][0-9]{0,19})-(0|[1-9][0-9]{0,19})", re.ASCII)
_LARGEST = 2**64 - 1  # a Redis stream id is two unsigned 64-bit numbers


class EventId(NamedTuple):
    """`<milliseconds>-<counter>`, the form of a Redis stream id; rises within its journal."""

    ms: int
    counter: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.counter}"

    @classmethod
    def parse(cls, text: str) -> "EventId":
        """Read the textual form.

        Raises:
            InvalidPosition: the text is not an event id.
        """
        match = _ID.fullmatch(text)
        if match is None or (ms := int(match[1])) > _LARGEST or (counter := int(match[2])) > _LARGEST:
            raise InvalidPosition(text)
        return cls(ms, counter)


START = EventId(0, 0)  # `since=0-0`: all that is kept


@attrs.frozen
class Draft:
    """What a turn publishes, before it has its place.

    Attributes:
        data: the event's JSON, UTF-8, without a line break outside of strings having to be avoided.
        type: SSE's `event`; `message` is the default and is left off the wire.
        key: for `latest` topics, what the event is the newest value of.
    """

    data: bytes
    topic: str = ""
    type: str = "message"
    key: str | None = None
    durable: bool = False


@attrs.frozen
class Event:
    """One entry of a journal.

    Attributes:
        seq: its place in the journal, 1 for the first; never leaves the process.
        id: what clients resume by.
        offset: its place in its topic, 1 for the first; None on a `latest` topic.
        at: seconds on the runtime's clock when it entered, for retention by age.
    """

    seq: int
    id: EventId
    topic: str
    type: str
    data: bytes
    key: str | None
    offset: int | None
    at: float
