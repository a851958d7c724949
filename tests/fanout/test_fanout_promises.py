"""Fan-out's promises, one by one, over sinks written for it."""

import itertools
import random

import attrs
import pytest
import trio
import trio.testing

from trio_swarm.errors import ReaderLagged
from trio_swarm.fanout.broadcaster import WRITES_A_TURN
from trio_swarm.fanout.encoding import EVENTS, SSE_CHUNKED, WS_FRAMES
from trio_swarm.fanout.reader import Reader
from trio_swarm.fanout.stream import Demand
from trio_swarm.fanout.streams import BLANK_JOURNALS, Streams
from trio_swarm.journal.clock import IdClock
from trio_swarm.journal.event import START, Draft, EventId
from trio_swarm.journal.journal import Gap
from trio_swarm.settings import JournalSettings, Limits


class Sink:
    """Takes one payload at a time; `hold` makes it not ready after each."""

    def __init__(self, *, hold=False):
        self.ready = True
        self.on_ready = None
        self.hold = hold
        self.payloads = []
        self.aborted = None

    def write(self, payload):
        self.payloads.append(payload)
        if self.hold:
            self.ready = False

    def abort(self, reason):
        self.aborted = reason
        self.ready = False

    def drain(self):
        self.ready = True
        self.on_ready()

    @property
    def text(self):
        return b"".join(self.payloads).decode()


@pytest.fixture
def clock():
    now = iter(range(1_000_000, 2_000_000))
    made = IdClock(lambda: next(now), 0)
    made.reserved(10**12)
    return made


@pytest.fixture
async def streams(clock, nursery):
    made = Streams(clock, Limits())
    await nursery.start(made.run)
    return made


@pytest.fixture
def publish(clock):
    def publish(stream, *events):
        stream.publish([(clock.next(), Draft(data, topic)) for topic, data in events])

    return publish


def open_stream(streams, **journal):
    return streams.open("game/1", journal=JournalSettings(**journal), latest=lambda topic: topic == "latest")


async def live(stream, sink, encoding=SSE_CHUNKED, **arguments):
    reader = stream.subscribe(sink, encoding=encoding, **arguments)
    await reader.opened()
    reader.start()
    await trio.testing.wait_all_tasks_blocked()
    return reader


async def test_a_range_is_encoded_once_and_its_bytes_are_shared(autojump_clock, streams, publish):
    """A thousand clients at one position get the very same bytes object."""
    stream = open_stream(streams)
    sinks = [Sink() for _ in range(1_000)]
    for sink in sinks:
        stream.subscribe(sink, encoding=SSE_CHUNKED).start()
    publish(stream, ("", b"1"), ("", b"2"))
    await trio.testing.wait_all_tasks_blocked()
    assert len({id(payload) for sink in sinks for payload in sink.payloads}) == 1
    assert sinks[0].text.count("data: ") == 2


async def test_events_of_one_turn_leave_in_one_write(autojump_clock, streams, publish):
    """A burst is one payload, whose chunk header covers it exactly."""
    stream = open_stream(streams)
    sink = Sink()
    await live(stream, sink)
    publish(stream, *[("", b"%d" % i) for i in range(100)])
    await trio.testing.wait_all_tasks_blocked()
    [payload] = sink.payloads
    size, body = payload.split(b"\r\n", 1)
    assert int(size, 16) == len(body) - 2


async def test_only_readers_of_the_topic_are_written_to(autojump_clock, streams, publish):
    """Of 2,000 readers of 1,000 topics, two and the readers of all get the event."""
    stream = open_stream(streams)
    sinks = {topic: [Sink(), Sink()] for topic in range(1_000)}
    for topic, pair in sinks.items():
        for sink in pair:
            stream.subscribe(sink, encoding=SSE_CHUNKED, topics=frozenset({str(topic)})).start()
    everything = Sink()
    await live(stream, everything)
    publish(stream, ("7", b"1"))
    await trio.testing.wait_all_tasks_blocked()
    assert [topic for topic, pair in sinks.items() if pair[0].payloads or pair[1].payloads] == [7]
    assert len(everything.payloads) == 1


