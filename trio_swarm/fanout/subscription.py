"""A subscription: one reader's position in one stream. It has no queue.

Its life:

    held        made by `Stream.subscribe`; nothing is written for it. `opened()` tells where it begins: at the head,
                where it left off, after a gap, or at a snapshot. The edge writes its greeting, then calls `start()`.
    live        in its view; each pass of the broadcaster gives it the range after its position.
    joining     topics were added from an older position. Its *legs*, each a set of topics at a position of its own, are
                brought forward one by one, the hindmost first and only as far as the next, where they become one. So
                a replay is whole before the first live event, order by id holds within it, and nothing is given
                twice.
    lagging     its position fell off the journal and it waits for a snapshot of the object.
    closed      for good; idempotent.

`position` is a place in the journal; `id` is the last id the reader was given, kept because the journal may forget it.
"""

from typing import TYPE_CHECKING, Any, Literal

import attrs
import trio

from trio_swarm.fanout.encoding import Encoding
from trio_swarm.fanout.sink import Sink
from trio_swarm.fanout.view import Topics, View
from trio_swarm.journal.event import EventId
from trio_swarm.journal.journal import Gap

if TYPE_CHECKING:
    from trio_swarm.fanout.stream import Stream

LagPolicy = Literal["snapshot", "skip", "disconnect"]

MOST_LEGS = 16  # replays under way on one subscription; a client that adds more topics meanwhile waits


@attrs.frozen
class Opening:
    """Where a subscription begins.

    Attributes:
        id: the stream goes on after this id.
        recovered: `since` was given and everything after it will be delivered.
        gap: what will not be delivered, if anything.
        snapshot: the object's state (JSON) as of `id`, if the class gives one and it is needed.
        encoded: the snapshot by the encoding's name, made once for all who share it.
        error: why a snapshot that was wanted could not be had; the stream then goes on without one.
    """

    id: EventId
    recovered: bool = False
    gap: Gap | None = None
    snapshot: bytes | None = None
    error: str | None = None
    encoded: dict[str, Any] = attrs.field(factory=dict, eq=False, repr=False)

    def encode_snapshot(self, stream: str, encoding: Encoding) -> Any:
        """The snapshot as it leaves: the same bytes for all who share it; None where there is none."""
        if self.snapshot is None:
            return None
        if encoding.name not in self.encoded:
            self.encoded[encoding.name] = encoding.snapshot(stream, self.id, self.snapshot)
        return self.encoded[encoding.name]


@attrs.define
class Leg:
    """Some topics at a position of their own, and the last id that a reader of them alone would have been given."""

    topics: Topics
    position: int
    id: EventId


class Subscription:
    """See the module. Made by `Stream.subscribe` only."""

    __slots__ = (
        "_opening",
        "_told",
        "after",
        "beat",
        "closed",
        "encoding",
        "id",
        "legs",
        "owed",
        "policy",
        "position",
        "refusal",
        "sink",
        "started",
        "status_version",
        "stream",
        "topics",
        "view",
        "waiting",
    )

    def __init__(
        self, stream: "Stream", sink: Sink, encoding: Encoding, topics: Topics, policy: LagPolicy | None
    ) -> None:
        self.stream = stream
        self.sink = sink
        self.encoding = encoding
        self.topics = topics
        self.policy = policy
        self.position = 0
        self.id = stream.journal.head_id
        self.view: View | None = None  # set while live, and only then
        self.legs: list[Leg] | None = None  # set while joining
        self.after: EventId | None = None  # the last id before a gap that is not yet told
        self.waiting = False  # for a snapshot
        self.started = False
        self.closed = False
        self.owed: tuple[Any, ...] = ()  # what goes first: a gap, a snapshot, a state for each feed; shared bytes
        self.status_version = 0
        self.beat: EventId | None = None
        self.refusal: Exception | None = None  # why it was closed before it opened
        self._opening: Opening | None = None
        self._told: trio.Event | None = None

    async def opened(self) -> Opening:
        """Wait until it is known where the subscription begins. Cancelling it changes nothing.

        Raises:
            trio.ClosedResourceError: the subscription was closed meanwhile.
            StorageError, ObjectFailed: the object's history cannot be read; the subscription is closed.
        """
        if self._opening is None and not self.closed:
            if self._told is None:
                self._told = trio.Event()
            await self._told.wait()
        else:
            await trio.lowlevel.checkpoint()
        if self._opening is None:
            raise self.refusal or trio.ClosedResourceError
        return self._opening

    def start(self) -> None:
        """Begin to receive: called once, after the greeting has been written."""
        if self.closed or self.started:
            return
        self.started = True
        if self._opening is not None:
            # The snapshot may be large and is shared by all who waited: it must not live as long as the subscription.
            self._opening = attrs.evolve(self._opening, snapshot=None, encoded={})
        self.stream.enter(self)

    def add_topics(self, topics: Topics, since: EventId | None = None) -> Opening:
        """Read more topics: from `since`, or from now. Topics that are read already are not affected.

        Raises:
            trio.WouldBlock: too many replays are under way on this subscription.
        """
        return self.stream.add_topics(self, topics, since)

    def remove_topics(self, topics: frozenset[str]) -> None:
        """Read these topics no longer; without any left the subscription is closed.

        A subscription to all topics goes on: it names none that could be taken away.
        """
        self.stream.remove_topics(self, topics)

    def heartbeat(self) -> None:
        """Where nothing was written since the last call, tell the client how far it is (server-sent events only)."""
        view = self.view
        if view is None or not self.sink.ready:
            return
        self.stream.settle(self)
        if self.beat == self.id and self.position == self.stream.journal.head:
            self.id = self.stream.journal.head_id
            payload = self.encoding.position(self.stream.name, self.id)
            if payload is not None:
                self.sink.write(payload)
        self.beat = self.id

    def has_all(self, until: int) -> bool:
        """Whether it was given everything of its topics up to this place of the journal, or never will be."""
        if self.closed:
            return True
        if not self.started or self.waiting or self.owed or self.legs is not None:
            return False
        return self.position >= until or not self.stream.journal.has_new(self.position, self.topics)

    def close(self) -> None:
        """Leave the stream. Idempotent; nothing is written."""
        if not self.closed:
            self.closed = True
            self.stream.leave(self)
            self.owed = ()
            self.legs = None
            if self._told is not None:
                self._told.set()

    # What the stream tells it

    def open_at(self, position: int, opening: Opening) -> None:
        """Settle where the subscription begins."""
        self.position = position
        self.id = opening.id
        self._opening = opening
        if self._told is not None:
            self._told.set()
            self._told = None

    @property
    def is_open(self) -> bool:
        """Whether it is known where the subscription begins."""
        return self._opening is not None
