"""Subscriptions against a model client that knows what it is owed: no loss and no repeat, or one gap that is true."""

import attrs
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_swarm.bounded.allowance import Allowance
from trio_swarm.fanout.broadcaster import Broadcaster
from trio_swarm.fanout.encoding import EVENTS, GapNotice, SnapshotNotice
from trio_swarm.fanout.footprints import Footprints
from trio_swarm.fanout.stream import Stream
from trio_swarm.fanout.view import RangeCache
from trio_swarm.journal.event import START, Draft, Event, EventId
from trio_swarm.journal.journal import Journal
from trio_swarm.settings import JournalSettings

TOPICS = ["a", "b", "c", "latest"]


class ModelClient:
    """A sink that, where it is slow, takes one payload and no more until it is drained; and what it is owed."""

    def __init__(self, world, *, slow):
        self.world = world
        self.ready = True
        self.on_ready = None
        self.slow = slow
        self.aborted = None
        self.received = []
        self.gaps = []
        self.since_of = {}  # topic (or None for all) -> everything after this id is owed
        self.ended = {}  # topics given up: the newest id that may still come
        self.added = False

    def write(self, payload):
        assert self.ready, "fan-out wrote to a sink that was not ready"
        for item in payload:
            if isinstance(item, GapNotice):
                self.world.check_gap(self, item.gap)
                self.gaps.append((item.gap.after, item.gap.before))
            self.received.append(item)
        if self.slow:
            self.ready = False

    def abort(self, reason):
        self.aborted = reason
        self.ready = False

    def drain(self):
        if not self.ready and self.aborted is None:
            self.ready = True
            if self.on_ready is not None:
                self.on_ready()


@attrs.define
class World:
    stream: Stream
    published: list = attrs.Factory(list)
    counter: int = 1
    wanted_snapshots: int = 0

    def publish(self, drafts):
        stamped = []
        for size, topic, key in drafts:
            self.counter += 1
            stamped.append((EventId(1000, self.counter), Draft(b"1" * size, topic, key=key)))
        self.published += stamped
        self.stream.publish(stamped)

    def kept(self):
        journal = self.stream.journal
        return {event.id for event in journal.history(None, START, 10**6)[0]}

    def check_gap(self, client, gap):
        """A gap is told only where something asked for can no longer be had."""
        asked = set(client.since_of)
        between = [(i, d) for i, d in self.published if gap.after < i <= gap.before]
        missing = [i for i, d in between if (None in asked or d.topic in asked) and i not in self.kept()]
        assert missing, f"gap {gap} although everything asked for is kept"


def build(policy, kept_events):
    broadcaster = Broadcaster()
    journal = Journal(
        start=EventId(1000, 1),
        settings=JournalSettings(events=kept_events, bytes=2_000_000, age_s=50.0),
        topics_limit=100,
        latest=lambda topic: topic == "latest",
    )
    shared = RangeCache(200_000), Footprints(10**9), Allowance(10**6)
    stream = Stream("thing/1", journal, broadcaster, trio.current_time, *shared)
    stream.lag_policy = policy
    world = World(stream)
    if policy == "snapshot":

        def ask():
            world.wanted_snapshots += 1

        stream.ask_snapshot = ask
    return world, broadcaster


draft = st.tuples(st.sampled_from([1, 5_000, 70_000]), st.sampled_from(TOPICS), st.sampled_from([None, "k1", "k2"]))
topics_of = st.one_of(st.none(), st.frozensets(st.sampled_from(TOPICS), min_size=1))
operation = st.one_of(
    st.tuples(st.just("publish"), st.lists(draft, min_size=1, max_size=8)),
    st.tuples(st.just("subscribe"), topics_of, st.integers(-2, 20), st.booleans()),
    st.tuples(st.just("add"), st.integers(0, 4), topics_of, st.integers(-1, 20)),
    st.tuples(st.just("remove"), st.integers(0, 4), st.frozensets(st.sampled_from(TOPICS), min_size=1)),
    st.tuples(st.just("drain"), st.integers(0, 4)),
    st.tuples(st.just("close"), st.integers(0, 4)),
    st.tuples(st.just("snapshot")),
    st.tuples(st.just("pass")),
    st.tuples(st.just("sleep"), st.sampled_from([1.0, 30.0])),
)