async def test_a_reader_of_several_topics_gets_them_merged_by_id(autojump_clock, streams, publish):
    """Order is the journal's, whatever topic an event is in."""
    stream = open_stream(streams)
    sink = Sink()
    await live(stream, sink, EVENTS, topics=frozenset({"a", "b"}))
    publish(stream, ("a", b"1"), ("b", b"2"), ("c", b"9"), ("a", b"3"), ("b", b"4"))
    await trio.testing.wait_all_tasks_blocked()
    assert [event.data for payload in sink.payloads for event in payload] == [b"1", b"2", b"3", b"4"]


async def test_a_sink_that_is_not_ready_is_left_out_and_then_catches_up(autojump_clock, streams, publish):
    """Nothing is queued for it; when it is ready it gets what it lacks in one range."""
    stream = open_stream(streams)
    sink = Sink(hold=True)
    await live(stream, sink, EVENTS)
    for number in range(5):
        publish(stream, ("", b"%d" % number))
        await trio.testing.wait_all_tasks_blocked()
    assert len(sink.payloads) == 1
    sink.drain()
    await trio.testing.wait_all_tasks_blocked()
    assert [[event.data for event in payload] for payload in sink.payloads] == [[b"0"], [b"1", b"2", b"3", b"4"]]


async def test_a_laggard_with_policy_skip_is_told_the_gap_and_goes_on_live(autojump_clock, streams, publish):
    """The gap names what is gone, and the next event is the first after it."""
    stream = open_stream(streams, events=3)
    sink = Sink(hold=True)
    reader = await live(stream, sink, EVENTS)
    for number in range(9):
        publish(stream, ("", b"%d" % number))
        await trio.testing.wait_all_tasks_blocked()
    first = sink.payloads[0][0].id
    sink.hold = False
    sink.drain()
    await trio.testing.wait_all_tasks_blocked()
    publish(stream, ("", b"next"))
    await trio.testing.wait_all_tasks_blocked()
    [notice], [event] = sink.payloads[1:]
    assert notice.gap == Gap(first, notice.id)
    assert event.data == b"next"
    assert reader.id == event.id


async def test_a_laggard_with_policy_disconnect_is_aborted(autojump_clock, streams, publish):
    """`disconnect` ends the client instead of telling it a gap."""
    stream = open_stream(streams, events=3)
    stream.lag_policy = "disconnect"
    sink = Sink(hold=True)
    await live(stream, sink, EVENTS)
    for number in range(9):
        publish(stream, ("", b"%d" % number))
        await trio.testing.wait_all_tasks_blocked()
    sink.drain()
    await trio.testing.wait_all_tasks_blocked()
    assert sink.aborted == "lagged"


async def test_no_event_overtakes_the_snapshot_it_should_follow(autojump_clock, streams, publish):
    """A reader whose snapshot is still owed, because its socket is full, is given nothing else before it."""
    stream = open_stream(streams, events=3)
    stream.lag_policy = "snapshot"
    stream.ask_snapshot = lambda: None
    sink = Sink(hold=True)
    reader = stream.subscribe(sink, encoding=EVENTS, topics=frozenset({"a"}))
    stream.give_snapshot(stream.take_waiters(), b"0")
    await reader.opened()
    reader.start()
    for number in range(9):
        publish(stream, ("a", b"%d" % number))
        await trio.testing.wait_all_tasks_blocked()
    sink.drain()
    await trio.testing.wait_all_tasks_blocked()
    stream.give_snapshot(stream.take_waiters(), b'"state"')
    await trio.testing.wait_all_tasks_blocked()
    reader.add_topics(frozenset({"b"}))
    publish(stream, ("a", b"after"))
    for _ in range(4):
        await trio.testing.wait_all_tasks_blocked()
        if not sink.ready:
            sink.drain()
    got = [item for payload in sink.payloads[1:] for item in payload]
    assert [type(item).__name__ for item in got] == ["GapNotice", "SnapshotNotice", "Event"]


