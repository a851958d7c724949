"""Coinbase's exchange feed: one object a frame; the topic is its `product_id`.

Acknowledgements, heartbeats and the status channel are no events; an `error` is a notice. A frame's `sequence` is
shared by the ticker and the match of one trade, so it is not a number that could tell a repeat.
"""

from collections.abc import Sequence

import msgspec

from trio_swarm.errors import ProtocolViolation
from trio_swarm.upstream.protocols.base import UNDECODABLE, FeedEvent, Notice, event, portions

CHANNELS = ("ticker", "level2", "matches")

_NO_EVENTS = frozenset({"subscriptions", "heartbeat", "status"})


class _Frame(msgspec.Struct, gc=False):
    type: str
    product_id: str | None = None
    message: str | None = None
    reason: str | None = None


class Coinbase:
    """See the module; `channels` are Coinbase's own names."""

    def __init__(self, channels: Sequence[str] = ()) -> None:
        self._channels = list(channels or CHANNELS)
        self._decode = msgspec.json.Decoder(_Frame).decode

    def opening(self) -> list[str]:
        """Nothing: Coinbase waits for the first subscription."""
        return []

    def subscribe(self, topics: Sequence[str]) -> list[str]:
        """One message for all channels of these products."""
        return [self._message("subscribe", some) for some in portions(topics)]

    def unsubscribe(self, topics: Sequence[str]) -> list[str]:
        """The same, backwards."""
        return [self._message("unsubscribe", some) for some in portions(topics)]

    def parse(self, frame: str | bytes) -> FeedEvent | Notice | None:
        """See `FeedProtocol.parse`."""
        try:
            head = self._decode(frame)
        except UNDECODABLE as error:
            raise ProtocolViolation(f"not a Coinbase frame: {error}") from error
        if head.type == "error":
            return Notice(": ".join(text for text in (head.message, head.reason) if text) or "error")
        if head.type in _NO_EVENTS or head.product_id is None:
            return None
        return event(head.product_id, frame)

    def _message(self, kind: str, topics: Sequence[str]) -> str:
        body = {"type": kind, "product_ids": list(topics), "channels": self._channels}
        return msgspec.json.encode(body).decode()