class Run:
    def __init__(self, world):
        self.world = world
        self.clients = []

    def since(self, back):
        """None, everything kept, or the id that many events back."""
        published = self.world.published
        if back == -2:
            return None
        if back == -1:
            return START
        return published[-1 - back][0] if back < len(published) else EventId(1000, 1)

    async def open(self, topics, back, slow):
        world = self.world
        client = ModelClient(world, slow=slow)
        since = self.since(back)
        reader = world.stream.subscribe(client, encoding=EVENTS, topics=topics, since=since)
        client.since_of = dict.fromkeys([None] if topics is None else topics)
        if not reader.is_open:
            self.answer_snapshots()
        opening = await reader.opened()
        if opening.gap is not None:
            world.check_gap(client, opening.gap)
        if since == START:
            assert opening.gap is None, "since=0-0 is never a gap"
            begin = world.stream.journal.id_at(0)  # the last that is forgotten: a replaced value may still be kept
        else:
            begin = opening.id
        client.since_of = dict.fromkeys([None] if topics is None else topics, begin)
        reader.start()
        self.clients.append((client, reader))

    def answer_snapshots(self):
        world = self.world
        if world.wanted_snapshots:
            world.wanted_snapshots = 0
            world.stream.give_snapshot(world.stream.take_waiters(), b'"state"')

    def add(self, index, topics, back):
        if index >= len(self.clients):
            return
        client, reader = self.clients[index]
        if None in client.since_of or reader.closed or client.aborted or reader.waiting:
            return
        if topics is None:
            if client.ended:
                return  # the model does not follow a topic that is given up and then wanted again
            fresh = None
        else:
            fresh = topics - set(client.ended) - set(client.since_of)
            if not fresh:
                return
        since = None if back == -1 else self.since(back)
        try:
            opening = reader.add_topics(fresh, since)
        except trio.WouldBlock:
            return
        client.added = True
        for topic in [None] if fresh is None else fresh:
            client.since_of[topic] = opening.id

    def remove(self, index, topics):
        if index >= len(self.clients):
            return
        client, reader = self.clients[index]
        if None in client.since_of or reader.closed:
            return
        reader.remove_topics(topics)
        for topic in topics & set(client.since_of):
            client.ended[topic] = (client.since_of.pop(topic), self.world.stream.journal.head_id)


async def carry_out(policy, kept_events, operations):
    world, broadcaster = build(policy, kept_events)
    run = Run(world)
    async with trio.open_nursery() as nursery:
        await nursery.start(broadcaster.run)
        for name, *arguments in operations:
            match name:
                case "publish":
                    world.publish(arguments[0])
                case "subscribe":
                    await run.open(*arguments)
                case "add":
                    run.add(*arguments)
                case "remove":
                    run.remove(*arguments)
                case "drain":
                    if arguments[0] < len(run.clients):
                        run.clients[arguments[0]][0].drain()
                case "close":
                    if arguments[0] < len(run.clients):
                        run.clients[arguments[0]][1].close()
                case "snapshot":
                    run.answer_snapshots()
                case "pass":
                    await trio.testing.wait_all_tasks_blocked()
                case "sleep":
                    await trio.sleep(arguments[0])
                    world.stream.journal.expire(trio.current_time())
        for client, _ in run.clients:
            client.slow = False
        for _ in range(4):
            for client, _ in run.clients:
                client.drain()
            await trio.testing.wait_all_tasks_blocked()
            run.answer_snapshots()
        assert world.stream.behind() == sum(1 for c, r in run.clients if c.aborted and not r.closed)
        for client, reader in run.clients:
            check(world, client, reader)
            reader.close()
            reader.close()
        assert world.stream.subscribers == 0
        assert world.stream.demand.topics == frozenset()
        assert not world.stream._views
        assert not world.stream._by_topic
        nursery.cancel_scope.cancel()


def check(world, client, reader):
    """What came is what was owed, less what a gap or a snapshot stands for, less what a newer value replaced."""
    events = [item for item in client.received if isinstance(item, Event)]
    ids = [event.id for event in events]
    assert len(ids) == len(set(ids)), "repeated"
    if not client.added:
        assert ids == sorted(ids), "out of order"
    for topic in TOPICS:
        of_topic = [event.id for event in events if event.topic == topic]
        assert of_topic == sorted(of_topic), f"topic {topic} out of order"
        if topic in client.ended:
            begin, last = client.ended[topic]
            assert all(begin < i <= last for i in of_topic)
            continue
        begin = client.since_of.get(topic, client.since_of.get(None))
        if begin is None:
            assert not of_topic, "a topic that nobody asked for"
            continue
        owed = [(i, d) for i, d in world.published if d.topic == topic and i > begin]
        covered = [i for i, _ in owed if any(after < i <= before for after, before in client.gaps)]
        if reader.closed or client.aborted:
            assert set(of_topic) <= {i for i, _ in owed}
            continue
        if topic == "latest":
            newest = {d.key: i for i, d in owed}
            assert set(of_topic) <= {i for i, _ in owed}
            assert {i for i in newest.values() if i not in covered} <= set(of_topic)
        elif client.added:
            # A replay that was lost is told from its oldest topic's place: others may have been given some of it.
            assert {i for i, _ in owed if i not in covered} <= set(of_topic) <= {i for i, _ in owed}
        else:
            assert of_topic == [i for i, _ in owed if i not in covered]
    data = {i: d.data for i, d in world.published}
    assert all(event.data == data[event.id] for event in events)
    for item in client.received:
        assert isinstance(item, Event | GapNotice | SnapshotNotice)


@settings(max_examples=300, deadline=None)
@given(
    policy=st.sampled_from(["skip", "snapshot", "disconnect"]),
    kept_events=st.integers(1, 12),
    operations=st.lists(operation, max_size=40),
)
def test_no_loss_and_no_repeat_or_one_gap_that_is_true(policy, kept_events, operations):
    """Whatever is published, kept, asked for, however slowly read: each event owed comes once, or a gap says why."""
    trio.run(carry_out, policy, kept_events, operations, clock=trio.testing.MockClock(autojump_threshold=0))