async def test_an_object_that_failed_lets_go_of_those_a_dead_turn_had_taken(autojump_clock, streams):
    """Readers in a batch that nobody will answer are told that there is no snapshot."""
    stream = open_stream(streams)
    stream.ask_snapshot = lambda: None
    taken = stream.subscribe(Sink(), encoding=EVENTS)
    stream.take_waiters()
    waiting = stream.subscribe(Sink(), encoding=EVENTS)
    stream.abandon_snapshots("it failed")
    assert [(await reader.opened()).error for reader in (taken, waiting)] == ["it failed"] * 2


async def test_a_replay_that_falls_off_the_journal_is_a_gap_from_where_it_was(autojump_clock, streams, publish):
    """Topics that were promised from an older id, and are lost on the way, are told with that id."""
    stream = open_stream(streams, events=6)
    publish(stream, ("b", b"b1"), ("a", b"a1"))
    sink = Sink(hold=True)
    reader = await live(stream, sink, EVENTS, topics=frozenset({"a"}))
    publish(stream, ("a", b"a2"))
    await trio.testing.wait_all_tasks_blocked()
    seen = reader.id
    assert reader.add_topics(frozenset({"b"}), START).recovered
    for _ in range(9):
        publish(stream, ("c", b"c"))
    sink.drain()
    await trio.testing.wait_all_tasks_blocked()
    [notice] = sink.payloads[-1]
    assert notice.gap.after < seen
    assert notice.gap.after == START


async def test_a_reader_sent_away_for_lagging_is_gone(autojump_clock, streams, publish):
    """`disconnect` aborts once, and the stream forgets the reader."""
    stream = open_stream(streams, events=3)
    stream.lag_policy = "disconnect"
    sink = Sink(hold=True)
    await live(stream, sink, EVENTS)
    for number in range(9):
        publish(stream, ("", b"%d" % number))
        await trio.testing.wait_all_tasks_blocked()
    sink.drain()
    await trio.testing.wait_all_tasks_blocked()
    assert stream.subscribers == 0


async def test_a_feed_that_has_ended_is_not_told_to_later_readers(autojump_clock, streams):
    """States live as long as their feeds: a thousand feeds one after the other leave nothing."""
    stream = open_stream(streams)
    for number in range(1_000):
        stream.status(f"session {number}", "live")
        stream.forget_status(f"session {number}")
    sink = Sink()
    await live(stream, sink)
    assert not sink.payloads


async def test_an_unchanged_state_is_not_told_again(autojump_clock, streams):
    """A change of one feed tells that one."""
    stream = open_stream(streams)
    sink = Sink()
    await live(stream, sink)
    stream.status("one", "live")
    stream.status("two", "live")
    await trio.testing.wait_all_tasks_blocked()
    stream.status("two", "down", "gone")
    await trio.testing.wait_all_tasks_blocked()
    assert sink.text.count('"feed":"one"') == 1


async def test_a_stream_that_never_spoke_is_remembered_apart(autojump_clock, clock, streams):
    """Coming back to an object that published nothing is no gap; names asked for at random push no history out."""
    stream = open_stream(streams)
    reader = await live(stream, Sink())
    since = reader.id
    reader.close()
    streams.release("game/1")
    again = open_stream(streams).subscribe(Sink(), encoding=EVENTS, since=since)
    assert (await again.opened()).recovered
    again.close()
    spoken = streams.open("game/2", journal=JournalSettings(), latest=lambda _: False)
    spoken.publish([(clock.next(), Draft(b"1"))])
    streams.release("game/2")
    for number in range(3 * BLANK_JOURNALS):
        streams.open(f"random/{number}", journal=JournalSettings(), latest=lambda _: False)
        streams.release(f"random/{number}")
    assert streams.get("game/2") is spoken
    assert streams.statistics().idle <= BLANK_JOURNALS + 1


