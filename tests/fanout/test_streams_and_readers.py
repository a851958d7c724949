"""Journals that outlive their objects, and readers in this process."""

import random

import attrs
import trio
import trio.testing
from fanout_rig import Sink, live, open_stream

from trio_swarm.fanout.encoding import EVENTS, SSE_CHUNKED
from trio_swarm.fanout.reader import Reader
from trio_swarm.fanout.streams import BLANK_JOURNALS, Streams
from trio_swarm.journal.event import Draft, EventId
from trio_swarm.settings import JournalSettings, Limits


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
    big.publish([(clock.next(), Draft(b"1" * 248_500))])
    streams.release("game/big")
    assert streams.statistics().idle == 1


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


def test_ids_are_what_they_say():
    """An id prints as it parses."""
    assert EventId.parse("12-3") == EventId(12, 3)
    assert str(EventId(12, 3)) == "12-3"
