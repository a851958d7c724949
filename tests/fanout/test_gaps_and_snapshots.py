"""What readers are told beside events: gaps, snapshots, the states of feeds."""

import attrs
import pytest
import trio
import trio.testing
from fanout_rig import Sink, live, open_stream

from trio_swarm.errors import ReaderLagged
from trio_swarm.fanout.encoding import EVENTS
from trio_swarm.fanout.reader import Reader
from trio_swarm.fanout.streams import Streams
from trio_swarm.journal.event import START, Draft
from trio_swarm.journal.journal import Gap
from trio_swarm.settings import JournalSettings, Limits


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
    sink.drain()
    publish(stream, ("a", b"after"))  # in the same step: the next pass finds both to do
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
    with trio.fail_after(5):
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
