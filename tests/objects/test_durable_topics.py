"""Durable topics: what a reader is told after a restart is certain, whatever was published and whenever it ended.

A restart is a second directory over the same store. Where a gap is told although nothing of what was asked is gone, it
is one of these, which the design takes: below the floor, because events of topics that are not durable may be gone;
below the moment when a topic became durable; below the beginning of a journal that found no history; and on a
`latest` topic, below a key's event that was let go before a newer one came.
"""

import os
import random
from bisect import bisect_right
from functools import partial
from itertools import combinations

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_swarm.errors import ObjectRestarted, ReaderLagged, StorageError
from trio_swarm.journal.clock import RESERVE_MS
from trio_swarm.journal.event import START, Draft, EventId
from trio_swarm.objects.durable import DurableObject
from trio_swarm.runtime import open_swarm
from trio_swarm.settings import REPEAT_S, JournalSettings, Limits, ObjectSettings, Settings
from trio_swarm.storage.memory import MemoryStorage
from trio_swarm.testing.slow_storage import SlowStorage
from trio_swarm.testing.small_swarm import open_directory

TIMES = int(os.environ.get("TRIO_SWARM_EXAMPLES", "1"))  # so many times the examples of every run

OWNER = ("room", "a")
TOPICS = ["d", "x", "y", "L", "M"]


def make_room(durable=frozenset(), latest=frozenset("LM"), journal=None, *, publishes=False):
    class Room(DurableObject):
        publishable = publishes

        async def say(self, events):
            for topic, kept, key, data in events:
                self.publish(topic, data, durable=kept, key=key)

    Room.durable, Room.latest, Room.journal = durable, latest, journal
    return Room


@attrs.frozen
class Said:
    """An event that was committed. `durable`: and is kept."""

    id: EventId
    topic: str
    key: str | None
    data: bytes
    durable: bool


@attrs.define
class Epoch:
    """One journal, from when it was recalled or begun: its floor, and whether anything else was published in it."""

    stream: object
    floor: EventId
    durable: dict  # topics, with the id up to which their events may be gone
    lossy: bool = False


@attrs.define
class Stored:
    """What the store knows of losses."""

    floor: EventId
    lossy: bool
    durable: dict


async def recall(swarm):
    """The stream of the one room, live or not, as its next life would have it; None where nothing is kept."""
    kind, name = swarm.kinds["room"], "room/a"
    stream = swarm.streams.get(name)
    if stream is None:
        if await swarm.storage.history(("room", "a")) is None:
            return None
        stream = swarm.streams.open(name, journal=kind.journal, latest=kind.latest, recalled=False)
        await swarm.recall(kind, "a", stream)
        swarm.streams.release(name)
    return stream


