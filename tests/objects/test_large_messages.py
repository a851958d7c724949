"""A feed's large messages are alone in their lane; small ones fill it."""

import attrs
import pytest
import trio

from trio_swarm.objects.durable import DurableObject
from trio_swarm.settings import LARGE_MESSAGE_BYTES, ObjectSettings, Settings
from trio_swarm.testing.small_swarm import open_directory


@attrs.frozen
class Sized:
    size: int


class OneSize:
    """A feed of messages of one size, which counts those that it got rid of."""

    name = "one-size"

    def __init__(self, size):
        self.size = size
        self.delivered = 0
        self.failure = None

    async def run(self, deliver, status):
        while True:
            await deliver(Sized(self.size))
            self.delivered += 1


class Busy(DurableObject):
    """Comes back from a message when it is let go, or raises."""

    feed_of = OneSize(0)
    free = None
    taken = 0

    async def start(self):
        type(self).free = trio.Event()
        self.feed(self.feed_of)

    async def on_message(self, feed, message):
        type(self).taken += 1
        await self.free.wait()
        if self.taken == 3:
            raise ValueError("the third is one too many")

    async def poke(self): ...


@pytest.mark.parametrize(("size", "held"), [(LARGE_MESSAGE_BYTES, 8), (LARGE_MESSAGE_BYTES + 1, 0)])
async def test_how_many_wait(autojump_clock, size, held):
    """While the object is busy its lane fills with small messages, and holds no second large one."""
    Busy.feed_of, Busy.taken = OneSize(size), 0
    settings = Settings(objects=ObjectSettings(feed_lane=8, turn_s=1_000))
    async with open_directory(Busy, settings=settings) as directory:
        busy = directory.live(directory.kinds["busy"], "one")
        await trio.sleep(1)
        assert Busy.taken == 1
        assert busy.mailbox.counts[2] == held
        assert Busy.feed_of.delivered == (held + 1 if held else 0)
        Busy.free.set()
        await trio.testing.wait_all_tasks_blocked()


async def test_a_large_message_whose_turn_raises(autojump_clock):
    """Its error brings the object down once, as any message's does; the feed's task says nothing beside that."""
    Busy.feed_of, Busy.taken = OneSize(LARGE_MESSAGE_BYTES + 1), 0
    async with open_directory(Busy) as directory:
        busy = directory.live(directory.kinds["busy"], "one")
        await trio.testing.wait_all_tasks_blocked()
        Busy.free.set()
        await trio.sleep(0.001)
        assert busy.state == "backoff"
        assert (busy.last_error, busy.statistics().crashes, Busy.taken) == ("ValueError", 1, 3)
