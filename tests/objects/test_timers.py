"""Timers, background tasks and feeds: tasks of the object that end with it."""

from typing import ClassVar

import pytest
import trio
import trio.lowlevel

from trio_swarm.errors import Restart
from trio_swarm.objects.durable import DurableObject
from trio_swarm.settings import ObjectSettings, Settings
from trio_swarm.testing.small_swarm import open_directory

LONG = Settings(objects=ObjectSettings(grace_s=10_000))


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        (lambda self: self.every(1, self.stop), "timers are set in start, not in __init__"),
        (lambda self: self.after(1, self.stop), "timers are set in start, not in __init__"),
        (lambda self: self.feed(None), "feeds are opened in start, not in __init__"),
        (lambda self: self.spawn(self.stop), "tasks are begun in start, not in __init__"),
        (lambda self: self.publish("a", 1), "publish in __init__"),
    ],
)
async def test_in_the_constructor_there_is_no_life_yet(autojump_clock, logs, what, sentence):
    """What begins with a life is refused before it, and the log says where it belongs."""

    class Hasty(DurableObject):
        def __init__(self):
            what(self)

        async def poke(self): ...

    async with open_directory(Hasty) as swarm:
        with trio.move_on_after(0.5):
            await swarm.get(Hasty, "a").poke()
    assert sentence in str(logs)


class Clockwork(DurableObject):
    async def start(self):
        self.ticks = []
        self.handle = None

    async def set_every(self, seconds, takes=(), fails_at=None):
        takes = list(takes)

        async def tick():
            self.ticks.append(trio.current_time())
            if fails_at == len(self.ticks):
                raise ValueError("tick")
            await trio.sleep(takes.pop(0) if takes else 0)

        self.handle = self.every(seconds, tick)

    async def set_after(self, seconds):
        async def tick():
            self.ticks.append(trio.current_time())
            self.publish("tick", len(self.ticks))

        self.handle = self.after(seconds, tick)

    async def cancel(self):
        self.handle.cancel()
        self.handle.cancel()

    async def get_ticks(self):
        return self.ticks

    async def block(self, seconds):
        await trio.sleep(seconds)

    async def spawn_task(self, seconds, error=None):
        async def body():
            try:
                await trio.sleep(seconds)
                if error is not None:
                    raise error
            finally:
                ended.append(trio.current_time())

        self.spawn(body)


ended = []


@pytest.fixture(autouse=True)
def _none_ended():
    ended.clear()


async def test_every_ticks_at_multiples(autojump_clock):
    """Every 10 s: at 10, 20, 30."""
    async with open_directory(Clockwork, settings=LONG) as swarm:
        clockwork = swarm.get(Clockwork, "a")
        await clockwork.set_every(10)
        await trio.sleep(35)
        assert [10, 20, 30] == await clockwork.get_ticks()


async def test_a_long_tick_skips_those_it_ran_over(autojump_clock):
    """A tick of 25 s at 10 skips 20 and 30: the next is at 40; that one takes 9 s, and skips none."""
    async with open_directory(Clockwork, settings=LONG) as swarm:
        clockwork = swarm.get(Clockwork, "a")
        await clockwork.set_every(10, takes=[25, 9])
        await trio.sleep(65)
        assert [10, 40, 50, 60] == await clockwork.get_ticks()


async def test_a_tick_that_waits_for_its_turn_does_not_pile_up(autojump_clock):
    """While another turn takes 29 s, one tick waits and no more; then the beat goes on."""
    async with open_directory(Clockwork, settings=LONG) as swarm:
        clockwork = swarm.get(Clockwork, "a")
        await clockwork.set_every(5)
        await trio.sleep(1)
        await clockwork.block(29)
        assert [30] == await clockwork.get_ticks()
        await trio.sleep(11)
        assert [30, 35, 40] == await clockwork.get_ticks()


async def test_after_ticks_once_and_publishes(autojump_clock):
    """Its tick is a turn like any other."""
    async with open_directory(Clockwork, settings=LONG) as swarm:
        clockwork = swarm.get(Clockwork, "a")
        async with clockwork.watch("tick") as events:
            await clockwork.set_after(7)
            assert b"1" == (await anext(events)).data
        await trio.sleep(100)
        assert [7] == await clockwork.get_ticks()
        assert () == clockwork.statistics().tasks


async def test_a_cancelled_timer_ticks_no_more(autojump_clock):
    """Cancelling twice is the same as once."""
    async with open_directory(Clockwork, settings=LONG) as swarm:
        clockwork = swarm.get(Clockwork, "a")
        await clockwork.set_every(10)
        await trio.sleep(15)
        await clockwork.cancel()
        await trio.sleep(100)
        assert [10] == await clockwork.get_ticks()
        assert () == clockwork.statistics().tasks


async def test_tasks_end_with_the_object(autojump_clock):
    """A background task that would sleep for hours is gone when the scope is."""
    async with open_directory(Clockwork) as swarm:
        await swarm.get(Clockwork, "a").spawn_task(10_000)
        await trio.sleep(1)
    assert [1] == ended


