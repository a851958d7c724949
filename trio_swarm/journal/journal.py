"""The journal: the bounded history of one object, and the one place that knows what it has forgotten.

Events stand in a line; the first ever has seq 1, and `seq` counts on without a hole. A reader is a *position*: the
seq of the last event that it has. Forgetting takes the oldest, by count, bytes or age, so what is kept is always
`tail + 1 .. head`, and the newest event is never forgotten by its own arrival.

**A gap is certain.** Each topic remembers the newest of its events that a reader could miss (its mark). A reader of
some topics has lost something exactly if its position is below one of their marks: a busy topic that pushes others
out is no gap for a quiet one. On a `latest` topic an event that a newer one of its key has replaced can be missed
by nobody, so only the forgetting of a key's newest event raises the mark. Topics beyond the limit are dropped with
their marks folded into one floor (`topics.py`), which can only make a gap more likely, never hide one.

Pure: no clock, no I/O. `append` is on the path of every event, `read` of every reader's every pass.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence

import attrs

from trio_swarm.journal.event import START, Draft, Event, EventId
from trio_swarm.journal.history import History
from trio_swarm.journal.ranges import choose, cut
from trio_swarm.journal.topics import Topic, Topics
from trio_swarm.settings import RANGE_BYTES, JournalSettings

OVERHEAD_BYTES = 64  # counted for each event beside its data: a burst of empty events is no free lunch
# What the parts of a journal cost in memory, measured by `benchmarks/memory.py`:
EVENT_BYTES = 560  # an event beside what `bytes` counts: id, names of 20 characters, its places in four lists
TOPIC_BYTES = 560  # a topic, with its name and mark
KEY_BYTES = 100  # a key of a `latest` topic, beside its event: a place in a table that grows by halves
_SLACK = 512  # places of forgotten events at the front of the line before it is moved together
_FORGOTTEN = Event(seq=0, id=START, topic="", type="", data=b"", key=None, offset=None, at=0.0)  # frees the memory


@attrs.frozen
class Gap:
    """Events with ids above `after`, up to and including `before`, may be missing: only those that follow are given."""

    after: EventId
    before: EventId


@attrs.frozen
class Resumed:
    """The answer to `since`: where the reader goes on, by which id it would find back there, and what it has missed."""

    position: int
    id: EventId
    gap: Gap | None = None


@attrs.frozen
class Range:
    """The next events of a reader, and its position when it has them."""

    events: tuple[Event, ...]
    end: int


@attrs.frozen
class JournalStatistics:
    """`events`, `bytes`, `topics` and `keys` are what is held now; `head` and `forgotten` count from the beginning."""

    events: int
    bytes: int
    topics: int
    keys: int
    head: int
    forgotten: int


def never(_topic: str) -> bool:
    """No topic is `latest`."""
    return False


class Journal:
    """One object's history; see the module.

    Args:
        start: an id taken from the clock when the journal began; every event's id lies above it.
        settings: what is kept.
        topics_limit: topics known at once.
        keys_limit: keys of `latest` topics known at once; an event with one more key is kept as if nothing replaced it.
        latest: says of a topic whether only the newest event of each key counts. Asked once a topic.

    Attributes:
        head: the seq of the newest event, 0 when there was none.
        head_id: its id, or `start`.
        bytes: the data kept, with 64 bytes an event.
        on_fold: called just before the floor rises: a reader of topics without news should be moved to `head` by then.
    """

    __slots__ = (
        "_age",
        "_base",
        "_events",
        "_keys",
        "_keys_limit",
        "_latest",
        "_limit_bytes",
        "_limit_events",
        "_mark",
        "_mark_id",
        "_sums",
        "_tail",
        "_tail_id",
        "_topics",
        "bytes",
        "head",
        "head_id",
        "on_fold",
        "start",
    )  # fmt: skip

    def __init__(
        self,
        *,
        start: EventId,
        settings: JournalSettings,
        topics_limit: int = 10_000,
        keys_limit: int = 10_000,
        latest: Callable[[str], bool] = never,
    ) -> None:
        self.start = start
        self.head = 0
        self.head_id = start
        self.bytes = 0
        self.on_fold: Callable[[], None] | None = None
        self._limit_events = max(1, settings.events)
        self._limit_bytes = settings.bytes
        self._age = settings.age_s
        self._latest = latest
        self._keys_limit = keys_limit
        self._keys: dict[tuple[str, str | None], int] = {}  # of latest topics: the seq of the newest kept event
        self._topics = Topics(topics_limit, start)
        self._events: list[Event] = []  # the event with seq s is at s - base - 1; those up to `tail` are forgotten
        self._sums: list[int] = [0]  # beside each event, all bytes before it, and last all bytes ever (`ranges.py`)
        self._base = 0
        self._tail = 0
        self._tail_id = start
        self._mark = 0  # the highest mark of any topic, dropped ones too
        self._mark_id = start

    def __len__(self) -> int:
        return self.head - self._tail

    @property
    def footprint(self) -> int:
        """What it costs in memory, about: `bytes` counts what clients get, and a Python object is larger."""
        kept = self.head - self._tail
        return self.bytes + kept * EVENT_BYTES + len(self._topics) * TOPIC_BYTES + len(self._keys) * KEY_BYTES

    def shrink(self) -> None:
        """Forget the older half of the events, but never the newest one, and all topics that have none."""
        until = min(self.head - 1, self._tail + (self.head - self._tail + 1) // 2)
        while self._tail < until:
            self._forget()
        if self._topics.empty:
            if self.on_fold is not None:
                self.on_fold()
            while self._topics.empty:
                self._topics.fold()

    # -- growing and forgetting

    def restore(self, history: History, now: float, age_of: Callable[[EventId], float]) -> None:
        """Begin with the durable history of an earlier life. `age_of`: seconds since an id was given.

        Raises:
            ValueError: something was published already.
        """
        if self.head:
            raise ValueError(f"a journal with {self.head} events has begun already")
        topics = self._topics
        topics.floor_id = self.start if history.losses.lossy else history.losses.floor
        kept = Counter(draft.topic for _, draft in history.events)
        for name, topic in sorted(history.topics.items(), key=lambda item: item[1].mark):
            if len(topics) >= topics.limit:
                topics.fold()
            topics[name] = topics.empty[name] = Topic(
                self._latest(name), 0, max(topic.mark, START), count=max(0, topic.count - kept[name])
            )
        self._mark_id = max([topics.floor_id, *(topic.mark_id for topic in topics.values())])
        self._tail_id = self.head_id = START
        for id_, draft in history.events:
            self.append(id_, draft, now - age_of(id_))
        self.head_id = self.start
        self.expire(now)

    def append(self, id: EventId, draft: Draft, now: float) -> Event:
        """Add an event, then forget what exceeds the settings.

        Raises:
            ValueError: the id is not above the newest one.
        """
        if id <= self.head_id:
            raise ValueError(f"event ids rise: {id} does not come after {self.head_id}")
        name = draft.topic
        topics = self._topics
        topic = topics.get(name)
        if topic is None:
            topic = self._add_topic(name)
        elif not topic.seqs:
            del topics.empty[name]
        data = draft.data
        self.head = seq = self.head + 1
        self.head_id = id
        topic.count = count = topic.count + 1
        if topic.latest:
            event = Event(seq, id, name, draft.type, data, draft.key, None, now)
            key = (name, draft.key)
            if key in self._keys or len(self._keys) < self._keys_limit:
                self._keys[key] = seq
        else:
            event = Event(seq, id, name, draft.type, data, draft.key, count, now)
        size = len(data) + OVERHEAD_BYTES
        self._events.append(event)
        sums = self._sums
        sums.append(sums[-1] + size)
        topic.seqs.append(seq)
        sums = topic.sums
        sums.append(sums[-1] + size)
        self.bytes = held = self.bytes + size
        if seq - self._tail > self._limit_events or held > self._limit_bytes:
            while seq - self._tail > self._limit_events or (self.bytes > self._limit_bytes and self._tail < seq - 1):
                self._forget()
        if self._events[self._tail - self._base].at < now - self._age:
            self.expire(now)
        return event

    def expire(self, now: float) -> None:
        """Forget what is older than the settings allow."""
        oldest = now - self._age
        while self._tail < self.head and self._events[self._tail - self._base].at < oldest:
            self._forget()

    def _forget(self) -> None:
        """Forget the oldest event."""
        place = self._tail - self._base
        event = self._events[place]
        self._events[place] = _FORGOTTEN
        self._tail = seq = self._tail + 1
        self._tail_id = event.id
        self.bytes -= len(event.data) + OVERHEAD_BYTES
        name = event.topic
        topic = self._topics[name]
        if not topic.latest or self._was_newest(name, event.key, seq):
            topic.mark = self._mark = seq
            topic.mark_id = event.id
            self._mark_id = max(self._mark_id, event.id)  # of another life more may be lost than this
        if topic.forget_first():
            self._topics.empty[name] = topic
        place += 1
        if place >= _SLACK and place * 4 >= len(self._events):
            del self._events[:place]
            del self._sums[:place]
            self._base = seq

    def _was_newest(self, name: str, key: str | None, seq: int) -> bool:
        """Take a forgotten event's key out of the table, unless a newer event has replaced it."""
        newest = self._keys.get((name, key))
        if newest == seq:
            del self._keys[name, key]
            return True
        return newest is None

    def _add_topic(self, name: str) -> Topic:
        topics = self._topics
        if len(topics) >= topics.limit:
            if not topics.empty:
                while len(topics.empty) < topics.bulk and self._tail < self.head:
                    self._forget()
            if self.on_fold is not None:
                self.on_fold()
            topics.fold()
        topic = Topic(self._latest(name), topics.floor, topics.floor_id)
        topics[name] = topic
        return topic

    # -- judging

    def lost(self, position: int, topics: frozenset[str] | None) -> bool:
        """Has anything of these topics (None: all) been forgotten that a reader at this position has not had?"""
        if position >= self._mark:
            return False
        return topics is None or position < self._topics.mark_of(topics)[0]

    def resume(self, since: EventId, topics: frozenset[str] | None) -> Resumed:
        """Where a reader goes on that has had all up to `since`, and whether it has missed something for certain."""
        if since == START:
            return Resumed(self._tail, since)
        if since > self.head_id:
            return self._gap(since)
        mark_id = self._mark_id if topics is None else self._topics.mark_of(topics)[1]
        if since < self.start:  # of another life: whatever of it is lost, what is kept follows
            position = self._tail if since < self._tail_id else self._position_of(since)
            if since >= mark_id:
                return Resumed(position, since)
            id_ = since if position < self.head and self._events[position - self._base].id <= mark_id else mark_id
            return Resumed(position, id_, Gap(since, mark_id))
        if since >= self._tail_id:
            return Resumed(self._position_of(since), since)
        return self._gap(since) if since < mark_id else Resumed(self._tail, since)

    def newest_id(self, topic: str) -> EventId:
        """The id above which nothing was published into this topic."""
        known = self._topics.get(topic)
        if known is None:
            return self._topics.floor_id
        return self._events[known.seqs[-1] - self._base - 1].id if known.seqs else known.mark_id

    def knows(self, topic: str) -> bool:
        """Whether the topic is in its table; those that are not have no kept event."""
        return topic in self._topics

    def has_new(self, position: int, topics: frozenset[str] | None) -> bool:
        """Is anything kept that a reader of these topics at this position has not had?"""
        if topics is None:
            return position < self.head and self._tail < self.head
        for name in topics:
            topic = self._topics.get(name)
            if topic is not None and topic.seqs and topic.seqs[-1] > position:
                return True
        return False

    def id_at(self, position: int) -> EventId:
        """The id that stands for a position: resuming by it leads back there."""
        if position >= self.head:
            return self.head_id
        if position <= self._tail:
            return self._tail_id
        return self._events[position - self._base - 1].id

    def statistics(self) -> JournalStatistics:
        """Figures for people and metrics."""
        return JournalStatistics(
            events=self.head - self._tail,
            bytes=self.bytes,
            topics=len(self._topics),
            keys=len(self._keys),
            head=self.head,
            forgotten=self._tail,
        )

    def _gap(self, since: EventId) -> Resumed:
        return Resumed(self.head, self.head_id, Gap(since, self.head_id))

    def _position_of(self, since: EventId) -> int:
        """The newest event with an id not above `since`, which is not below the tail's."""
        place = bisect_right(self._events, since, self._tail - self._base, key=lambda event: event.id)
        return self._base + place

    # -- reading

    def read(self, position: int, topics: frozenset[str] | None, limit_bytes: int = RANGE_BYTES) -> Range:
        """The next range of a reader; see the module. `end` is the head when nothing of these topics is left behind it.

        Of `latest` topics it holds only what nothing newer has replaced. Events are empty only if `end` is the head.
        What is forgotten is skipped: ask `lost` first.
        """
        head = self.head
        position = max(position, self._tail)
        while position < head:
            events, end = self._next(position, topics, limit_bytes)
            if self._keys:
                events = [event for event in events if self._counts(event)]
            if events:
                return Range(tuple(events), end)
            position = end
        return Range((), head)

    def _next(self, position: int, wanted: frozenset[str] | None, limit: int) -> tuple[list[Event], int]:
        if wanted is None:
            first = position - self._base
            end = cut(self._sums, first, limit)
            return self._events[first:end], self._base + end
        known = self._topics
        seqs, whole = choose([known[name] for name in wanted if name in known], position, limit, self._size)
        base = self._base + 1
        return [self._events[seq - base] for seq in seqs], self.head if whole else seqs[-1]

    def history(self, topics: frozenset[str] | None, since: EventId | None, limit: int) -> tuple[list[Event], bool]:
        """Kept events, ascending: the newest `limit`, or the first after `since`; and whether there is a gap before."""
        position, gap = self._tail, False
        if since is not None:
            gap = self.resume(since, topics).gap is not None
            position = self._tail if since < self._tail_id else self._position_of(since)
        seqs: Sequence[int] = range(position + 1, self.head + 1)
        if topics is not None:
            known = [self._topics[name].seqs for name in topics if name in self._topics]
            seqs = sorted(seq for places in known for seq in places if seq > position)
        found: list[Event] = []
        for seq in reversed(seqs) if since is None else seqs:
            if len(found) >= limit:
                break
            event = self._events[seq - self._base - 1]
            if self._counts(event):
                found.append(event)
        return (found[::-1] if since is None else found), gap

    def _counts(self, event: Event) -> bool:
        """Nothing newer has replaced it."""
        return event.offset is not None or self._keys.get((event.topic, event.key), event.seq) == event.seq

    def _size(self, seq: int) -> int:
        return len(self._events[seq - self._base - 1].data) + OVERHEAD_BYTES
