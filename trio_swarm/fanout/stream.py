"""A stream: the journal of one object, and its readers.

Publishing appends to the journal and marks the views of the topics concerned; it never waits and never touches a
client. The broadcaster does the rest. What must be true at every moment:

- a reader's position only moves forward over events that were written to its sink, that it did not ask for, or that a
  gap told it about;
- a reader that is not visited is judged by its topics' marks in the journal, not by its position: a topic that never
  speaks does not make its readers lag;
- a snapshot enters through `give_snapshot`, which the object layer calls in commit order: at that moment the journal's
  head is the last event before the snapshot, so the reader goes on there without a gap or a repeat.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import trio

from trio_swarm.bounded.allowance import Allowance
from trio_swarm.errors import TooManySubscriptions
from trio_swarm.fanout.encoding import Encoding
from trio_swarm.fanout.footprints import Footprints
from trio_swarm.fanout.sink import LAGGED, Sink
from trio_swarm.fanout.snapshots import SnapshotBatch, Snapshots
from trio_swarm.fanout.subscription import MOST_LEGS, LagPolicy, Leg, Opening, Subscription
from trio_swarm.fanout.view import RangeCache, Topics, View
from trio_swarm.journal.event import Draft, EventId
from trio_swarm.journal.history import Durability, History
from trio_swarm.journal.journal import Gap, Journal, JournalStatistics

if TYPE_CHECKING:
    from trio_swarm.fanout.broadcaster import Broadcaster

_serials = itertools.count(1)


@attrs.frozen
class Demand:
    """What a stream's readers want: the topics they name, and how many readers there are (those of all topics too)."""

    topics: frozenset[str]
    subscribers: int


@attrs.frozen
class StreamStatistics:
    """A moment of one stream."""

    name: str
    journal: JournalStatistics
    subscribers: int
    lagging: int
    views: int


