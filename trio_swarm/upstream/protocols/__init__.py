"""The languages of feeds, one file each, and the table of their names."""

from trio_swarm.errors import SettingsError
from trio_swarm.settings import FeedSettings
from trio_swarm.upstream.protocols.base import FeedEvent, FeedProtocol, Notice
from trio_swarm.upstream.protocols.coinbase import Coinbase
from trio_swarm.upstream.protocols.jsonfeed import JsonFeed
from trio_swarm.upstream.protocols.kraken import Kraken

__all__ = ["PROTOCOLS", "Coinbase", "FeedEvent", "FeedProtocol", "JsonFeed", "Kraken", "Notice", "make_protocol"]

PROTOCOLS = ("coinbase", "jsonfeed", "kraken")

_JSONFEED_ONLY = ("subscribe", "unsubscribe", "topic_path", "key_path", "sequence_path", "skip")


def make_protocol(feed: FeedSettings) -> FeedProtocol:
    """Make the protocol that a feed's settings name.

    Raises:
        SettingsError: there is no such protocol, or the settings give it what it does not take.
    """
    if feed.protocol == "jsonfeed":
        if feed.topics and not ("{topic}" in feed.subscribe or "{topics}" in feed.subscribe):
            raise SettingsError(_where(feed), "has topics, and `subscribe` has no {topic} or {topics} to name them")
        return JsonFeed(
            subscribe=feed.subscribe,
            unsubscribe=feed.unsubscribe,
            topic_path=feed.topic_path,
            key_path=feed.key_path,
            sequence_path=feed.sequence_path,
            skip=feed.skip,
        )
    for name in _JSONFEED_ONLY:
        if getattr(feed, name):
            raise SettingsError(_where(feed), f"`{name}` is for the protocol jsonfeed, not for {feed.protocol}")
    if feed.protocol == "coinbase":
        return Coinbase(feed.channels)
    if feed.protocol == "kraken":
        return Kraken(feed.channels)
    raise SettingsError(_where(feed), f"unknown protocol {feed.protocol!r}; there are: {', '.join(PROTOCOLS)}")


def _where(feed: FeedSettings) -> str:
    return f"feed {feed.name}"
