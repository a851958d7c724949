"""A hub: one upstream feed, served to any number of clients.

A hub whose feed has a **fixed list of topics** connects at start, stays connected, and never goes idle.

Any other is driven by **demand**: it connects with its first subscriber and subscribes upstream to what its
subscribers name. A topic that nobody names any more is kept for the grace of 5 s, for whoever comes back meanwhile,
and then given up; when the last subscriber has left, the feed itself goes the same way. A subscriber to all topics
names none, holds none, and gets what flows.

Grace periods are deadlines in a table, and one timer for the earliest of them. (source: SwarmHub)
"""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import attrs
import trio

from trio_swarm.errors import SettingsError
from trio_swarm.fanout.stream import Demand
from trio_swarm.objects.durable import DurableObject
from trio_swarm.objects.timers import TaskHandle
from trio_swarm.settings import HUB_JOURNAL, FeedSettings, Limits, UpstreamSettings
from trio_swarm.upstream.feed import FeedStatistics, WebSocketFeed
from trio_swarm.upstream.protocols import FeedEvent
from trio_swarm.upstream.websocket import Opener, open_stream
from trio_swarm.wire.names import check_id

GRACE_S = 5.0  # R11

_SLACK_S = 0.001  # a timer may ring a rounding error before the deadline it was set for

MakeFeed = Callable[[FeedSettings], WebSocketFeed]


@attrs.frozen
class HubConfiguration:
    """What the hubs of one runtime share."""

    feeds: Mapping[str, FeedSettings] = attrs.field(factory=dict)
    make_feed: MakeFeed = WebSocketFeed
    grace_s: float = GRACE_S


class SwarmHub(DurableObject):
    """See the module. Made ready for a runtime by `hub_class`; as it stands it knows no feed."""

    kind = "hub"
    journal = HUB_JOURNAL
    lag_policy = "skip"
    configuration: ClassVar[HubConfiguration] = HubConfiguration()

    @classmethod
    def exists(cls, id: str) -> bool:
        """Only feeds that are configured."""
        return id in cls.configuration.feeds

    @classmethod
    def pinned(cls) -> Sequence[str]:
        """Feeds with a fixed list of topics."""
        return [name for name, feed in cls.configuration.feeds.items() if feed.topics]

    async def start(self) -> None:
        """Connect, if there is a fixed list."""
        self._settings = self.configuration.feeds[self.id]
        self._feed: WebSocketFeed | None = None
        self._handle: TaskHandle | None = None
        self._released: dict[str, float] = {}  # topics that nobody names any more, and when they are given up
        self._close_at: float | None = None  # when the feed is, for nobody is there
        self._timer: TaskHandle | None = None
        if self._settings.topics:
            self._open(pinned=True)

    async def on_message(self, feed: str, message: FeedEvent) -> None:  # noqa: ARG002 - it has one
        """Pass it on, byte for byte."""
        self.publish_raw(message.topic, message.data, key=message.key)

    async def on_demand(self, demand: Demand) -> None:
        """Follow what subscribers want; at once where it is more, after the grace where it is less."""
        if self._settings.topics:
            return
        give_up_at = trio.current_time() + self.configuration.grace_s
        if demand.subscribers == 0:
            if self._feed is not None and self._close_at is None:
                self._close_at = give_up_at
        else:
            self._close_at = None
            if self._feed is None:
                self._open(pinned=False)
        if self._feed is not None:
            for topic in self._feed.topics - demand.topics:
                self._released.setdefault(topic, give_up_at)
            for topic in demand.topics:
                self._released.pop(topic, None)
            self._feed.subscribe(sorted(demand.topics))
        self._set_timer()

    async def feed_statistics(self) -> FeedStatistics | None:
        """A moment of the feed; None while there is none."""
        return None if self._feed is None else self._feed.statistics()

    async def _give_up(self) -> None:
        """The timer's turn."""
        self._timer = None
        if self._feed is None:
            return
        now = trio.current_time() + _SLACK_S
        if self._close_at is not None and self._close_at <= now:
            self._close()
            return
        due = [topic for topic, at in self._released.items() if at <= now]
        for topic in due:
            del self._released[topic]
        self._feed.unsubscribe(due)
        self._set_timer()

    def _set_timer(self) -> None:
        deadlines = [*self._released.values(), *([] if self._close_at is None else [self._close_at])]
        if deadlines and self._timer is None:
            self._timer = self.after(max(0.0, min(deadlines) - trio.current_time()), self._give_up)

    def _open(self, *, pinned: bool) -> None:
        self._feed = self.configuration.make_feed(self._settings)
        self._handle = self.feed(self._feed, pinned=pinned)

    def _close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._feed = self._handle = self._close_at = None
        self._released.clear()


def hub_class(
    feeds: Sequence[FeedSettings],
    upstream: UpstreamSettings | None = None,
    limits: Limits | None = None,
    *,
    grace_s: float = GRACE_S,
    opener: Opener = open_stream,
    rng: random.Random | None = None,
) -> type[DurableObject]:
    """Make the kind `hub` of a runtime.

    Args:
        feeds: one hub each; its id is the feed's name.
        upstream: deadlines and restarts.
        limits: the largest frame.
        grace_s: how long an upstream topic, or the feed, outlives the last who wanted it.
        opener: gives the byte streams; for tests.
        rng: draws the jitter.

    Raises:
        SettingsError: two feeds share a name, a name is no id, or a feed's settings make no feed.
    """

    def make_feed(feed: FeedSettings) -> WebSocketFeed:
        return WebSocketFeed(feed, upstream=upstream, limits=limits, opener=opener, rng=rng)

    named: dict[str, FeedSettings] = {}
    for feed in feeds:
        if feed.name in named:
            raise SettingsError(f"feed {feed.name}", "there are two of this name")
        check_id(feed.name)
        make_feed(feed)  # raises now what it would raise at the first subscriber
        named[feed.name] = feed
    members: dict[str, Any] = {
        "kind": SwarmHub.kind,
        "configuration": HubConfiguration(named, make_feed, grace_s),
        "__doc__": SwarmHub.__doc__,
    }
    return type("SwarmHub", (SwarmHub,), members)
