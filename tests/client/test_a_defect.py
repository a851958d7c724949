"""A defect of ours while a stream is read is told as one, and not as the end of the stream."""

import pytest
import trio.testing

from trio_swarm.client import Connected
from trio_swarm.client.event_source import open_source
from trio_swarm.settings import UpstreamSettings


class Defect(Exception):
    pass


class Broken:
    retry_s = None

    async def read(self, tell):
        await tell(Connected())
        await trio.testing.wait_all_tasks_blocked()  # whoever reads waits for more
        raise Defect


async def test_it_is_not_the_end_of_the_stream():
    """Who reads does not go on as if the service had said that there is no more."""
    told = []
    with pytest.RaisesGroup(Defect):
        async with open_source(Broken(), UpstreamSettings()) as source:
            told.extend([happening async for happening in source])
            told.append("the service says that there is no more")
    assert [] == told