class World:
    """The real thing, and a list of all that was ever said."""

    def __init__(self, room, storage, topics=TOPICS, *, bounded=False):
        self.topics = topics
        self.bounded = bounded  # more topics than there may be: then a gap may always be told
        self.room = room
        self.storage = storage
        self.swarm = None
        self.said = []
        self.said_count = 0
        self.epoch = None
        self.stored = None
        self.places = set()  # topics that were durable from their first event on
        self.kept = []  # what the last look found

    def is_durable(self, topic):
        return "*" in self.room.durable or topic in self.room.durable or topic in self.epoch.durable

    def enter(self, stream):
        """The journal that there is now: if it is a new one, this is where it begins."""
        if self.epoch is not None and self.epoch.stream is stream:
            return
        start = stream.journal.start
        assert all(said.id < start for said in self.said)
        stored = self.stored
        if stored is None:
            self.epoch = Epoch(stream, start, {})
        else:
            self.epoch = Epoch(stream, start if stored.lossy else stored.floor, dict(stored.durable))

    def drafts(self, events):
        drafts = []
        for topic, durable, key, size in events:
            self.said_count += 1
            drafts.append((topic, durable, key, f"{self.said_count}{'.' * size}"))
        return drafts

    def add(self, drafts, last, *, visible=True):
        """A turn was committed; only what it kept if it was never `visible`."""
        epoch = self.epoch
        first = EventId(last.ms, last.counter - len(drafts) + 1)
        named = {topic for topic, durable, _, _ in drafts if durable or self.is_durable(topic)}
        others = {topic for topic, *_ in drafts} - named
        known = set() if self.stored is None else set(self.stored.durable)
        for topic in named:
            if topic not in epoch.durable:
                newest = max((said.id for said in self.said if said.topic == topic), default=START)
                epoch.durable[topic] = max(newest, epoch.floor)
                if not any(said.topic == topic for said in self.said):
                    self.places.add(topic)
            elif topic not in known:  # it was swept meanwhile
                epoch.durable[topic] = max(epoch.durable[topic], first)
        epoch.lossy = epoch.lossy or bool(others)
        if epoch.durable:
            if self.stored is None and epoch.stream.durability.told is not None:
                epoch.lossy = True
            self.store({topic: epoch.durable[topic] for topic in known | named})
        for place, (topic, _, key, data) in enumerate(drafts):
            durable = topic in named
            if durable or visible:
                id_ = EventId(first.ms, first.counter + place)
                self.said.append(Said(id_, topic, key, f'"{data}"'.encode(), durable))

    def store(self, durable):
        self.stored = Stored(self.epoch.floor, self.epoch.lossy, dict(durable))

    async def operate(self, operation):
        """Carry out one operation; answers how to restart, if it is that."""
        match operation:
            case ("say", events):
                drafts = self.drafts(events)
                await self.swarm.get(self.room, "a").say(drafts)
                stream = self.swarm.streams.get("room/a")
                self.enter(stream)
                self.add(drafts, stream.journal.head_id)
            case ("wait", seconds):
                await trio.sleep(seconds)
            case ("sweep",):
                now_ms = int(trio.current_time() * 1000)
                await self.storage.reserve_clock(now_ms + RESERVE_MS)
                if self.stored is not None and await self.storage.history(OWNER) is None:
                    self.stored = None
                    self.places.clear()  # the topics count anew
            case ("fail", events):
                await self.cut_short(events, kept=None)
                await trio.sleep(3)
            case ("crash", events, kept):
                await self.cut_short(events, kept=kept)
                return "crash"
            case ("restart",):
                return "orderly"
        return None

    async def cut_short(self, events, *, kept):
        """A turn whose commit comes about or not, and nobody hears of it; None: it fails, and they do."""
        self.storage.holding = True
        drafts = self.drafts(events)

        async def say():
            try:
                await self.swarm.get(self.room, "a").say(drafts)
            except (StorageError, ObjectRestarted):
                assert kept is None

        async with trio.open_nursery() as nursery:
            nursery.start_soon(say)
            await trio.sleep(3)  # it may have to wait for a backoff
            stream = self.swarm.streams.get("room/a")
            self.enter(stream)
            if not self.storage.waiting:  # nothing of it is durable: it has left
                self.add(drafts, stream.journal.head_id)
            else:
                ((commit, _),) = self.storage.waiting
                if kept is None:
                    self.epoch.lossy = True  # at most
                    self.storage.fail()
                elif kept:
                    outcomes = []
                    self.storage.inner.submit(commit, outcomes.append)
                    assert [None] == outcomes
                    self.hear_of(commit.record, drafts)
            self.storage.waiting.clear()
            self.storage.holding = False
            nursery.cancel_scope.cancel()

    def hear_of(self, record, drafts):
        """What was committed in this turn, by its record: ids of one turn follow one another."""
        self.kept = []  # it may push out what was there
        if record.events:
            id_, draft = record.events[-1]
            behind = [f'"{data}"'.encode() for *_, data in drafts][::-1].index(draft.data)
            self.add(drafts, EventId(id_.ms, id_.counter + behind), visible=False)
        else:
            self.epoch.lossy = True
            self.store({} if self.stored is None else self.stored.durable)

    # What a reader is told

    def superseded(self):
        """The ids of events of `latest` topics behind which their key has a newer one."""
        newer, found = set(), set()
        for said in reversed(self.said):
            if said.topic in self.room.latest:
                if (said.topic, said.key) in newer:
                    found.add(said.id)
                newer.add((said.topic, said.key))
        return found

    async def look(self, age_s, *, anew):
        """Whatever a reader has had, of whatever topics: it gets all that is kept, and a gap where it must."""
        stream = await self.recall()
        if stream is None:
            assert self.stored is None
            assert ([], True) == await self.swarm.get(self.room, "a").history(since=EventId(1, 0))
            return
        self.enter(stream)
        journal, epoch = stream.journal, self.epoch
        if not anew:
            journal.expire(trio.current_time())
        kept, _ = journal.history(None, START, 10**6)
        ids = {event.id for event in kept}
        superseded = self.superseded()
        excused = ids | superseded
        now = trio.current_time()
        if anew:
            assert all(now - id_.ms / 1000 <= age_s + 0.01 for id_ in ids), "older than its age"
            young = (
                set()
                if self.bounded
                else {said.id for said in self.kept if said.durable and now - said.id.ms / 1000 < age_s - 0.01}
            )
            assert young - superseded <= ids
        by_id = {said.id: said for said in self.said}
        assert [event.id for event in kept] == sorted(ids)
        assert [(by_id[e.id].topic, by_id[e.id].key, by_id[e.id].data) for e in kept] == [
            (e.topic, e.key, e.data) for e in kept
        ]
        self.kept = [by_id[event.id] for event in kept]
        if not self.bounded:
            self.check_offsets(kept)
        bounds = {topic: self.bound(topic, ids) for topic in (*self.topics, "never")}
        bounds[None] = max(epoch.floor, *bounds.values())
        positions = [EventId(1, 0), journal.start, *(EventId(said.id.ms, said.id.counter) for said in self.said)]
        for topics in (
            None,
            *(
                frozenset(names)
                for n in ((1,) if self.bounded else (1, 2))
                for names in combinations((*self.topics, "never"), n)
            ),
        ):
            bound = max(bounds[topic] for topic in ((None,) if topics is None else topics))
            wanted = [said for said in self.said if topics is None or said.topic in topics]
            # Who stands below the newest of these has lost something, and must be told.
            lost = max((said.id for said in wanted if said.id not in excused), default=START)
            here = [event for event in kept if topics is None or event.topic in topics]
            here_ids = [event.id for event in here]
            for since in positions:
                events, gap = journal.history(topics, since, 10**6)
                resumed = journal.resume(since, topics)
                assert gap == (resumed.gap is not None)
                assert here[bisect_right(here_ids, since) :] == events
                if since < lost:
                    assert gap, "a hidden loss"
                if gap and not self.bounded:
                    assert since < bound, "a gap for nothing"
                if since < journal.start or not gap:
                    given_, position = [], resumed.position
                    while (found := journal.read(position, topics)).events:
                        given_ += found.events
                        position = found.end
                    assert events == given_
                assert resumed.id >= since

    def bound(self, topic, ids):
        """Below this a gap of the topic is justified."""
        lost = (said.id for said in self.said if said.topic == topic and said.id not in ids)
        newest = max(lost, default=START)
        return max(newest, self.epoch.durable.get(topic, self.epoch.floor))

    def check_offsets(self, kept):
        for topic in self.places:
            if topic not in self.room.latest:
                all_ = [said.id for said in self.said if said.topic == topic]
                assert [all_.index(event.id) + 1 for event in kept if event.topic == topic] == [
                    event.offset for event in kept if event.topic == topic
                ]