async def test_what_raises_in_a_tick_restarts_the_object(autojump_clock):
    """The crash counts, the timer of the old life is gone, and the new life begins from storage."""
    async with open_directory(Clockwork, settings=LONG) as swarm:
        clockwork = swarm.get(Clockwork, "a")
        async with clockwork.watch():
            await clockwork.set_every(10, fails_at=2)
            await trio.sleep(25)
            assert (2, 1, "ValueError") == (
                clockwork.statistics().lives,
                clockwork.statistics().crashes,
                clockwork.statistics().last_error,
            )
            assert [] == await clockwork.get_ticks()
            assert () == clockwork.statistics().tasks


@pytest.mark.parametrize(("error", "crashes"), [(ValueError("task"), 1), (Restart(), 0)])
async def test_what_raises_in_a_background_task_restarts_the_object(autojump_clock, error, crashes):
    """An exception counts as a crash, Restart does not."""
    async with open_directory(Clockwork, settings=LONG) as swarm:
        clockwork = swarm.get(Clockwork, "a")
        async with clockwork.watch():
            await clockwork.spawn_task(1, error)
            await trio.sleep(5)
            assert (2, crashes) == (clockwork.statistics().lives, clockwork.statistics().crashes)


class Scripted:
    """A feed that gives what it is told, and notes what became of it."""

    def __init__(self, name="script", messages=(), *, crash=None):
        self.name = name
        self.messages = messages
        self.crash = crash
        self.delivered = 0
        self.ended = False

    async def run(self, deliver, status):
        try:
            status("connecting", None)
            await trio.sleep(1)
            status("live", None)
            for message in self.messages:
                await deliver(message)
                self.delivered += 1
            if self.crash is not None:
                raise self.crash
            await trio.sleep_forever()
        finally:
            status("down", "closed")
            self.ended = True


class Fed(DurableObject):
    scripts: ClassVar = []
    pin = False

    async def start(self):
        self.got = []
        self.feeds = [self.feed(script, pinned=self.pin) for script in self.scripts]

    async def on_message(self, feed, message):
        if message == "crash":
            raise ValueError(message)
        if isinstance(message, float):
            await trio.sleep(message)
        self.got.append((feed, message))
        self.publish("", message)

    async def get(self):
        return self.got

    async def cancel(self):
        self.feeds[0].cancel()


async def test_each_message_of_a_feed_is_a_turn(autojump_clock):
    """They come in order, and what they publish is seen."""
    Fed.scripts = [Scripted(messages=[1, 2, 3])]
    async with open_directory(Fed) as swarm:
        fed = swarm.get(Fed, "a")
        async with fed.watch() as events:
            assert [b"1", b"2", b"3"] == [(await anext(events)).data for _ in range(3)]
        assert [("script", n) for n in (1, 2, 3)] == await fed.get()
        assert (("feed", "script", "live"),) == fed.statistics().tasks
    assert Fed.scripts[0].ended


async def test_a_full_feed_lane_makes_the_feed_wait(autojump_clock):
    """With a lane of four and a turn that sleeps, the feed is held at five: one in its turn, four waiting."""
    Fed.scripts = [Scripted(messages=[20.0, *range(100)])]
    settings = Settings(objects=ObjectSettings(feed_lane=4))
    async with open_directory(Fed, settings=settings) as swarm, swarm.get(Fed, "a").watch():
        await trio.sleep(5)
        assert 5 == Fed.scripts[0].delivered
        await trio.sleep(20)
        assert 101 == Fed.scripts[0].delivered


async def test_a_cancelled_feed_leaves_the_object(autojump_clock):
    """Its task is over, the object is not."""
    Fed.scripts = [Scripted(messages=[1])]
    async with open_directory(Fed) as swarm:
        fed = swarm.get(Fed, "a")
        await trio.lowlevel.checkpoint()
        await fed.get()
        await trio.sleep(2)
        await fed.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert Fed.scripts[0].ended
        assert ((), 1) == (fed.statistics().tasks, fed.statistics().lives)


async def test_on_message_that_raises_is_a_crash(autojump_clock):
    """Messages that waited behind it are dropped, for the feed begins anew with the next life."""
    Fed.scripts = [Scripted(messages=[1, "crash", 2])]
    async with open_directory(Fed) as swarm, swarm.get(Fed, "a").watch():
        fed = swarm.get(Fed, "a")
        await trio.sleep(1.0)
        await trio.testing.wait_all_tasks_blocked()
        assert ("backoff", 1, "ValueError") == (
            fed.statistics().state,
            fed.statistics().crashes,
            fed.statistics().last_error,
        )
        assert 0 == fed.statistics().mailbox.feed


async def test_a_feed_that_raises_is_a_crash(autojump_clock):
    """A feed supervises itself, so what leaves it is a bug."""
    Fed.scripts = [Scripted(crash=OSError("bug"))]
    async with open_directory(Fed) as swarm, swarm.get(Fed, "a").watch():
        await trio.sleep(1.5)
        assert 1 == swarm.get(Fed, "a").statistics().crashes
