"""A supervised feed: it connects, subscribes, delivers, and when it falls it comes back by itself.

    connecting --up, subscribed--> live --ended--> connecting (a quick restart, after a jittered delay)
    connecting --three restarts did not help--> down --a probe gets through--> live

What must hold:

- a state is told once when it changes, with the reason of the last failure; a probe that fails changes nothing;
- whatever the peer does (refuses, hangs, falls silent, sends garbage) is this module's affair: only what `deliver`
  raises comes out;
- frames are delivered one at a time and in order, and the next is not taken before `deliver` has returned: a busy
  object holds the feed back, down to TCP. Pings are answered meanwhile, and being held back is never taken for
  silence;
- what is subscribed upstream follows what is wanted: all of it on every new connection, the difference in between.
"""

import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Literal, NoReturn

import attrs
import structlog
import trio

from trio_swarm.errors import FeedUnavailable, ProtocolViolation
from trio_swarm.settings import FeedSettings, Limits, UpstreamSettings
from trio_swarm.upstream.protocols import FeedEvent, FeedProtocol, Notice, make_protocol
from trio_swarm.upstream.restarts import Restarts
from trio_swarm.upstream.sequence import Sequences, Verdict
from trio_swarm.upstream.websocket import Connection, Opener, connect, open_stream, parse_url

FeedState = Literal["connecting", "live", "down"]
Deliver = Callable[[Any], Awaitable[None]]
TellStatus = Callable[[FeedState, str | None], None]

LOGGED_PER_CONNECTION = 5  # complaints and undecodable frames are all counted; a few of them show what is the matter
_LOGGED_CHARACTERS = 200  # of what a feed said

log = structlog.get_logger(__name__)


@attrs.frozen
class FeedStatistics:
    """A moment of one feed. Times are on Trio's clock; counts are since the feed was made."""

    name: str
    state: FeedState
    reason: str | None  # the last failure
    since: float  # when it entered its state
    attempts: int
    connects: int
    failures: int
    frames: int
    events: int
    ignored: int  # acknowledgements, heartbeats
    undecodable: int
    notices: int  # complaints by the feed
    missing: int  # frames that the feed's own numbers say it did not send us
    repeats: int
    topics: int
    received_bytes: int
    last_byte_at: float | None
    last_pong_at: float | None


@attrs.define
class _Counters:
    attempts: int = 0
    connects: int = 0
    failures: int = 0
    frames: int = 0
    events: int = 0
    ignored: int = 0
    undecodable: int = 0
    notices: int = 0
    last_byte_at: float | None = None
    last_pong_at: float | None = None