async def test_snapshots_are_single_flight_and_encoded_once(autojump_clock, streams, publish):
    """All who ask before the turn begins share a snapshot, who asks later asks again; nothing is missed or repeated."""
    stream = open_stream(streams)
    stream.lag_policy = "snapshot"
    asked = []
    stream.ask_snapshot = lambda: asked.append(True)
    sinks = [Sink() for _ in range(3)]
    readers = [stream.subscribe(sink, encoding=EVENTS) for sink in sinks[:2]]
    assert len(asked) == 1
    publish(stream, ("", b"1"))
    batch = stream.take_waiters()
    readers.append(stream.subscribe(sinks[2], encoding=EVENTS))
    assert len(asked) == 2
    publish(stream, ("", b"2"))
    stream.give_snapshot(batch, b'"two"')
    openings = [await reader.opened() for reader in readers[:2]]
    assert openings[0].snapshot is openings[1].snapshot
    assert openings[0].id == stream.journal.head_id
    assert not readers[2].is_open
    for reader in readers[:2]:
        reader.start()
    publish(stream, ("", b"3"))
    stream.give_snapshot(stream.take_waiters(), b'"three"')
    assert (await readers[2].opened()).snapshot == b'"three"'
    readers[2].start()
    await trio.testing.wait_all_tasks_blocked()
    assert [[event.data for payload in sink.payloads for event in payload] for sink in sinks] == [[b"3"], [b"3"], []]


async def test_a_lagging_reader_gets_gap_and_snapshot_then_live(autojump_clock, streams, publish):
    """Policy `snapshot`: what is gone is named, the state takes its place, and everything after it follows."""
    stream = open_stream(streams, events=3)
    stream.lag_policy = "snapshot"
    stream.ask_snapshot = lambda: None
    sink = Sink(hold=True)
    reader = stream.subscribe(sink, encoding=EVENTS)
    stream.give_snapshot(stream.take_waiters(), b"0")
    await reader.opened()
    reader.start()
    for number in range(9):
        publish(stream, ("", b"%d" % number))
        await trio.testing.wait_all_tasks_blocked()
    sink.hold = False
    sink.drain()
    await trio.testing.wait_all_tasks_blocked()
    stream.give_snapshot(stream.take_waiters(), b'"state"')
    publish(stream, ("", b"live"))
    await trio.testing.wait_all_tasks_blocked()
    gap, snapshot, event = [item for payload in sink.payloads[1:] for item in payload]
    assert gap.gap.before == snapshot.id
    assert snapshot.data == b'"state"'
    assert event.data == b"live"


async def test_a_snapshot_whose_turn_died_is_asked_again(autojump_clock, streams):
    """A new incarnation answers the readers that the last one had taken; a late answer of the old one is nothing."""
    stream = open_stream(streams)
    stream.ask_snapshot = lambda: None
    reader = stream.subscribe(Sink(), encoding=EVENTS)
    old = stream.take_waiters()
    asked = []
    stream.ask_snapshot = lambda: asked.append(True)
    assert asked == [True]
    stream.give_snapshot(old, b'"old"')
    assert not reader.is_open
    stream.give_snapshot(stream.take_waiters(), b'"new"')
    assert (await reader.opened()).snapshot == b'"new"'


async def test_a_snapshot_that_fails_leaves_the_stream_live(autojump_clock, streams, publish):
    """The opening says why there is no snapshot; events flow all the same."""
    stream = open_stream(streams)
    stream.ask_snapshot = lambda: None
    sink = Sink()
    reader = stream.subscribe(sink, encoding=EVENTS)
    stream.snapshot_failed(stream.take_waiters(), "it raised")
    assert (await reader.opened()).error == "it raised"
    reader.start()
    publish(stream, ("", b"1"))
    await trio.testing.wait_all_tasks_blocked()
    assert [event.data for event in sink.payloads[0]] == [b"1"]


