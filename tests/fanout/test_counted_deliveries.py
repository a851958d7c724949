"""Deliveries are counted by range, and none is left out where the broadcaster yields or readers stand apart."""

from contextlib import AsyncExitStack

import trio

from trio_swarm.fanout.broadcaster import WRITES_A_TURN
from trio_swarm.fanout.reader import Reader
from trio_swarm.fanout.streams import Streams
from trio_swarm.journal.event import START, Draft
from trio_swarm.settings import JournalSettings, Limits


async def test_more_readers_than_a_turn_has_writes(autojump_clock, clock, nursery):
    """Every event counts once for each reader that was given it, live or in a replay."""
    streams = Streams(clock, Limits())
    await nursery.start(streams.broadcaster.run)
    stream = streams.open("game/1", journal=JournalSettings(), latest=lambda _: False)
    stream.publish([(clock.next(), Draft(b"0"))])
    count = 2 * WRITES_A_TURN + 5
    async with AsyncExitStack() as stack:
        for number in range(count):
            await stack.enter_async_context(Reader(stream, since=START if number % 2 else None))
        await trio.testing.wait_all_tasks_blocked()
        assert streams.broadcaster.statistics().deliveries == count // 2
        before = streams.broadcaster.statistics()
        stream.publish([(clock.next(), Draft(b"1")), (clock.next(), Draft(b"2"))])
        await trio.testing.wait_all_tasks_blocked()
        after = streams.broadcaster.statistics()
        quick = count - count // 2  # the others still hold what they replayed
        assert (after.writes - before.writes, after.deliveries - before.deliveries) == (quick, 2 * quick)
        assert after.published == 3