class WebSocketFeed:
    """One feed over a WebSocket. Satisfies the `Feed` protocol of `objects`; messages are `FeedEvent`s.

    Args:
        settings: name, URL and language.
        upstream: deadlines and restarts.
        limits: the largest frame.
        opener: gives the byte stream.
        rng: draws the jitter.

    Raises:
        SettingsError: the settings make no feed.
    """

    def __init__(
        self,
        settings: FeedSettings,
        *,
        upstream: UpstreamSettings | None = None,
        limits: Limits | None = None,
        opener: Opener = open_stream,
        rng: random.Random | None = None,
    ) -> None:
        self.name = settings.name
        self._url = settings.url
        self._protocol: FeedProtocol = make_protocol(settings)
        self._upstream = upstream or UpstreamSettings()
        self._frame_bytes = (limits or Limits()).upstream_frame_bytes
        self._opener = opener
        self._restarts = Restarts(self._upstream, rng or random.Random())  # noqa: S311 - jitter is no secret
        parse_url(self._url, f"feed {self.name}")
        self._wanted: dict[str, None] = dict.fromkeys(settings.topics)
        self._changed: trio.Event | None = None  # set when `_wanted` changes; there only while connected
        self._sequences = Sequences()
        self._count = _Counters()
        self._received_bytes = 0  # by connections that have ended
        self._connection: Connection | None = None
        self._state: FeedState | None = None
        self._reason: str | None = None
        self._since = 0.0
        self._logged = 0

    @property
    def topics(self) -> frozenset[str]:
        """What is wanted of the feed."""
        return frozenset(self._wanted)

    def subscribe(self, topics: Iterable[str]) -> None:
        """Want these topics from now on.

        Never waits: what is to be sent is sent by the running feed, now or when it is up.
        """
        self._wanted.update(dict.fromkeys(topics))
        self._wake()

    def unsubscribe(self, topics: Iterable[str]) -> None:
        """Want these topics no longer."""
        for topic in topics:
            self._wanted.pop(topic, None)
        self._wake()

    def statistics(self) -> FeedStatistics:
        """A moment of this feed."""
        connection = self._connection
        if connection is not None:
            self._note(connection)
        return FeedStatistics(
            name=self.name,
            state=self._state or "connecting",
            reason=self._reason,
            since=self._since,
            missing=self._sequences.missing,
            repeats=self._sequences.repeats,
            topics=len(self._wanted),
            received_bytes=self._received_bytes + (connection.received_bytes if connection else 0),
            **attrs.asdict(self._count),
        )

    async def run(self, deliver: Deliver, status: TellStatus) -> NoReturn:
        """Keep the feed up until cancelled.

        Args:
            deliver: awaited with each event, one at a time; what it raises ends the feed.
            status: told each change of state.
        """
        self._state = None
        self._become("connecting", None, status)
        while True:
            self._count.attempts += 1
            reason = await self._session(deliver, status)
            self._count.failures += 1
            retry = self._restarts.failed(trio.current_time())
            log.warning("feed_lost", feed=self.name, reason=reason, down=retry.down, retry_s=round(retry.delay_s, 3))
            self._become("down" if retry.down else "connecting", reason, status)
            await trio.sleep(retry.delay_s)

    async def _session(self, deliver: Deliver, status: TellStatus) -> str:
        """One connection from its first byte to its end; the answer is why it ended."""
        try:
            async with connect(
                self.name, self._url, settings=self._upstream, opener=self._opener, frame_bytes=self._frame_bytes
            ) as connection:
                self._connection = connection
                try:
                    await self._talk(connection, deliver, status)
                finally:
                    self._note(connection)
                    self._received_bytes += connection.received_bytes
                    self._connection = None
                    self._changed = None
        except FeedUnavailable as error:
            return error.reason

    async def _talk(self, connection: Connection, deliver: Deliver, status: TellStatus) -> NoReturn:
        self._sequences.reconnected()
        self._logged = 0
        for text in self._protocol.opening():
            await connection.send(text)
        sent: dict[str, None] = {}
        await self._send_difference(connection, sent)
        connection.start_soon(self._keep_subscribed, connection, sent)
        self._count.connects += 1
        self._restarts.succeeded()
        self._become("live", None, status)
        log.info("feed_live", feed=self.name, topics=len(self._wanted))
        while True:
            event = self._read(await connection.receive())
            if event is not None:
                await deliver(event)

    def _read(self, frame: str | bytes) -> FeedEvent | None:
        count = self._count
        count.frames += 1
        try:
            event = self._protocol.parse(frame)
        except ProtocolViolation as error:
            count.undecodable += 1
            if self._may_log():
                log.warning("feed_frame_unreadable", feed=self.name, reason=str(error)[:_LOGGED_CHARACTERS])
            return None
        if isinstance(event, Notice):
            count.notices += 1
            if self._may_log():
                log.warning("feed_complained", feed=self.name, reason=event.text[:_LOGGED_CHARACTERS])
            return None
        if event is None:
            count.ignored += 1
            return None
        if event.sequence is not None and self._sequences.take(event.topic, event.sequence) is Verdict.REPEAT:
            return None
        count.events += 1
        return event

    async def _keep_subscribed(self, connection: Connection, sent: dict[str, None]) -> None:
        while (changed := self._changed) is not None:
            await changed.wait()
            try:
                await self._send_difference(connection, sent)
            except FeedUnavailable:
                return  # the receiving side finds the same, and says why

    async def _send_difference(self, connection: Connection, sent: dict[str, None]) -> None:
        """Bring the other end up to what is wanted. `sent` is what it was told; it changes with each round."""
        self._changed = trio.Event()
        new = [topic for topic in self._wanted if topic not in sent]
        gone = [topic for topic in sent if topic not in self._wanted]
        sent.clear()
        sent.update(self._wanted)
        for text in [*self._protocol.subscribe(new), *self._protocol.unsubscribe(gone)]:
            await connection.send(text)

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()

    def _become(self, state: FeedState, reason: str | None, status: TellStatus) -> None:
        if reason is not None:
            self._reason = reason
        if state != self._state:
            self._state = state
            self._since = trio.current_time()
            status(state, reason)

    def _note(self, connection: Connection) -> None:
        self._count.last_byte_at = connection.last_byte_at
        self._count.last_pong_at = connection.last_pong_at or self._count.last_pong_at

    def _may_log(self) -> bool:
        self._logged += 1
        return self._logged <= LOGGED_PER_CONNECTION
