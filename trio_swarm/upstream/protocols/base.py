"""What a feed's language is: text in, events out, and no I/O.

A protocol says what to send when topics are wanted and no longer wanted, and what a frame means. It parses only what
it needs (the topic, and for some feeds a key and a sequence number) and passes the frame's own bytes on, so that a
client gets what the feed sent. The decoder still reads the whole frame, because the bytes are spliced into our JSON:
a frame that is not JSON must not get that far.

`parse` has four answers: an event; nothing (an acknowledgement, a heartbeat); a `Notice` (the feed complains); or it
raises, and the frame is counted as undecodable and left out.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import attrs
import msgspec

from trio_swarm.errors import InvalidName, ProtocolViolation
from trio_swarm.wire.names import check_key, check_topic

TOPICS_PER_MESSAGE = 100  # feeds refuse large messages, and a hundred names of 200 bytes are 20 KB

UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@attrs.frozen
class FeedEvent:
    """One frame that is an event.

    Attributes:
        topic: "" where the frame names none.
        data: the frame, byte for byte; always one JSON value.
        key: for `latest` topics, what this is the newest value of.
        sequence: the feed's own number, where the protocol has one a topic.
    """

    topic: str
    data: bytes
    key: str | None = None
    sequence: int | None = None

    @property
    def size(self) -> int:
        """Bytes: a lane holds few large ones."""
        return len(self.data)

    def decode(self) -> Any:
        """The frame as Python values, for objects that look inside."""
        return msgspec.json.decode(self.data)


@attrs.frozen
class Notice:
    """The feed says that something we sent was wrong: worth a line in the log, and no event."""

    text: str


class FeedProtocol(Protocol):
    """One feed's language. Pure: the feed does the sending."""

    def opening(self) -> list[str]:
        """What to send on every new connection, whatever is wanted of it."""

    def subscribe(self, topics: Sequence[str]) -> list[str]:
        """What to send so that these topics come."""

    def unsubscribe(self, topics: Sequence[str]) -> list[str]:
        """What to send so that these topics come no longer."""

    def parse(self, frame: str | bytes) -> FeedEvent | Notice | None:
        """Say what a frame is.

        Raises:
            ProtocolViolation: it is nothing that this feed may send.
        """


def event(topic: str, frame: str | bytes, key: str | None = None, sequence: int | None = None) -> FeedEvent:
    """Make the event of a frame; the one place where a feed's names meet our rules for names.

    Raises:
        ProtocolViolation: the topic or key could be none here, or the frame is not UTF-8.
    """
    try:
        check_topic(topic)
        if key is not None:
            check_key(key)
        if isinstance(frame, str):
            return FeedEvent(topic, frame.encode(), key, sequence)
        frame.decode()  # the JSON decoder does not look inside strings that it skips
    except InvalidName as error:
        raise ProtocolViolation(str(error)) from error
    except UnicodeDecodeError as error:
        raise ProtocolViolation(f"the frame is not UTF-8: {error.reason}") from error
    return FeedEvent(topic, frame, key, sequence)


def portions(topics: Sequence[str]) -> list[Sequence[str]]:
    """Cut many topics into what one message may name."""
    return [topics[start : start + TOPICS_PER_MESSAGE] for start in range(0, len(topics), TOPICS_PER_MESSAGE)]
