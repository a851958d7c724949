"""What all streams of a runtime share: the room for live history, and for topics that readers name."""

import attrs
import pytest
import trio

from trio_swarm.errors import ReaderLagged, TooManySubscriptions
from trio_swarm.fanout.encoding import SSE_CHUNKED
from trio_swarm.fanout.reader import Reader
from trio_swarm.fanout.streams import Streams
from trio_swarm.fanout.view import View
from trio_swarm.journal.event import START, Draft
from trio_swarm.journal.journal import EVENT_BYTES, OVERHEAD_BYTES, TOPIC_BYTES
from trio_swarm.settings import JournalSettings, Limits

LARGE = JournalSettings(events=1_000_000, bytes=10**9)


@pytest.fixture
def small(clock, autojump_clock):
    """Streams that may hold 100 KB of live history, and 10 topics that readers name."""
    return Streams(clock, attrs.evolve(Limits(), live_journal_bytes=100_000, subscribed_topics=10))


def open_one(streams, name):
    return streams.open(name, journal=LARGE, latest=lambda _: False)


async def test_the_largest_gives_way(small, clock):
    """All live journals stay within the bound; it is the largest that forgets, and never its newest event."""
    quiet, busy = open_one(small, "game/quiet"), open_one(small, "game/busy")
    quiet.publish([(clock.next(), Draft(b"1" * 1_000))])
    for _ in range(500):
        busy.publish([(clock.next(), Draft(b"1" * 1_000))])
        assert small.statistics().live_bytes <= 100_000
    assert len(quiet.journal) == 1
    assert 20 < len(busy.journal) < 70
    busy.publish([(clock.next(), Draft(b"1" * 300_000))])
    assert len(busy.journal) == 1


async def test_names_of_topics_count_too(small, clock):
    """Topics without an event are history as well: they are forgotten with it."""
    stream = open_one(small, "game/1")
    for number in range(5_000):
        stream.publish([(clock.next(), Draft(b"1", f"topic-{number}"))])
        assert small.statistics().live_bytes <= 100_000
    assert stream.journal.statistics().topics < 100_000 / (EVENT_BYTES + TOPIC_BYTES)


async def test_what_is_counted_is_what_there_is(small, clock):
    """The sum is that of the journals, whatever they went through; a stopped object's is counted elsewhere."""
    streams = [open_one(small, f"game/{number}") for number in range(5)]
    for number, stream in enumerate(streams):
        stream.publish([(clock.next(), Draft(b"1" * 100, f"t{n}")) for n in range(10 * number)])
    assert small.statistics().live_bytes == sum(stream.journal.footprint for stream in streams)
    assert streams[2].journal.footprint == 20 * (100 + OVERHEAD_BYTES + EVENT_BYTES + TOPIC_BYTES)
    for number in range(5):
        small.release(f"game/{number}")
    assert small.statistics().live_bytes == 0
    open_one(small, "game/2")
    assert small.statistics().live_bytes == streams[2].journal.footprint


async def test_what_is_past_its_age_gives_room(small, clock):
    """The sweep that frees old history also says that it is gone."""
    stream = small.open("game/1", journal=attrs.evolve(LARGE, age_s=1.0), latest=lambda _: False)
    for _ in range(50):
        stream.publish([(clock.next(), Draft(b"1" * 1_000))])
    before = small.statistics().live_bytes
    await trio.sleep(2)
    small.sweep()
    assert small.statistics().live_bytes == stream.journal.footprint < before / 10


async def test_who_needed_it_is_told(small, clock, nursery):
    """A reader that lacks what was forgotten for want of room learns of a gap, and goes on."""
    await nursery.start(small.broadcaster.run)
    stream = open_one(small, "game/1")
    first = clock.next()
    stream.publish([(first, Draft(b"0"))])
    async with Reader(stream, since=START) as reader:
        assert (await anext(reader)).data == b"0"
        for _ in range(400):
            stream.publish([(clock.next(), Draft(b"1" * 1_000))])
        with pytest.raises(ReaderLagged):
            async for event in reader:
                assert event.data == b"1" * 1_000
        stream.publish([(clock.next(), Draft(b"2"))])
        async for event in reader:
            if event.data == b"2":
                break


async def test_a_quiet_reader_pays_for_no_other(small, clock, nursery):
    """Topics are dropped for want of room, and a reader that has had all of its own topic misses nothing."""
    await nursery.start(small.broadcaster.run)
    stream = open_one(small, "game/1")
    stream.publish([(clock.next(), Draft(b"0", "quiet"))])
    async with Reader(stream, frozenset({"quiet"}), since=START) as reader:
        assert (await anext(reader)).data == b"0"
        for number in range(500):
            stream.publish([(clock.next(), Draft(b"1", f"topic-{number}"))])
        assert stream.journal.statistics().topics < 200
        stream.publish([(clock.next(), Draft(b"2", "quiet"))])
        assert (await anext(reader)).data == b"2"


async def test_a_large_event_is_encoded_once_for_all_views(small, clock):
    """Readers of different topics hold the same bytes of an event that goes alone, however many views there are."""
    small = Streams(clock, Limits())
    stream = open_one(small, "game/1")
    views = [
        View(stream.name, stream.journal, frozenset({"wanted", f"other-{n}"}), SSE_CHUNKED, n, small._cache)
        for n in range(3)
    ]
    stream.publish([(clock.next(), Draft(b"1" * 200_000, "wanted"))])
    payloads = [view.step(0)[0] for view in views]
    assert payloads[0] is payloads[1] is payloads[2]
    stream.publish([(clock.next(), Draft(b"2", "wanted"))])
    payload, end, _, count = views[0].step(0)
    assert payload is payloads[0]
    assert (end, count) == (1, 1)
    assert views[0].step(end)[1] == 2
    assert small.statistics().shared_range_bytes < 2 * 200_000


async def test_topics_that_readers_name(small):
    """Beyond the number the next reader is refused and changes nothing; who leaves, or names fewer, gives room."""
    stream, other = open_one(small, "game/1"), open_one(small, "game/2")

    def held():
        return small.statistics().subscribed_topics.held

    one = Reader(stream, frozenset("abcdef"))._subscription
    everything = Reader(other)._subscription
    assert held() == 7
    with pytest.raises(TooManySubscriptions):
        Reader(other, frozenset("abcd"))
    with pytest.raises(TooManySubscriptions):
        one.add_topics(frozenset("uvwx"))
    assert (held(), stream.subscribers, other.subscribers) == (7, 1, 1)
    assert one.topics == frozenset("abcdef")
    one.add_topics(frozenset("efg"))
    assert held() == 8
    one.remove_topics(frozenset("abz"))
    assert held() == 6
    one.add_topics(None)
    assert held() == 2
    one.close()
    one.close()
    everything.close()
    assert held() == 0
