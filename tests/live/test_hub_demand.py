"""The hub: what clients want is subscribed upstream, once, and given up after the grace. In virtual time."""

import json
import random
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from trio_swarm.errors import SettingsError, UnknownObject
from trio_swarm.live.swarm_hub import hub_class
from trio_swarm.runtime import open_swarm
from trio_swarm.settings import FeedSettings
from trio_swarm.testing.leaks import assert_no_leaks
from trio_swarm.testing.upstream import Good, Refuse, ScriptedUpstream

GRACE = 5.0
pytestmark = pytest.mark.usefixtures("small_heap")


@asynccontextmanager
async def hub(*script, topics=()):
    """A swarm with one hub over a scripted upstream: (reference, upstream)."""
    upstream = ScriptedUpstream(script)
    with assert_no_leaks(lambda: ["a byte stream"] * upstream.open_streams):
        async with trio.open_nursery() as nursery:
            await nursery.start(upstream.run)
            cls = hub_class([upstream.settings("f", topics=topics)], opener=upstream.open, rng=random.Random(1))
            with trio.fail_after(10_000):  # virtual seconds: what hangs is red, not silent
                async with open_swarm([cls]) as swarm:
                    yield swarm.get("hub", "f"), upstream
            nursery.cancel_scope.cancel()


def values(events):
    return [json.loads(event.data)["value"] for event in events]


async def test_topics_are_counted(autojump_clock):
    """Two readers of one topic are one subscription upstream; it ends 5 s after the second has left, not before."""
    async with hub() as (reference, upstream):
        assert upstream.connections == []
        async with reference.watch("a"):
            await upstream.wait_topics("a")
            async with reference.watch("a", "b"):
                await upstream.wait_topics("a", "b")
            left = trio.current_time()
            await trio.sleep(GRACE - 0.1)
            assert upstream.topics == {"a", "b"}
            await upstream.wait_topics("a")
            assert trio.current_time() - left == pytest.approx(GRACE, abs=0.01)
        sent = [json.loads(text) for text in upstream.connections[0].received]
        assert sent == [
            {"op": "subscribe", "topics": ["a"]},
            {"op": "subscribe", "topics": ["b"]},
            {"op": "unsubscribe", "topics": ["b"]},
        ]


async def test_who_comes_back_within_the_grace_finds_it_subscribed(autojump_clock):
    """Leaving and coming back within 5 s sends nothing upstream; each leaving begins a grace of its own."""
    async with hub() as (reference, upstream), reference.watch("keeps it open"):
        for pause in (0, 1, 4.9, 4.9):
            async with reference.watch("a"):
                await upstream.wait_topics("a", "keeps it open")
                await trio.sleep(0.1)
            await trio.sleep(pause)
        async with reference.watch("a"):
            await trio.sleep(60)
        assert len(upstream.connections[0].received) == 1
        assert upstream.topics == {"a", "keeps it open"}


async def test_the_feed_is_closed_five_seconds_after_the_last_client(autojump_clock):
    """Nobody left: the connection goes after the grace, and the next client opens another."""
    async with hub() as (reference, upstream):
        async with reference.watch("a"):
            await upstream.wait_topics("a")
        left = trio.current_time()
        await trio.sleep(GRACE - 0.1)
        assert upstream.connections[0].open
        await upstream.wait_until(lambda upstream: not upstream.connections[0].open)
        assert trio.current_time() - left == pytest.approx(GRACE, abs=0.01)
        await trio.sleep(100)
        async with reference.watch("b"):
            await upstream.wait_topics("b")
        assert len(upstream.connections) == 2


async def test_a_hub_that_is_kept_alive_closes_its_feed_all_the_same(autojump_clock):
    """Calls keep the object alive, clients keep the feed: without clients it is closed although the hub lives on."""
    async with hub() as (reference, upstream):
        async with reference.watch("a"):
            await upstream.wait_topics("a")
        for _ in range(10):
            await trio.sleep(2)
            told = await reference.feed_statistics()
        assert told is None
        assert not upstream.connections[0].open
        assert reference.statistics().lives == 1
        async with reference.watch("b"):
            await upstream.wait_topics("b")


async def test_a_reader_of_all_topics_holds_none_and_gets_what_flows(autojump_clock):
    """It opens the feed and keeps it open, subscribes to nothing, and sees what others have subscribed to."""
    async with hub() as (reference, upstream), reference.watch() as everything:
        await upstream.wait_until(lambda upstream: len(upstream.connections) == 1)
        await trio.sleep(60)
        assert upstream.connections[0].received == []
        async with reference.watch("a") as some:
            await upstream.wait_topics("a")
            upstream.publish("a", 1)
            upstream.publish("b", 2)
            assert values([await anext(everything), await anext(some)]) == [1, 1]
        await trio.sleep(GRACE + 1)
        assert (upstream.topics, upstream.connections[0].open) == (set(), True)


