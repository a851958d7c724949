"""Fan-out's promises, one by one: who is written to, when, and with which bytes."""

import itertools

import trio
import trio.testing
from fanout_rig import Sink, live, open_stream

from trio_swarm.fanout.broadcaster import WRITES_A_TURN
from trio_swarm.fanout.encoding import EVENTS, SSE_CHUNKED, WS_FRAMES
from trio_swarm.fanout.stream import Demand
from trio_swarm.journal.event import START


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