class Stream:
    """See the module. Made by `Streams.open` only."""

    def __init__(
        self,
        name: str,
        journal: Journal,
        broadcaster: "Broadcaster",
        now: Callable[[], float],
        cache: RangeCache,
        footprints: Footprints,
        interest: Allowance,
        *,
        recalled: bool = True,
    ) -> None:
        self.name = name
        self.journal = journal
        self.lag_policy: LagPolicy = "skip"
        self.on_demand: Callable[[], None] | None = None
        self._broadcaster = broadcaster
        self._now = now
        self._cache = cache
        self._footprints = footprints
        self._interest = interest  # topics that readers name, of all streams
        self._subscriptions: dict[Subscription, None] = {}
        self._views: dict[tuple[Topics, str], View] = {}
        self._by_topic: dict[str, dict[View, None]] = {}
        self._of_all: dict[View, None] = {}
        self._wanted: Counter[str] = Counter()
        self._statuses: dict[str, tuple[str, str | None, int]] = {}  # with the version in which it changed
        self._status_version = 0
        self._snapshots = Snapshots(name, journal, broadcaster)
        self.durability = Durability(journal.start)
        self._unplaced: dict[Subscription, EventId | None] | None = None if recalled else {}

    # The object's side

    @property
    def recalled(self) -> bool:
        """Whether its durable history, if it has one, is in the journal. Until then readers wait, and nothing comes."""
        return self._unplaced is None

    def recall(self, history: History | None, age_of: Callable[[EventId], float]) -> None:
        """Begin with what storage holds, and tell those who wait where they begin. Only the first time counts."""
        waiting, self._unplaced = self._unplaced, None
        if waiting is None:
            return
        if history is not None:
            self.durability = Durability(self.journal.start, history)
            self.journal.restore(history, self._now(), age_of)
            self._footprints.note(self.journal)
        for reader, since in waiting.items():
            self._place(reader, since)

    def refuse_unplaced(self, error: Callable[[], Exception]) -> None:
        """The history cannot be had: whoever waits for it is told, and is no reader any more."""
        for reader in tuple(self._unplaced or ()):
            reader.refusal = error()
            reader.close()

    def publish(self, stamped: Sequence[tuple[EventId, Draft]]) -> None:
        """Append committed events, in the order of their ids, and have them delivered. Never waits."""
        now = self._now()
        append = self.journal.append
        by_topic = self._by_topic
        dirty: dict[View, None] = {}
        for id_, draft in stamped:
            append(id_, draft, now)
            views = by_topic.get(draft.topic)
            if views is not None:
                dirty.update(views)
        dirty.update(self._of_all)
        self._footprints.note(self.journal)
        self._broadcaster.published += len(stamped)
        if dirty:
            self._broadcaster.mark(dirty)

    def status(self, feed: str, state: str, reason: str | None = None) -> None:
        """Tell all readers, now and those to come, what state a feed is in; it is not journalled."""
        self._status_version += 1
        self._statuses[feed] = (state, reason, self._status_version)
        self._broadcaster.visit(self._subscriptions)

    def forget_status(self, feed: str) -> None:
        """The feed has ended: readers to come are not told of it. Idempotent."""
        self._statuses.pop(feed, None)

    @property
    def ask_snapshot(self) -> Callable[[], None] | None:
        """How a snapshot turn is asked for; None where the class has none. Setting it asks again for all who wait."""
        return self._snapshots.ask

    @ask_snapshot.setter
    def ask_snapshot(self, ask: Callable[[], None] | None) -> None:
        self._snapshots.ask = ask

    def take_waiters(self) -> SnapshotBatch:
        """Called as the snapshot's turn begins: who asked until now shares it, who asks from now on asks again."""
        return self._snapshots.take()

    def give_snapshot(self, batch: SnapshotBatch, data: bytes) -> None:
        """Hand the state (JSON) to those who wait. Called in commit order: the head is the last event before it."""
        self._snapshots.give(batch, data)

    def snapshot_failed(self, batch: SnapshotBatch, reason: str) -> None:
        """The snapshot's turn raised: those who wait go on live, with their gap, without a snapshot."""
        self._snapshots.fail(batch, reason)

    def abandon_snapshots(self, reason: str) -> None:
        """The object has failed: nobody will answer those who wait, nor those whom a dead turn had taken."""
        self._snapshots.abandon(reason)

    def end(self) -> None:
        """The object is gone for good, or the runtime ends: whoever still reads is ended too."""
        for reader in tuple(self._subscriptions):
            reader.sink.abort("the runtime ends")
            reader.close()

    @property
    def demand(self) -> Demand:
        """What the readers want at this moment."""
        return Demand(frozenset(self._wanted), len(self._subscriptions))

    # The readers' side

    def subscribe(
        self,
        sink: Sink,
        *,
        encoding: Encoding,
        topics: Topics = None,
        since: EventId | None = None,
        policy: LagPolicy | None = None,
    ) -> Subscription:
        """Make a reader, held until `start()`. `policy` replaces the class's lag policy for this reader.

        Raises:
            TooManySubscriptions: all readers together name as many topics as they may.
        """
        self._take_interest(topics)
        reader = Subscription(self, sink, encoding, topics, policy)
        self._subscriptions[reader] = None
        self.journal.on_fold = self._before_fold
        self._broadcaster.attach(reader)
        if self._unplaced is None:
            self._place(reader, since)
        else:
            self._unplaced[reader] = since
        self._want(topics, 1)
        return reader

    def enter(self, reader: Subscription) -> None:
        """A held reader begins."""
        if reader.legs is None:
            self._join_view(reader)
        self._broadcaster.visit((reader,))

    def add_topics(self, reader: Subscription, topics: Topics, since: EventId | None) -> Opening:
        """See `Subscription.add_topics`."""
        journal = self.journal
        fresh = topics if topics is None or reader.topics is None else topics - reader.topics
        if reader.closed or reader.topics is None or (fresh is not None and not fresh):
            return Opening(reader.id, recovered=since is not None)
        if not self.recalled or (reader.legs is not None and len(reader.legs) >= MOST_LEGS):
            raise trio.WouldBlock
        self._take_interest(fresh)
        if since is None:
            opening, position = Opening(journal.head_id), journal.head
        else:
            resumed = journal.resume(since, fresh)
            opening, position = Opening(since, recovered=True, gap=None), resumed.position
            if resumed.gap is not None:
                opening = Opening(resumed.id, gap=resumed.gap)
        if reader.waiting:  # the snapshot brings all topics to one position; what it stands for must be told
            opening = Opening(journal.head_id)
            if since is not None:
                reader.after = since if reader.after is None else min(reader.after, since)
        else:
            self.settle(reader)
            legs = reader.legs or [Leg(reader.topics, reader.position, reader.id)]
            if len(legs) > 1 or legs[0].position != position:
                self._leave_view(reader)
                reader.legs = sorted([*legs, Leg(fresh, position, opening.id)], key=lambda leg: leg.position)
        known = reader.topics
        reader.topics = None if fresh is None else known | fresh
        self._interest.give(0 if fresh is not None else len(known))
        if fresh is None:
            self._want(known, -1)
        else:
            self._want(fresh, 1)
        if reader.started and reader.legs is None and not reader.waiting and not reader.owed:
            self._leave_view(reader)
            self._join_view(reader)
        self._broadcaster.visit((reader,))
        return opening

    def remove_topics(self, reader: Subscription, topics: frozenset[str]) -> None:
        """See `Subscription.remove_topics`."""
        if reader.closed or reader.topics is None:
            return
        gone, rest = topics & reader.topics, reader.topics - topics
        if not rest:
            reader.close()
            return
        self._want(gone, -1)
        self._interest.give(len(gone))
        reader.topics = rest
        if reader.legs is not None:
            for leg in reader.legs:
                leg.topics = None if leg.topics is None else leg.topics - gone
            reader.legs = [leg for leg in reader.legs if leg.topics is None or leg.topics]
            self.merge_legs(reader)
        elif reader.view is not None:
            self._leave_view(reader)
            self._join_view(reader)
        self._broadcaster.visit((reader,))

    def leave(self, reader: Subscription) -> None:
        """A reader is closed."""
        self._leave_view(reader)
        self._snapshots.forget(reader)
        if self._unplaced is not None:
            self._unplaced.pop(reader, None)
        self._subscriptions.pop(reader, None)
        if not self._subscriptions:
            self.journal.on_fold = None  # breaks a cycle: a history that is dropped goes now, not with a collection
        self._broadcaster.detach(reader)
        self._interest.give(1 if reader.topics is None else len(reader.topics))
        self._want(reader.topics, -1)

    # The broadcaster's side

    def settle(self, reader: Subscription) -> None:
        """Bring a reader that has had everything of its topics to the head. It moves over events it did not ask for."""
        journal = self.journal
        if (
            reader.view is not None
            and reader.position != journal.head
            and not journal.lost(reader.position, reader.topics)
            and not journal.has_new(reader.position, reader.topics)
        ):
            reader.position = journal.head

    def lagged(self, reader: Subscription) -> None:
        """A live reader's position fell off the journal: do what the policy says."""
        self._leave_view(reader)
        after = min([reader.id, *(leg.id for leg in reader.legs or ())])
        reader.legs = None
        policy = reader.policy or self.lag_policy
        if policy == "disconnect":
            reader.sink.abort(LAGGED)
            reader.close()
        elif policy == "snapshot" and self._snapshots.ask is not None:
            reader.after = after
            self._snapshots.wait(reader)
        else:
            id_ = self.journal.head_id
            reader.owed = (*reader.owed, reader.encoding.gap(self.name, id_, Gap(after, id_)))
            reader.position, reader.id = self.journal.head, id_
            self._broadcaster.visit((reader,))

    def merge_legs(self, reader: Subscription) -> None:
        """Make one of the hindmost legs that stand at the same position; the last one left is live again."""
        legs = reader.legs
        if legs is None:
            return
        while len(legs) > 1 and legs[0].position >= legs[1].position:
            first = legs.pop(0)
            second = legs[0].topics
            legs[0].topics = None if first.topics is None or second is None else first.topics | second
            legs[0].id = max(first.id, legs[0].id)
        if len(legs) == 1:
            reader.position = legs[0].position
            reader.legs = None
            if reader.started and not reader.owed:
                self._join_view(reader)

    def resume_live(self, reader: Subscription) -> None:
        """A reader whose gap or snapshot has been written goes on."""
        if reader.view is None and reader.legs is None and not reader.waiting and reader.started:
            self._join_view(reader)

    def status_payloads(self, reader: Subscription) -> list[Any]:
        """The states this reader has not been told."""
        told = reader.status_version
        if told == self._status_version:
            return []
        reader.status_version = self._status_version
        return [
            reader.encoding.status(self.name, feed, state, reason)
            for feed, (state, reason, version) in self._statuses.items()
            if version > told
        ]

    @property
    def subscribers(self) -> int:
        """How many readers there are, held ones too."""
        return len(self._subscriptions)

    def statistics(self) -> StreamStatistics:
        """A moment of this stream."""
        lagging = sum(r.position != self.journal.head and not r.sink.ready for r in self._subscriptions)
        return StreamStatistics(self.name, self.journal.statistics(), self.subscribers, lagging, len(self._views))

    def behind(self) -> int:
        """How many readers have not yet been given everything, or have it still on its way to their socket."""
        return sum(
            not r.sink.ready or (r.position != self.journal.head and self.journal.has_new(r.position, r.topics))
            for r in self._subscriptions
        )

    # Inside

    def _place(self, reader: Subscription, since: EventId | None) -> None:
        """Tell a new reader where it begins, or have it wait for a snapshot."""
        if since is None:
            if self._snapshots.ask is not None:
                self._snapshots.wait(reader)
            else:
                reader.open_at(self.journal.head, Opening(self.journal.head_id))
        else:
            resumed = self.journal.resume(since, reader.topics)
            if resumed.gap is None:
                reader.open_at(resumed.position, Opening(since, recovered=True))
            elif self._snapshots.ask is not None and (reader.policy or self.lag_policy) == "snapshot":
                reader.after = since
                self._snapshots.wait(reader)
            else:
                # A client that comes back is never sent away again: it would come back with the same id.
                reader.open_at(resumed.position, Opening(resumed.id, gap=resumed.gap))

    def _join_view(self, reader: Subscription) -> None:
        key = reader.topics, reader.encoding.name
        view = self._views.get(key)
        if view is None:
            view = View(self.name, self.journal, reader.topics, reader.encoding, next(_serials), self._cache)
            self._views[key] = view
            if reader.topics is None:
                self._of_all[view] = None
            else:
                for topic in reader.topics:
                    self._by_topic.setdefault(topic, {})[view] = None
        view.readers[reader] = None
        reader.view = view

    def _leave_view(self, reader: Subscription) -> None:
        view = reader.view
        if view is None:
            return
        reader.view = None
        view.readers.pop(reader, None)
        if view.readers:
            return
        view.close()
        del self._views[view.topics, view.encoding.name]
        self._of_all.pop(view, None)
        for topic in view.topics or ():
            views = self._by_topic[topic]
            del views[view]
            if not views:
                del self._by_topic[topic]

    def _take_interest(self, topics: Topics) -> None:
        if not self._interest.take(1 if topics is None else len(topics)):
            raise TooManySubscriptions(self._interest.limit)

    def _want(self, topics: Topics, change: int) -> None:
        for topic in topics or ():
            self._wanted[topic] += change
            if self._wanted[topic] <= 0:
                del self._wanted[topic]
        if self.on_demand is not None:
            self.on_demand()

    def _before_fold(self) -> None:
        """The journal is about to forget whose its oldest marks are: readers of quiet topics are not to pay for it."""
        for reader in self._subscriptions:
            self.settle(reader)
