"""Streams that run, over a clock that only rises."""

import pytest

from trio_swarm.fanout.streams import Streams
from trio_swarm.journal.clock import IdClock
from trio_swarm.journal.event import Draft
from trio_swarm.settings import Limits


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
