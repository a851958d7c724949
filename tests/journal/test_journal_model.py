"""The journal against a plain list that never forgets anything, only notes what is forgotten."""

from itertools import combinations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_swarm.journal import journal as journal_module
from trio_swarm.journal import topics as topics_module
from trio_swarm.journal.event import START, Draft, EventId
from trio_swarm.journal.journal import Gap, Journal
from trio_swarm.settings import JournalSettings

BEGIN = EventId(100, 5)
TOPICS = ("a", "b", "L", "M")  # capitals are `latest`
SETS = (None, *(frozenset(names) for n in range(4) for names in combinations((*TOPICS, "never"), n)))


@pytest.fixture(scope="module", autouse=True, params=[1, None], ids=["lists moved often", "as it is"])
def _slack(request):
    """Lists are moved together once hundreds of places are forgotten: short examples see that only with less slack."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param is not None:
            patch.setattr(journal_module, "_SLACK", request.param)
            patch.setattr(topics_module, "_SLACK", request.param)
        yield


def is_latest(topic):
    return topic.isupper()


class Model:
    """All events ever, in a list; `tail` of them are forgotten; `missed` are those that a reader can miss."""

    def __init__(self, limits):
        self.limits = limits
        self.events = []
        self.tail = 0
        self.missed = set()

    def size(self, event):
        return len(event.data) + 64

    def kept(self):
        return self.events[self.tail :]

    def superseded(self, event):
        newer = self.events[event.seq :]
        return is_latest(event.topic) and any((e.topic, e.key) == (event.topic, event.key) for e in newer)

    def forget_until(self, tail):
        for event in self.events[self.tail : tail]:
            if not self.superseded(event):
                self.missed.add(event.seq)
        self.tail = max(self.tail, tail)

    def retain(self, now, *, spare):
        tail = self.tail
        kept = self.events[tail:]
        while (
            len(kept) > spare and (len(kept) > self.limits.events or sum(map(self.size, kept)) > self.limits.bytes)
        ) or (kept and kept[0].at < now - self.limits.age_s):
            kept = kept[1:]
            tail += 1
        self.forget_until(tail)

    def wanted(self, topics):
        return [e for e in self.events if topics is None or e.topic in topics]

    def lost(self, position, topics):
        return any(e.seq > position and e.seq in self.missed for e in self.wanted(topics))

    def readable(self, position, topics):
        return [e for e in self.wanted(topics) if e.seq > max(position, self.tail) and not self.superseded(e)]


appends = st.tuples(
    st.just("append"),
    st.sampled_from(TOPICS),
    st.sampled_from([None, "k1", "k2"]),
    st.integers(0, 3) | st.sampled_from([100, 900]),  # bytes; the last is larger than a range
    st.integers(0, 3),  # seconds since the one before
    st.integers(0, 2),  # milliseconds since the one before; 0 raises the counter
)


def some(operation):
    """Few, which shrink well, or many, which meet more."""
    return st.lists(operation, max_size=8) | st.lists(operation, min_size=20, max_size=60)


expiries = st.tuples(st.just("expire"), st.integers(0, 20))
limits = st.builds(
    JournalSettings, events=st.sampled_from([1, 3, 7, 1000]), bytes=st.sampled_from([70, 500, 10**6]),
    age_s=st.sampled_from([4.0, 1000.0]),
)  # fmt: skip


def play(journal, model, operations):
    """Carry the operations out on both; yields after each."""
    now, last = 0.0, BEGIN
    counts = {}
    for operation in operations:
        if operation[0] == "expire":
            now += operation[1]
            journal.expire(now)
            model.retain(now, spare=model.limits.events)  # by age alone
        else:
            _, topic, key, size, seconds, ms = operation
            now += seconds
            last = EventId(last.ms + ms, 0) if ms else EventId(last.ms, last.counter + 1)
            event = journal.append(last, Draft(b"x" * size, topic, "goal", key), now)
            counts[topic] = counts.get(topic, 0) + 1
            model.events.append(event)
            model.retain(now, spare=1)
            offset = None if is_latest(topic) else counts[topic]
            expected = (len(model.events), last, topic, "goal", b"x" * size, key, offset, now)
            assert expected == attrs.astuple(event, recurse=False)
        yield


@settings(max_examples=60)  # twice: see _slack
@given(limits, some(appends | expiries))
def test_history_is_kept_and_judged(limit, operations):
    """What is kept, what counts as lost, and what there is to read: at every moment as the plain list has it."""
    journal = Journal(start=BEGIN, settings=limit, latest=is_latest)
    model = Model(limit)
    for _ in play(journal, model, operations):
        held = sum(map(model.size, model.kept()))
        figures = journal.statistics()
        assert (len(model.kept()), held, len(model.events)) == (len(journal), journal.bytes, journal.head)
        assert (figures.events, figures.bytes, figures.head) == (len(journal), journal.bytes, journal.head)
        assert model.tail == figures.forgotten
        assert len({e.topic for e in model.events}) == figures.topics
        assert len({(e.topic, e.key) for e in model.kept() if is_latest(e.topic)}) == figures.keys
    for topics in SETS:
        for position in range(journal.head + 1):
            assert model.lost(position, topics) == journal.lost(position, topics)
            assert bool(model.readable(position, topics)) == journal.has_new(position, topics)
            found = journal.read(position, topics, limit_bytes=10**9)
            assert (model.readable(position, topics), journal.head) == (list(found.events), found.end)


@settings(max_examples=60)  # twice: see _slack
@given(limits, some(appends | expiries), st.data())
def test_resume_is_certain(limit, operations, data):
    """For any `since` the answer is all that is missing, or a gap exactly when something of it is gone.

    A `since` from before the journal is a gap up to the first that is kept, and all that is kept follows.
    """
    journal = Journal(start=BEGIN, settings=limit, latest=is_latest)
    model = Model(limit)
    for _ in play(journal, model, operations):
        pass
    head_id = model.events[-1].id if model.events else BEGIN
    assert head_id == journal.head_id
    known = [EventId(0, 1), EventId(99, 9), BEGIN, EventId(10**6, 0), *(e.id for e in model.events)]
    known += [EventId(e.id.ms, e.id.counter + 1) for e in model.events]
    for topics in data.draw(st.lists(st.sampled_from(SETS), min_size=1, max_size=3)):
        for since in known:
            position = sum(e.id <= since for e in model.events)
            resumed = journal.resume(since, topics)
            if since < BEGIN:
                first = next(at for at in range(journal.head + 1) if not model.lost(at, topics))
                before = model.events[first - 1].id if first else BEGIN
                assert Gap(since, before) == resumed.gap
                assert model.readable(0, topics) == model.readable(resumed.position, topics)
                assert not journal.lost(resumed.position, topics)
            elif since > head_id or model.lost(position, topics):
                assert (journal.head, Gap(since, head_id)) == (resumed.position, resumed.gap)
            else:
                assert resumed.gap is None
                assert not journal.lost(resumed.position, topics)
                assert model.readable(position, topics) == model.readable(resumed.position, topics)
        assert journal.resume(START, topics).gap is None
        everything = model.readable(0, topics)
        assert everything == model.readable(journal.resume(START, topics).position, topics)
    for position in range(journal.head + 1):
        at = journal.id_at(position)
        if position > model.tail:
            assert model.events[position - 1].id == at
        else:
            assert at == (model.events[model.tail - 1].id if model.tail else BEGIN)


@settings(max_examples=60)  # twice: see _slack
@given(limits, some(appends), st.data())
def test_history_pages(limit, operations, data):
    """The newest `limit`, or page after page from any id, with the gap told on the page where it is."""
    journal = Journal(start=BEGIN, settings=limit, latest=is_latest)
    model = Model(limit)
    for _ in play(journal, model, operations):
        pass
    topics = data.draw(st.sampled_from(SETS))
    count = data.draw(st.integers(1, 5))
    readable = model.readable(0, topics)
    assert (readable[-count:], False) == journal.history(topics, None, count)
    since = data.draw(st.sampled_from([START, BEGIN, *(e.id for e in model.events)]))
    after = [e for e in readable if e.id > since]
    found, gap = journal.history(topics, since, count)
    assert after[:count] == found
    assert gap == (journal.resume(since, topics).gap is not None)


def fixed_cuts(model, topics, limit):
    """The seqs after which a range ends, by the definition: a ruler over all bytes ever of these topics."""
    cuts = set()
    total, before = 0, None
    for event in model.wanted(topics):
        total += model.size(event)
        large = model.size(event) > limit
        if before is not None and (large or before[1] or before[2] != total // limit):
            cuts.add(before[0])
        before = (event.seq, large, total // limit)
    return cuts


@settings(max_examples=60)  # twice: see _slack
@given(limits, some(appends), st.sampled_from([100, 250, 600, 2000]))
def test_ranges_end_at_fixed_cuts(limit, operations, range_bytes):
    """A range ends at the next cut of the ruler wherever it began, so that readers meet; uncut it ends at the head."""
    journal = Journal(start=BEGIN, settings=limit, latest=is_latest)
    model = Model(limit)
    for _ in play(journal, model, operations):
        pass
    for topics in SETS:
        cuts = fixed_cuts(model, topics, range_bytes)
        for position in range(journal.head + 1):
            readable = model.readable(position, topics)
            found = journal.read(position, topics, range_bytes)
            if not readable:
                assert ((), journal.head) == (found.events, found.end)
                continue
            end = min((cut for cut in cuts if cut >= readable[0].seq), default=journal.head)
            assert end == found.end
            assert tuple(e for e in readable if e.seq <= end) == found.events


reads = st.tuples(st.just("read"), st.integers(0, 4))


@settings(max_examples=60)  # twice: see _slack
@given(limits, some(appends | expiries | reads), st.lists(st.sampled_from(SETS), min_size=5, max_size=5))
def test_readers_miss_and_repeat_nothing(limit, operations, interests):
    """Readers that read when they like get every event of their topics once and in order, or one gap that is true."""
    journal = Journal(start=BEGIN, settings=limit, latest=is_latest)
    model = Model(limit)
    readers = [Reader(topics) for topics in interests]
    played = play(journal, model, [operation for operation in operations if operation[0] != "read"])
    for operation in operations:
        if operation[0] == "read":
            readers[operation[1]].read(journal, model)
        else:
            next(played)
    for reader in readers:
        while reader.position < journal.head:
            reader.read(journal, model)
        reader.check(model)


class Reader:
    """As fan-out reads: `lost` first, then one range."""

    def __init__(self, topics):
        self.topics = topics
        self.position = 0
        self.got = []
        self.gaps = []

    def read(self, journal, model):
        if journal.lost(self.position, self.topics):
            assert any(e.seq in model.missed and e.seq > self.position for e in model.wanted(self.topics))
            self.gaps.append((self.position, journal.head))
            self.position = journal.head
            return
        found = journal.read(self.position, self.topics, 300)
        assert found.end > self.position or self.position == journal.head
        self.got += [event.seq for event in found.events]
        self.position = found.end

    def check(self, model):
        assert sorted(set(self.got)) == self.got
        for event in model.wanted(self.topics):
            in_gap = any(start < event.seq <= end for start, end in self.gaps)
            if event.seq in self.got:
                assert not in_gap
            else:
                assert in_gap or model.superseded(event)
        assert all(self.topics is None or model.events[seq - 1].topic in self.topics for seq in self.got)


many_topics = st.tuples(
    st.just("append"),
    st.sampled_from([*"abcdefgh", *"LMNO"]),
    st.sampled_from([None, "k1", "k2"]),
    st.integers(0, 200),
    st.integers(0, 1),
    st.integers(0, 2),
)


@settings(max_examples=60)  # twice: see _slack
@given(limits, some(many_topics), st.integers(1, 12))
def test_folding_topics_hides_no_loss(limit, operations, topics_limit):
    """With more topics than allowed no loss is hidden; what is declared lost without need lies below a fold."""
    journal = Journal(start=BEGIN, settings=limit, latest=is_latest, topics_limit=topics_limit)
    model = Model(limit)
    folded = 0

    def on_fold():
        nonlocal folded
        folded = journal.statistics().forgotten

    journal.on_fold = on_fold
    now, last = 0.0, BEGIN
    for _, topic, key, size, seconds, ms in operations:
        now += seconds
        last = EventId(last.ms + ms, 0) if ms else EventId(last.ms, last.counter + 1)
        model.events.append(journal.append(last, Draft(b"x" * size, topic, key=key), now))
        model.retain(now, spare=1)
        figures = journal.statistics()
        assert figures.topics <= topics_limit
        assert figures.forgotten >= model.tail
        if len({e.topic for e in model.events}) <= topics_limit:
            assert figures.forgotten == model.tail
        model.forget_until(figures.forgotten)
    for topics in (None, *map(frozenset, combinations("abcLM", 2)), frozenset("x")):
        for position in range(journal.head + 1):
            lost = journal.lost(position, topics)
            assert lost >= model.lost(position, topics)
            assert not lost or model.lost(position, topics) or position < folded
            found = journal.read(position, topics, limit_bytes=10**9)
            assert (model.readable(position, topics), journal.head) == (list(found.events), found.end)
            since = model.events[position - 1].id if position else BEGIN
            assert lost == (journal.resume(since, topics).gap is not None)


@settings(max_examples=60)  # twice: see _slack
@given(some(appends), st.integers(0, 2))
def test_keys_beyond_the_limit_are_only_less_compact(operations, keys_limit):
    """With fewer keys than used nothing newest is withheld, no loss is hidden, and the table stays bounded."""
    limit = JournalSettings(events=7)
    journal = Journal(start=BEGIN, settings=limit, latest=is_latest, keys_limit=keys_limit)
    model = Model(limit)
    for _ in play(journal, model, operations):
        assert journal.statistics().keys <= keys_limit
    for topics in SETS:
        for position in range(journal.head + 1):
            found = journal.read(position, topics, limit_bytes=10**9).events
            assert set(model.readable(position, topics)) <= set(found)
            assert journal.lost(position, topics) >= model.lost(position, topics)