def operations(topics):
    """By name, so that what comes often can be said; a turn is all of it durable, nothing, or some."""
    topic, key, size = st.sampled_from(topics), st.sampled_from([None, "", "k"]), st.sampled_from([0, 0, 0, 300])
    few = {"min_size": 1, "max_size": 3}
    many = {"min_size": 25, "max_size": 40}
    some = st.sampled_from([st.just(True), st.just(False), st.booleans()]).flatmap(
        lambda durable: st.sampled_from([few, few, few, many]).flatmap(
            lambda much: st.lists(st.tuples(topic, durable, key, size), **much)
        )
    )
    each = {
        "say": st.tuples(st.just("say"), some),
        "wait": st.tuples(st.just("wait"), st.sampled_from([0.001, 3.0, 12.0, 70.0])),
        "sweep": st.just(("sweep",)),
        "fail": st.tuples(st.just("fail"), some),
        "crash": st.tuples(st.just("crash"), some, st.booleans()),
        "restart": st.just(("restart",)),
    }
    names = st.sampled_from([*["say"] * 6, "restart", "restart", *each])
    return st.lists(names.flatmap(each.__getitem__), max_size=10)


durable_sets = st.sampled_from([frozenset(), frozenset("d"), frozenset({"d", "L"}), frozenset("*")])
keeps = st.builds(
    JournalSettings, events=st.sampled_from([1, 3, 20, 1000]), bytes=st.sampled_from([500, 10**6]),
    age_s=st.sampled_from([20.0, 1000.0]),
)  # fmt: skip