async def test_a_status_reaches_every_reader_once_also_late_ones(autojump_clock, streams):
    """Not journalled: told to those who are there, to those who were not ready, and to those who come."""
    stream = open_stream(streams)
    ready, late, blocked = Sink(), Sink(), Sink(hold=True)
    await live(stream, ready)
    await live(stream, blocked)
    stream.status("odds", "down", "refused")
    await trio.testing.wait_all_tasks_blocked()
    stream.status("odds", "live")
    await trio.testing.wait_all_tasks_blocked()
    blocked.hold = False
    blocked.drain()
    await live(stream, late)
    assert ready.text.count("event: status") == 2
    assert blocked.text.count('"live"') == 1
    assert late.text.count("event: status") == 1
    assert "id:" not in late.text


async def test_states_of_many_feeds_wait_for_a_slow_client_one_by_one(autojump_clock, streams):
    """A sink that takes one payload at a time gets every feed's state, and changes meanwhile do not pile up for it."""
    stream = open_stream(streams)
    sink = Sink(hold=True)
    reader = await live(stream, sink)
    for _ in range(50):
        for number in range(5):
            stream.status(f"feed {number}", "down")
        await trio.testing.wait_all_tasks_blocked()
        assert len(reader.owed) <= 5
    for number in range(5):
        stream.status(f"feed {number}", "live")
    for _ in range(12):
        sink.drain()
        await trio.testing.wait_all_tasks_blocked()
    assert {number for number in range(5) if f'"feed":"feed {number}","state":"live"' in sink.text} == set(range(5))


async def test_ranges_that_the_journal_has_forgotten_leave_the_cache(autojump_clock, streams, publish):
    """The cache of shared ranges holds what can still be asked for, not the past."""
    stream = open_stream(streams, events=100, bytes=300_000)
    sink = Sink(hold=True)
    reader = await live(stream, sink, SSE_CHUNKED)
    for _ in range(30):
        publish(stream, *[("", b"1" * 20_000) for _ in range(12)])
        for _ in range(4):
            await trio.testing.wait_all_tasks_blocked()
            sink.drain()
    assert 0 < streams.statistics().shared_range_bytes < 500_000
    reader.close()
    assert streams.statistics().shared_range_bytes == 0


async def test_a_heartbeat_moves_a_quiet_topics_position_on(autojump_clock, streams, publish):
    """In silence a client is told the head's id: it resumes there, though its own topic said nothing."""
    stream = open_stream(streams)
    sink = Sink()
    reader = await live(stream, sink, topics=frozenset({"quiet"}))
    publish(stream, ("busy", b"1"))
    await trio.testing.wait_all_tasks_blocked()
    reader.heartbeat()  # the first only notes where the reader is
    reader.heartbeat()
    assert f"id: {stream.journal.head_id}\n\n" in sink.text
    assert reader.position == stream.journal.head


async def test_a_heartbeat_never_skips_an_event(autojump_clock, streams, publish):
    """A reader that has not been given an event yet is not told a position behind it."""
    stream = open_stream(streams)
    sink = Sink()
    reader = await live(stream, sink, topics=frozenset({"mine"}))
    publish(stream, ("mine", b"1"))
    reader.heartbeat()
    reader.heartbeat()
    assert not sink.payloads
    await trio.testing.wait_all_tasks_blocked()
    assert "data: 1" in sink.text


async def test_one_clients_error_never_leaves_the_broadcaster(autojump_clock, streams, publish):
    """A sink that raises is aborted and gone; the others do not notice."""

    class Broken(Sink):
        def write(self, payload):
            raise RuntimeError("broken sink")

    stream = open_stream(streams)
    broken, honest = Broken(), Sink()
    await live(stream, broken)
    await live(stream, honest)
    publish(stream, ("", b"1"))
    await trio.testing.wait_all_tasks_blocked()
    assert broken.aborted is not None
    assert stream.subscribers == 1
    assert "data: 1" in honest.text


