"""Kraken's feed, version 1: data is an array that ends with the pair, its topic; objects are system frames.

A channel is named as Kraken names it in its data: `ticker`, `trade`, `spread`, `book`, `book-1000` (a depth),
`ohlc-5` (minutes). Each goes out as a subscription of its own. A `subscriptionStatus` that says `error` is a notice,
as is an `error`.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from trio_swarm.errors import ProtocolViolation
from trio_swarm.upstream.protocols.base import UNDECODABLE, FeedEvent, Notice, event, portions

CHANNELS = ("ticker", "trade", "book")

_DATA_FIELDS = 4  # channel id, one or more payloads, channel name, pair
_PARAMETERS = {"book": "depth", "ohlc": "interval"}


class _System(msgspec.Struct, gc=False):
    event: str
    status: str | None = None
    errorMessage: str | None = None  # noqa: N815 - Kraken's spelling


class Kraken:
    """See the module."""

    def __init__(self, channels: Sequence[str] = ()) -> None:
        self._subscriptions = [_subscription(channel) for channel in channels or CHANNELS]
        self._decode = msgspec.json.Decoder(list[msgspec.Raw] | _System).decode
        self._decode_pair = msgspec.json.Decoder(str).decode

    def opening(self) -> list[str]:
        """Nothing: Kraken greets by itself."""
        return []

    def subscribe(self, topics: Sequence[str]) -> list[str]:
        """One message a channel."""
        return self._messages("subscribe", topics)

    def unsubscribe(self, topics: Sequence[str]) -> list[str]:
        """The same, backwards."""
        return self._messages("unsubscribe", topics)

    def parse(self, frame: str | bytes) -> FeedEvent | Notice | None:
        """See `FeedProtocol.parse`."""
        try:
            content = self._decode(frame)
            if isinstance(content, _System):
                if content.event == "error" or content.status == "error":
                    return Notice(content.errorMessage or content.event)
                return None
            if len(content) < _DATA_FIELDS:
                raise ProtocolViolation(f"not a Kraken frame: an array of {len(content)}")
            pair = self._decode_pair(content[-1])
        except UNDECODABLE as error:
            raise ProtocolViolation(f"not a Kraken frame: {error}") from error
        return event(pair, frame)

    def _messages(self, kind: str, topics: Sequence[str]) -> list[str]:
        return [
            msgspec.json.encode({"event": kind, "pair": list(some), "subscription": subscription}).decode()
            for some in portions(topics)
            for subscription in self._subscriptions
        ]


def _subscription(channel: str) -> dict[str, Any]:
    name, _, number = channel.partition("-")
    if number.isdecimal() and name in _PARAMETERS:
        return {"name": name, _PARAMETERS[name]: int(number)}
    return {"name": channel}