def carry_out(world, config, age_s, operations, check=None):
    async def main():
        remaining = [*operations, ("restart",)]
        while remaining:
            await trio.sleep(1)
            async with open_directory(
                world.room, storage=world.storage, settings=config, rng=random.Random(0)
            ) as swarm:
                world.swarm = swarm
                world.recall = partial(recall, swarm)
                anew = True
                while remaining:
                    await world.look(age_s, anew=anew)
                    anew = False
                    how = await world.operate(remaining.pop(0))
                    if check is not None:
                        await check(world)
                    if how is not None:
                        if how == "orderly":
                            await world.look(age_s, anew=False)
                        break
            world.storage.die()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@settings(max_examples=100 * TIMES, deadline=None)
@given(durable_sets, keeps, st.sampled_from([1, 10**6]), operations(TOPICS))
def test_the_answer_after_a_restart_is_certain(durable, keep, idle_bytes, operations):
    """Everything kept that it has not had, in order and once; a gap whenever anything may be lost, and only then."""
    world = World(make_room(durable=durable, journal=keep), SlowStorage())
    carry_out(world, Settings(limits=Limits(idle_journal_bytes=idle_bytes)), keep.age_s, operations)


MANY = [*"abcdefghij", *"LMNO"]


@settings(max_examples=30 * TIMES, deadline=None)
@given(durable_sets, keeps, st.sampled_from([1, 10**6]), st.integers(1, 6), operations(MANY))
def test_more_topics_than_there_may_be_hide_no_loss(durable, keep, idle_bytes, limit, operations):
    """Some are durable no longer; whoever had read them is told of a gap, and the table in storage has its bound."""
    room = make_room(durable=durable, latest=frozenset("LMNO"), journal=keep)
    world = World(room, SlowStorage(), MANY, bounded=True)

    async def check(world):
        history = await world.storage.history(OWNER)
        if history is not None:
            with_events = {draft.topic for _, draft in history.events}
            assert len(history.topics.keys() - with_events) <= limit + len(MANY)

    limits = Limits(idle_journal_bytes=idle_bytes, topics_per_journal=limit)
    carry_out(world, Settings(limits=limits), keep.age_s, operations, check)


async def test_topics_that_clients_make_do_not_pile_up(autojump_clock):
    """Turn after turn with many new durable topics: what is kept of them stays near the limit."""
    room = make_room(durable=frozenset("*"), journal=JournalSettings(events=10))
    storage = MemoryStorage()
    async with open_directory(room, storage=storage, settings=Settings(limits=Limits(topics_per_journal=50))) as swarm:
        a = swarm.get(room, "a")
        for turn in range(20):
            await a.say([(f"{turn}-{n}", False, None, n) for n in range(200)])
            history = await storage.history(OWNER)
            assert len(history.topics) <= 50 + 2 * 200
        assert len(swarm.streams.get("room/a").durability.topics) <= 50 + 2 * 200


async def collect(reader, count):
    found = []
    while len(found) < count:
        try:
            found.append((await anext(reader)).data)
        except ReaderLagged as gap:
            found.append((gap.after, gap.before))
    return found