async def test_the_broadcaster_yields_within_a_pass(autojump_clock, streams, publish):
    """After a few writes other tasks run: here, one that sees the pass half done."""
    stream = open_stream(streams)
    sinks = [Sink() for _ in range(4 * WRITES_A_TURN)]
    for sink in sinks:
        stream.subscribe(sink, encoding=SSE_CHUNKED).start()
    await trio.testing.wait_all_tasks_blocked()
    publish(stream, ("", b"1"))
    seen = set()
    while not sinks[-1].payloads:
        seen.add(sum(1 for sink in sinks if sink.payloads))
        await trio.lowlevel.checkpoint()
    steps = sorted(seen | {len(sinks)})
    # Trio shuffles tasks within a tick, so two slices may pass between two looks.
    assert max(after - before for before, after in itertools.pairwise(steps)) <= 2 * WRITES_A_TURN


async def test_the_broadcaster_yields_between_many_small_views(autojump_clock, streams, publish):
    """A pass over a thousand topics with one reader each is no longer a turn than one over a thousand readers."""
    stream = open_stream(streams)
    sinks = [Sink() for _ in range(10 * WRITES_A_TURN)]
    for number, sink in enumerate(sinks):
        stream.subscribe(sink, encoding=SSE_CHUNKED, topics=frozenset({str(number)})).start()
    await trio.testing.wait_all_tasks_blocked()
    publish(stream, *[(str(number), b"1") for number in range(len(sinks))])
    looks = 0
    while not sinks[-1].payloads:
        looks += 1
        await trio.lowlevel.checkpoint()
    assert looks >= 5


async def test_demand_counts_topics_by_reference(autojump_clock, streams):
    """A topic is wanted while anyone names it; readers of all topics hold none."""
    stream = open_stream(streams)
    changes = []
    stream.on_demand = lambda: changes.append(stream.demand)
    first = stream.subscribe(Sink(), encoding=EVENTS, topics=frozenset({"a", "b"}))
    second = stream.subscribe(Sink(), encoding=EVENTS, topics=frozenset({"b"}))
    stream.subscribe(Sink(), encoding=EVENTS)
    first.close()
    second.close()
    assert changes == [
        Demand(frozenset({"a", "b"}), 1),
        Demand(frozenset({"a", "b"}), 2),
        Demand(frozenset({"a", "b"}), 3),
        Demand(frozenset({"b"}), 2),
        Demand(frozenset(), 1),
    ]


async def test_added_topics_are_replayed_whole_before_they_are_live(autojump_clock, streams, publish):
    """The replay of an added topic ends where the reader stands; then all its topics go on together."""
    stream = open_stream(streams)
    publish(stream, ("b", b"old"), ("a", b"older"))
    sink = Sink()
    reader = await live(stream, sink, EVENTS, topics=frozenset({"a"}))
    opening = reader.add_topics(frozenset({"b"}), START)
    publish(stream, ("a", b"new a"), ("b", b"new b"))
    await trio.testing.wait_all_tasks_blocked()
    assert opening.recovered
    assert [event.data for payload in sink.payloads for event in payload] == [b"old", b"new a", b"new b"]


async def test_adding_all_topics_from_an_older_id_repeats_nothing(autojump_clock, streams, publish):
    """The replay leaves out what the reader has had through the topics it named before."""
    stream = open_stream(streams)
    sink = Sink()
    reader = await live(stream, sink, EVENTS, topics=frozenset({"a"}))
    publish(stream, ("a", b"a1"), ("b", b"b1"), ("a", b"a2"))
    await trio.testing.wait_all_tasks_blocked()
    reader.add_topics(None, START)
    publish(stream, ("a", b"a3"), ("b", b"b2"))
    await trio.testing.wait_all_tasks_blocked()
    assert [event.data for payload in sink.payloads for event in payload] == [b"a1", b"a2", b"b1", b"a3", b"b2"]


async def test_a_crowd_of_topics_is_no_gap_for_a_quiet_ones_reader(autojump_clock, clock, nursery):
    """When marks are folded into a floor, readers of topics that never spoke are brought to the head before."""
    streams = Streams(clock, attrs.evolve(Limits(), topics_per_journal=20))
    await nursery.start(streams.run)
    stream = streams.open("game/1", journal=JournalSettings(events=5), latest=lambda _: False)
    sink = Sink()
    await live(stream, sink, EVENTS, topics=frozenset({"quiet"}))
    for number in range(200):
        stream.publish([(clock.next(), Draft(b"1", f"topic {number}"))])
    assert stream.journal.lost(0, frozenset({"quiet"})), "the floor has risen above where the reader began"
    stream.publish([(clock.next(), Draft(b"2", "quiet"))])
    await trio.testing.wait_all_tasks_blocked()
    [[event]] = sink.payloads
    assert event.data == b"2"


