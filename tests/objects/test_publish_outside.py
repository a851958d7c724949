"""Publishing from outside, and a messageId that comes again."""

import pytest
import trio

from trio_swarm.errors import InvalidEvent, InvalidName, NotPublishable, StorageError, SwarmError, UnknownObject
from trio_swarm.journal.event import START, Draft
from trio_swarm.objects.directory import REPEATS
from trio_swarm.objects.durable import DurableObject
from trio_swarm.testing.small_swarm import open_directory


class Channel(DurableObject):
    publishable = True
    fails = False

    async def start(self):
        if self.fails:
            raise OSError

    async def block(self, seconds):
        await trio.sleep(seconds)

    @classmethod
    def exists(cls, id):
        return id != "nobody"


class Quiet(DurableObject):
    pass


def drafts(*texts):
    return [Draft(text.encode(), "chat", "said", "k") for text in texts]


async def test_many_events_are_one_turn(autojump_clock):
    """The answer is the last id and their number; they are in the journal as given, in order."""
    async with open_directory(Channel) as swarm:
        channel = swarm.get(Channel, "a")
        published = await channel.publish(drafts("1", "2", "3"))
        events, _ = await channel.history(since=START)
        assert (events[-1].id, 3) == (published.id, published.count)
        assert [(b"1", "chat", "said", "k"), (b"2", "chat", "said", "k"), (b"3", "chat", "said", "k")] == [
            (e.data, e.topic, e.type, e.key) for e in events
        ]
        assert 2 == channel.statistics().turns  # start, and this one


async def test_only_publishable_kinds_and_sound_events(autojump_clock):
    """Everything else is refused before a turn."""
    async with open_directory(Channel, Quiet) as swarm:
        with pytest.raises(NotPublishable):
            await swarm.get(Quiet, "a").publish(drafts("1"))
        with pytest.raises(InvalidEvent):
            await swarm.get(Channel, "a").publish([])
        for bad in (Draft(b"1", "a,b"), Draft(b"1", "", "gap"), Draft(b"1", key="\n")):
            with pytest.raises(InvalidName):
                await swarm.get(Channel, "a").publish([*drafts("1"), bad])
        with pytest.raises(UnknownObject):
            await swarm.get(Channel, "nobody").publish(drafts("1"), "m")
        assert {"channel": {}, "quiet": {}} == swarm.tree()
        assert {} == swarm.publishing


async def test_a_repeated_message_is_answered_and_not_done_again(autojump_clock):
    """For five seconds; another object's, or a later one, is a new message."""
    async with open_directory(Channel) as swarm:
        channel = swarm.get(Channel, "a")
        first = await channel.publish(drafts("1"), "m")
        assert first == await channel.publish(drafts("1"), "m")
        assert first != await channel.publish(drafts("1"), "n")
        assert first != await swarm.get(Channel, "b").publish(drafts("1"), "m")
        await trio.sleep(5.1)
        assert first != await channel.publish(drafts("1"), "m")
        assert 3 == len((await channel.history(since=START))[0])


async def test_a_repeat_while_the_first_is_under_way_waits_for_it(autojump_clock):
    """Both get the first id, and there is one event."""
    async with open_directory(Channel) as swarm:
        channel, answers = swarm.get(Channel, "a"), []

        async def publish():
            answers.append(await channel.publish(drafts("1"), "m"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.block, 5)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(3):
                nursery.start_soon(publish)
        assert 1 == len(set(answers))
        assert 1 == len((await channel.history(since=START))[0])
        assert {} == swarm.publishing


async def test_a_first_that_left_before_its_turn_is_done_by_the_repeat(autojump_clock):
    """Nothing was done, so the repeat does it."""
    async with open_directory(Channel) as swarm:
        channel, answers = swarm.get(Channel, "a"), []

        async def publish(seconds):
            with trio.move_on_after(seconds):
                answers.append(await channel.publish(drafts("1"), "m"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.block, 5)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(publish, 1)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(publish, 20)
        assert 1 == len(answers)
        assert 1 == len((await channel.history(since=START))[0])


async def test_a_first_that_left_during_its_turn_is_remembered(autojump_clock):
    """Its turn ran on; the repeat is answered with its id."""
    from trio_swarm.testing.slow_storage import SlowStorage

    class Kept(Channel):
        async def keep(self):
            self.storage.put("k", 1)

    storage = SlowStorage(holding=True)
    async with open_directory(Kept, storage=storage) as swarm:
        channel, answers = swarm.get(Kept, "a"), []

        async def publish(seconds):
            with trio.move_on_after(seconds):
                answers.append(await channel.publish(drafts("1"), "m"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(channel.keep)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(publish, 1)  # its turn ends at the gate, behind the commit
            await trio.sleep(2)
            assert [] == answers
            storage.holding = False
            storage.release()
            await publish(1)
        assert 1 == len(answers)
        assert 1 == len((await channel.history(since=START))[0])


async def test_a_first_that_failed_is_not_remembered(autojump_clock, logs):
    """The repeat is done anew."""
    from trio_swarm.testing.slow_storage import SlowStorage

    class Kept(Channel):
        async def keep(self):
            self.storage.put("k", 1)

    storage = SlowStorage(holding=True)
    async with open_directory(Kept, storage=storage) as swarm:
        channel, ends = swarm.get(Kept, "a"), []

        async def attempt(call, *args):
            try:
                ends.append(await call(*args))
            except SwarmError as error:
                ends.append(type(error).__name__)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(attempt, channel.keep)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(attempt, channel.publish, drafts("1"), "m")
            await trio.testing.wait_all_tasks_blocked()
            storage.holding = False
            storage.fail()
        assert sorted([StorageError.__name__, "ObjectRestarted"]) == sorted(ends)
        published = await channel.publish(drafts("2"), "m")
        assert [published.id] == [e.id for e in (await channel.history(since=START))[0]]


async def test_what_is_remembered_has_a_bound(autojump_clock):
    """The oldest is forgotten first."""
    async with open_directory(Channel) as swarm:
        channel = swarm.get(Channel, "a")
        for n in range(REPEATS + 10):
            await channel.publish(drafts("1"), str(n))
        assert REPEATS == swarm.statistics().remembered_messages