async def test_readers_wait_for_the_history(autojump_clock, nursery):
    """Who comes before it is read begins where it should, and whoever leaves meanwhile is no trouble."""
    room = make_room(durable=frozenset("d"))
    storage = SlowStorage()
    async with open_directory(room, storage=storage) as swarm:
        a = swarm.get(room, "a")
        await a.say([("d", False, None, n) for n in range(3)])
        events, _ = await a.history()
    await trio.sleep(1)
    storage.read_s = 2
    async with open_directory(room, storage=storage) as swarm:
        a = swarm.get(room, "a")
        found = {}

        async def read(name, since, count):
            async with a.watch("d", since=since) as reader:
                found[name] = (
                    round(trio.current_time() - began, 3),
                    reader.opening.recovered,
                    await collect(reader, count),
                )

        async def leave():
            with trio.move_on_after(1):
                async with a.watch("d", since=START):
                    raise AssertionError("it was opened before the history was read")

        began = trio.current_time()
        nursery.start_soon(read, "all", START, 4)
        nursery.start_soon(read, "after the first", events[0].id, 3)
        nursery.start_soon(read, "from now", None, 1)
        nursery.start_soon(read, "from before", EventId(0, 1), 5)
        nursery.start_soon(leave)
        await trio.sleep(0.5)
        nursery.start_soon(a.say, [("d", False, None, 3)])
        history, gap = await a.history(since=events[1].id)
        assert ([b"2", b"3"], False) == ([event.data for event in history], gap)
        await trio.sleep(3)
    _, recovered, (gap, *rest) = found.pop("from before")
    assert (False, "0-1", [b"0", b"1", b"2", b"3"]) == (recovered, gap[0], rest)
    assert EventId.parse(gap[1]) < events[0].id
    assert {
        "all": (2, True, [b"0", b"1", b"2", b"3"]),
        "after the first": (2, True, [b"1", b"2", b"3"]),
        "from now": (2, False, [b"3"]),
    } == found


async def test_the_history_of_an_object_that_does_not_live(autojump_clock):
    """It is read from storage and starts nothing; one that is not there is empty, with a gap for whoever comes back."""
    room = make_room(durable=frozenset("d"))
    storage = MemoryStorage()
    async with open_directory(room, storage=storage) as swarm:
        await swarm.get(room, "a").say([("d", False, None, n) for n in range(3)])
    await trio.sleep(1)
    async with open_directory(room, storage=storage) as swarm:
        events, gap = await swarm.get(room, "a").history()
        assert ([b"0", b"1", b"2"], [1, 2, 3], False) == (
            [event.data for event in events],
            [event.offset for event in events],
            gap,
        )
        assert ([b"2"], False) == (
            [e.data for e in (await swarm.get(room, "a").history(since=events[1].id))[0]],
            (await swarm.get(room, "a").history(["d"], since=events[1].id))[1],
        )
        assert ([], False) == await swarm.get(room, "b").history(since=START)
        assert ([], True) == await swarm.get(room, "b").history(since=events[0].id)
        assert [] == swarm.hosts()


async def test_a_history_that_cannot_be_read_and_then_can(autojump_clock, logs):
    """Asking for it is an error, and so is a call; readers wait a few seconds, and no crash is counted."""
    room = make_room(durable=frozenset("d"))
    storage = SlowStorage()
    async with open_directory(room, storage=storage) as swarm:
        await swarm.get(room, "a").say([("d", False, None, 0)])
    await trio.sleep(1)
    storage.unreadable = True
    async with open_directory(room, storage=storage) as swarm, trio.open_nursery() as nursery:
        a = swarm.get(room, "a")
        with pytest.raises(StorageError):
            await a.history()
        found = []

        async def read(patience_s):
            await trio.sleep(patience_s)
            async with a.watch(since=START) as reader:
                found.extend(await collect(reader, 2))

        with pytest.raises(StorageError):
            await a.say([("d", False, None, 1)])
        began = trio.current_time()
        with pytest.raises(StorageError), trio.fail_after(60):
            await read(0)
        assert 1 < trio.current_time() - began
        assert ([], 0) == (found, a.statistics().crashes)
        nursery.start_soon(read, 0.1)
        storage.unreadable = False
        await a.say([("d", False, None, 1)])
        await trio.sleep(31)
        assert [b"0", b"1"] == found
        assert [1, 2] == [event.offset for event in (await a.history())[0]]