async def test_a_released_stream_answers_clients_that_come_back(autojump_clock, streams, publish):
    """The journal of an object that stopped is kept until its age is over, and found again by the next incarnation."""
    stream = open_stream(streams, age_s=100.0)
    publish(stream, ("", b"1"))
    since = stream.journal.start
    streams.release("game/1")
    assert open_stream(streams, age_s=100.0) is stream
    streams.release("game/1")
    await trio.sleep(200)
    again = open_stream(streams)
    assert again is not stream
    reader = again.subscribe(Sink(), encoding=EVENTS, since=since)
    assert (await reader.opened()).gap is not None


async def test_idle_journals_are_bounded_in_number_and_bytes(autojump_clock, clock):
    """The least recently used go first."""
    streams = Streams(clock, attrs.evolve(Limits(), journals=3, idle_journal_bytes=250_000))
    for number in range(5):
        stream = streams.open(f"game/{number}", journal=JournalSettings(), latest=lambda _: False)
        stream.publish([(clock.next(), Draft(b"1" * 1_000))])
        streams.release(f"game/{number}")
    assert [streams.get(f"game/{number}") is not None for number in range(5)] == [False, False, True, True, True]
    big = streams.open("game/big", journal=JournalSettings(), latest=lambda _: False)
    big.publish([(clock.next(), Draft(b"1" * 249_500))])
    streams.release("game/big")
    assert streams.statistics().idle == 1


async def test_a_reader_in_this_process_iterates_and_is_told_when_it_lagged(autojump_clock, streams, publish):
    """`async for` gives each event once; falling off the journal raises once, then goes on after the gap."""
    stream = open_stream(streams, events=4)
    async with Reader(stream) as reader:
        publish(stream, ("", b"1"), ("", b"2"))
        assert [(await anext(reader)).data for _ in range(2)] == [b"1", b"2"]
        publish(stream, ("", b"3"))
        await trio.testing.wait_all_tasks_blocked()
        for number in range(9):
            publish(stream, ("", b"%d" % number))
            await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ReaderLagged, match="are gone"):
            for _ in range(20):
                await anext(reader)
        publish(stream, ("", b"after"))
        assert (await anext(reader)).data == b"after"
    assert stream.subscribers == 0


async def test_a_cancelled_iteration_loses_nothing(autojump_clock, streams, publish):
    """Whatever moment an iteration is cancelled at, the next one goes on where it was."""
    stream = open_stream(streams)
    got = []
    async with Reader(stream) as reader, trio.open_nursery() as nursery:

        async def source():
            for number in range(200):
                publish(stream, ("", b"%d" % number))
                await trio.sleep(0.01)

        nursery.start_soon(source)
        dice = random.Random(1)
        while len(got) < 200:
            with trio.move_on_after(dice.random() * 0.05):
                async for event in reader:
                    got.append(event.data)
                    if len(got) == 200:
                        break
    assert got == [b"%d" % number for number in range(200)]


async def test_websocket_events_are_one_frame_each(autojump_clock, streams, publish):
    """A range for WebSockets is its events' frames, end to end."""
    stream = open_stream(streams)
    sink = Sink()
    await live(stream, sink, WS_FRAMES)
    publish(stream, ("t", b"1"), ("t", b"2"))
    await trio.testing.wait_all_tasks_blocked()
    [payload] = sink.payloads
    assert payload.count(b'"type":"event"') == 2
    assert payload[0] == 0x81


def test_ids_are_what_they_say():
    """An id prints as it parses."""
    assert EventId.parse("12-3") == EventId(12, 3)
    assert str(EventId(12, 3)) == "12-3"