async def test_frames_are_events_byte_for_byte(autojump_clock):
    """An event of the hub is the frame: its topic, the default type, the same bytes, and an offset in its topic."""
    async with hub() as (reference, upstream), reference.watch("a") as reader:
        await upstream.wait_topics("a")
        upstream.publish("a", "\u00e9\u2028")
        upstream.publish("a", {"x": [1.50]})
        events = [await anext(reader), await anext(reader)]
        assert [(event.topic, event.type, event.offset) for event in events] == [
            ("a", "message", 1),
            ("a", "message", 2),
        ]
        assert events[0].data == '{"topic":"a","sequence":1,"value":"\u00e9\u2028"}'.encode()


async def test_after_a_reconnect_everything_wanted_is_subscribed_again(autojump_clock):
    """The upstream goes away: what is wanted at that moment is what the next connection is asked for."""
    async with hub(Good(seconds=2), Refuse()) as (reference, upstream), reference.watch("a") as reader:
        await upstream.wait_topics("a")
        async with reference.watch("b"):
            await upstream.wait_until(lambda upstream: len(upstream.connections) == 3)
            await upstream.wait_topics("a", "b")
        upstream.publish("a", "again")
        assert values([await anext(reader)]) == ["again"]


async def test_a_fixed_list_is_subscribed_at_once_and_kept(autojump_clock):
    """With a fixed list the hub connects with the runtime, without a client, and stays; clients change nothing."""
    async with hub(topics=("x", "y")) as (reference, upstream):
        await upstream.wait_topics("x", "y")
        await trio.sleep(1000)
        async with reference.watch("z"):
            await trio.sleep(10)
        await trio.sleep(1000)
        assert (len(upstream.connections), upstream.topics) == (1, {"x", "y"})
        assert len(upstream.connections[0].received) == 1
        told = await reference.feed_statistics()
        assert (told.state, told.connects, told.topics) == ("live", 1, 2)


async def test_a_feed_that_is_not_configured_is_unknown(autojump_clock):
    """A hub that has no feed does not exist; with none at all there is still the kind."""
    async with hub() as (reference, _):
        swarm = reference._directory
        with pytest.raises(UnknownObject):
            async with swarm.get("hub", "other").watch():
                pass


@pytest.mark.parametrize(
    "feeds",
    [
        [FeedSettings("a", "ws://x"), FeedSettings("a", "ws://y")],
        [FeedSettings("a", "http://x")],
        [FeedSettings("a", "ws://x", protocol="morse")],
    ],
)
def test_feeds_that_cannot_be(feeds):
    """Mistakes in the settings of feeds are told when the hubs are made."""
    with pytest.raises(SettingsError, match="feed a"):
        hub_class(feeds)


# Against a model: clients that come and go.

steps = st.lists(
    st.tuples(
        st.sampled_from(["all", "a", "b", "c", "ab"]),  # what a client wants
        st.sampled_from([0.0, 0.5, 3.0, 7.0]),  # when it comes, after the one before
        st.sampled_from([0.37, 2.12, 6.37, 20.12]),  # how long it stays; no two things happen at once
    ),
    min_size=1,
    max_size=8,
)


def wanted_until(visits, topic):
    """The spans in which a topic is to be subscribed: named by somebody, or within the grace."""
    spans = sorted((begin, end + GRACE) for want, begin, end in visits if topic is None or topic in want)
    merged = []
    for begin, end in spans:
        if merged and begin < merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([begin, end])
    return merged


def within(spans, at):
    return any(begin <= at < end for begin, end in spans)


@settings(max_examples=40, deadline=None)
@given(steps)
def test_what_is_subscribed_is_what_is_wanted_or_in_its_grace(visits):
    """Any coming and going: at every moment exactly the topics that somebody names, or named less than 5 s ago."""
    now, plan = 0.0, []
    for want, pause, stay in visits:
        now += pause
        plan.append(("" if want == "all" else want, now, now + stay))

    async def visit(reference, want, begin, end):
        await trio.sleep_until(begin)
        async with reference.watch(*want):
            await trio.sleep_until(end)

    async def main():
        async with hub() as (reference, upstream), trio.open_nursery() as nursery:
            start = trio.current_time()
            moved = [(want, start + begin, start + end) for want, begin, end in plan]
            for want, begin, end in moved:
                nursery.start_soon(visit, reference, want, begin, end)
            open_spans = wanted_until(moved, None)
            spans = {topic: wanted_until(moved, topic) for topic in "abc"}
            at = start + 0.05
            while at < max(end for _, _, end in moved) + GRACE + 2:
                await trio.sleep_until(at)
                is_open = any(connection.open for connection in upstream.connections)
                assert is_open == within(open_spans, at)
                assert upstream.topics == {topic for topic in spans if within(spans[topic], at)}
                at += 0.25
            assert len(upstream.connections) == len(open_spans)

    trio.run(partial(main), clock=MockClock(autojump_threshold=0))