@pytest.mark.parametrize("how", ["answered", "committed"])
async def test_a_repeated_message_is_answered_with_the_first_id(autojump_clock, how):
    """After a restart, and after a process that died with the answer on its way."""
    room = make_room(durable=frozenset("d"), publishes=True)
    storage = SlowStorage()
    config = Settings(limits=Limits(idle_journal_bytes=1))
    drafts = [Draft(b"1", "d"), Draft(b"2", "d")]
    first = []

    async def publish(swarm):
        first.append(await swarm.get(room, "a").publish(drafts, "m"))

    async with open_directory(room, storage=storage, settings=config) as swarm:
        await swarm.get(room, "a").publish([Draft(b"0", "d")], "other")
        if how == "committed":
            storage.holding = True
            async with trio.open_nursery() as nursery:
                nursery.start_soon(publish, swarm)
                await trio.sleep(1)
                ((commit, _),) = storage.waiting
                storage.inner.submit(commit, print)
                first.append((commit.record.events[-1][0], 2))
                storage.die()
                storage.holding = False
                nursery.cancel_scope.cancel()
        else:
            await publish(swarm)
    await trio.sleep(1)
    async with open_directory(room, storage=storage, settings=config, mark_ms=1_000) as swarm:
        again = await swarm.get(room, "a").publish([Draft(b"3")], "m")
        assert 3 == len((await swarm.get(room, "a").history())[0])
        other = await swarm.get(room, "a").publish([Draft(b"3")], "other")
        assert 1 == other.count
        assert 3 == len((await swarm.get(room, "a").history())[0])
    assert (first[0] if isinstance(first[0], tuple) else (first[0].id, first[0].count)) == (again.id, again.count)


async def test_what_was_published_after_a_long_silence_is_no_gap(autojump_clock):
    """The store let go of the history meanwhile; all topics being durable, a reader of all of them has lost nothing."""
    room = make_room(durable=frozenset("*"), latest=frozenset())
    storage = MemoryStorage()
    async with open_directory(room, storage=storage) as swarm, swarm.get(room, "a").watch() as reader:
        a = swarm.get(room, "a")
        await a.say([("d", False, None, 0)])
        await trio.sleep(600)
        await storage.reserve_clock(round(trio.current_time() * 1000) + RESERVE_MS)
        assert await storage.history(OWNER) is None
        await a.say([("d", False, None, 1), ("e", False, None, 2)])
        assert [b"0", b"1", b"2"] == await collect(reader, 3)
        events, _ = await a.history()
    await trio.sleep(1)
    async with open_directory(room, storage=storage) as swarm:
        found, gap = await swarm.get(room, "a").history(since=events[-2].id)
        assert ([b"2"], False) == ([event.data for event in found], gap)
        assert (await swarm.get(room, "a").history(since=EventId(1, 0)))[1]


async def test_a_history_of_any_age(autojump_clock):
    """A class that keeps its events for good does so over a restart."""
    room = make_room(durable=frozenset("*"), journal=JournalSettings(age_s=1e300))
    storage = MemoryStorage()
    async with open_directory(room, storage=storage) as swarm:
        await swarm.get(room, "a").say([("d", False, None, 0)])
    await trio.sleep(10**6)
    async with open_directory(room, storage=storage) as swarm:
        await swarm.get(room, "a").say([("d", False, None, 1)])
        assert [b"0", b"1"] == [event.data for event in (await swarm.get(room, "a").history())[0]]


class Lasting(MemoryStorage):
    """A store for the next process."""

    async def aclose(self):
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(("later_s", "known"), [(50, True), (3600, False)])
async def test_a_message_id_is_free_again_long_after_the_restart(autojump_clock, later_s, known):
    """However late the object is asked for: what is told under the same id then is told for the first time."""
    room = make_room(durable=frozenset("d"), journal=JournalSettings(age_s=86_400), publishes=True)
    storage, found = Lasting(), []
    for at_s in (0, later_s):
        async with open_swarm([room], storage=storage, now_ms=lambda: round(trio.current_time() * 1000)) as swarm:
            await trio.sleep(at_s)
            found.append(await swarm.get(room, "a").publish([Draft(b"%d" % at_s, "d")], "m"))
    assert known is (found[0] == found[1])


async def test_a_message_id_that_came_twice_is_known_by_the_newer(autojump_clock):
    """What was published under it last is what a repeat after a restart is answered with."""
    room = make_room(durable=frozenset("d"), publishes=True)
    storage = MemoryStorage()
    async with open_directory(room, storage=storage) as swarm:
        await swarm.get(room, "a").publish([Draft(b"1", "d")], "m")
        await trio.sleep(REPEAT_S + 1)  # it is forgotten
        newer = await swarm.get(room, "a").publish([Draft(b"2", "d")], "m")
    await trio.sleep(1)
    async with open_directory(room, storage=storage, mark_ms=newer.id.ms + RESERVE_MS) as swarm:
        assert newer == await swarm.get(room, "a").publish([Draft(b"2", "d")], "m")


async def test_latest_topics_keep_the_newest_of_each_key(autojump_clock):
    """No key and an empty key are two keys, before a restart and after it."""
    room = make_room(durable=frozenset("L"), latest=frozenset("L"))
    storage = MemoryStorage()
    said = [("L", False, key, n) for n, key in enumerate([None, "", "k", "k", "l", ""])]
    found = []
    async with open_directory(room, storage=storage) as swarm:
        await swarm.get(room, "a").say(said)
        found.append((await swarm.get(room, "a").history(since=START))[0])
    await trio.sleep(1)
    async with open_directory(room, storage=storage) as swarm:
        found.append((await swarm.get(room, "a").history(since=START))[0])
    assert [[b"0", b"3", b"4", b"5"]] * 2 == [[event.data for event in events] for events in found]


async def test_a_durable_publication_waits_for_its_commit_and_others_only_once(autojump_clock, nursery):
    """The first event of another topic is noted in storage; those after it leave at once."""
    room = make_room(durable=frozenset("d"))
    storage = SlowStorage()
    async with open_directory(room, storage=storage, settings=Settings(objects=ObjectSettings())) as swarm:
        a = swarm.get(room, "a")
        await a.say([("x", False, None, 0)])
        storage.holding = True
        nursery.start_soon(a.say, [("d", False, None, 1)])
        await trio.sleep(1)
        assert [b"0"] == [event.data for event in (await a.history())[0]]
        storage.release()
        nursery.start_soon(a.say, [("x", False, None, 2)])
        await trio.sleep(1)
        assert ([b"0", b"1", b"2"], 0) == ([event.data for event in (await a.history())[0]], len(storage.waiting))
    await trio.sleep(1)
    storage.holding = False
    async with open_directory(room, storage=storage) as swarm:
        a = swarm.get(room, "a")
        await a.say([("d", False, None, 3)])
        storage.holding = True
        nursery.start_soon(a.say, [("x", False, None, 4)])
        await trio.sleep(1)
        assert 1 == len(storage.waiting)
        storage.release()
        await trio.sleep(1)
        await a.say([("x", False, None, 5)])
        assert [b"1", b"3", b"4", b"5"] == [event.data for event in (await a.history())[0]]


async def after_a_restart(room, storage, topics, since):
    """What a reader that comes back is told."""
    storage.die()
    storage.holding = False
    await trio.sleep(1)
    async with open_directory(room, storage=storage) as swarm:
        events, gap = await swarm.get(room, "a").history(topics, since=since)
        return [event.data for event in events], gap


async def test_a_topic_becomes_durable_while_events_of_it_are_on_their_way(autojump_clock, nursery):
    """An event of it that waits at the gate, and is not kept, is a loss of that topic."""
    room, storage = make_room(), SlowStorage()
    async with open_directory(room, storage=storage) as swarm:
        a = swarm.get(room, "a")
        await a.say([("d", True, None, 0)])
        ((first,), _) = await a.history()
        storage.holding = True
        for n, durable in enumerate([False, True]):
            nursery.start_soon(a.say, [("x", durable, None, n + 1)])
            await trio.sleep(1)
        storage.release()
        await trio.sleep(1)
        second = (await a.history())[0][1]
    assert ([b"2"], True) == await after_a_restart(room, storage, ["x"], first.id)
    assert ([b"2"], False) == await after_a_restart(room, storage, ["x"], second.id)


async def test_a_topic_that_ends_while_events_of_it_come(autojump_clock, nursery):
    """From the record on that ends it nothing of it is kept, though that record is on its way; nobody is deceived."""
    room, storage = make_room(journal=JournalSettings(events=1)), SlowStorage()
    config = Settings(limits=Limits(topics_per_journal=2))
    async with open_directory(room, storage=storage, settings=config) as swarm:
        a = swarm.get(room, "a")
        for n, topic in enumerate("abc"):
            await a.say([(topic, True, None, n)])
        storage.holding = True
        nursery.start_soon(a.say, [("e", True, None, 3)])
        await trio.sleep(1)
        assert frozenset("a") == storage.waiting[0][0].record.ended
        nursery.start_soon(a.say, [("a", False, None, 4)])
        await trio.sleep(1)
        storage.release()
        storage.holding = False
        await trio.sleep(1)
        ((had,), _) = await a.history()
        assert b"4" == had.data
        await a.say([("a", False, None, 5)])
    assert ([], True) == await after_a_restart(room, storage, ["a"], had.id)


async def test_the_note_of_losses_is_made_once_for_all_lives(autojump_clock):
    """An object that starts again in the same process does not tell storage again what it has been told."""
    room, storage = make_room(), SlowStorage()
    async with open_directory(room, storage=storage) as swarm:
        a = swarm.get(room, "a")
        await a.say([("d", True, None, 0), ("x", False, None, 1)])
        await trio.sleep(20)
        assert a.statistics() is None
        storage.holding = True
        with trio.fail_after(5):
            await a.say([("x", False, None, 2)])
        assert 0 == len(storage.waiting)


async def test_a_loss_is_known_two_restarts_later(autojump_clock):
    """A life in which nothing was lost does not hide what the one before it lost."""
    room, storage = make_room(), SlowStorage()
    async with open_directory(room, storage=storage) as swarm:
        await swarm.get(room, "a").say([("d", True, None, 0), ("x", False, None, 1)])
        ((first, _), _) = await swarm.get(room, "a").history()
    await trio.sleep(1)
    async with open_directory(room, storage=storage) as swarm:
        await swarm.get(room, "a").say([("d", True, None, 2)])
        second = (await swarm.get(room, "a").history())[0][-1]
    assert ([], True) == await after_a_restart(room, storage, ["x"], first.id)
    assert ([b"2"], False) == await after_a_restart(room, storage, ["d"], first.id)
    assert ([], False) == await after_a_restart(room, storage, ["x"], second.id)


async def test_what_outlived_its_age_meanwhile_is_a_gap(autojump_clock):
    """Events that were young as the process ended, and are not as the next begins, are not given."""
    room, storage = make_room(journal=JournalSettings(age_s=20)), SlowStorage()
    async with open_directory(room, storage=storage) as swarm:
        await swarm.get(room, "a").say([("d", True, None, 0)])
        await trio.sleep(10)
        await swarm.get(room, "a").say([("d", True, None, 1)])
        (first, second), _ = await swarm.get(room, "a").history()
    await trio.sleep(12)
    assert ([b"1"], False) == await after_a_restart(room, storage, ["d"], first.id)
    assert ([b"1"], True) == await after_a_restart(room, storage, ["d"], EventId(0, 1))
    await trio.sleep(10)
    assert ([], True) == await after_a_restart(room, storage, ["d"], first.id)
    assert ([], False) == await after_a_restart(room, storage, ["d"], second.id)
