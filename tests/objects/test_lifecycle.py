"""Starting, idling, stopping, crashing and coming back."""

import random
from typing import ClassVar

import pytest
import trio

from trio_swarm.errors import ObjectFailed, Restart, SettingsError, TooManyObjects
from trio_swarm.fanout.encoding import EVENTS
from trio_swarm.fanout.stream import Demand
from trio_swarm.journal.event import START
from trio_swarm.objects.durable import DurableObject
from trio_swarm.settings import Limits, Settings
from trio_swarm.testing.leaks import assert_no_leaks
from trio_swarm.testing.small_swarm import open_directory


class Sink:
    def __init__(self):
        self.ready = True
        self.on_ready = None
        self.got = []

    def write(self, payload):
        self.got += payload

    def abort(self, reason):
        self.ready = False


class Room(DurableObject):
    log: ClassVar = []
    stop_seconds = 0
    stop_error = None
    start_errors: ClassVar = []

    async def start(self):
        self.log.append((trio.current_time(), "start"))
        if self.start_errors:
            raise self.start_errors.pop(0)
        self.visits = await self.storage.get("visits", 0)

    async def stop(self):
        self.log.append((trio.current_time(), "stop"))
        await trio.sleep(self.stop_seconds)
        self.storage.put("stopped", True)
        self.publish("closing", "bye")
        if self.stop_error is not None:
            raise self.stop_error

    async def visit(self, seconds=0):
        self.visits += 1
        self.storage.put("visits", self.visits)
        await trio.sleep(seconds)
        return self.visits

    async def tick_often(self):
        self.every(1, self.visit)

    async def crash(self):
        async def body():
            raise OSError("crash")

        self.spawn(body)

    async def restart(self):
        raise Restart

    async def was_stopped(self):
        return await self.storage.get("stopped", False)

    async def on_message(self, feed, message):
        self.visits += 1

    async def open_feed(self, feed, *, pinned):
        self.handle = self.feed(feed, pinned=pinned)

    async def end_feed(self):
        self.handle.cancel()


@pytest.fixture(autouse=True)
def room(logs):
    Room.log, Room.stop_seconds, Room.stop_error, Room.start_errors = [], 0, None, []
    return Room


async def test_an_idle_object_stops_after_its_grace(autojump_clock):
    """Five seconds after the last turn ended, not sooner and not later; its journal stays, its storage too."""
    async with open_directory(Room) as swarm:
        room = swarm.get(Room, "a")
        await room.visit()
        await trio.sleep(3)
        await room.visit(2)  # ends at 5
        await trio.sleep(100)
        assert [(0, "start"), (10, "stop")] == Room.log
        assert room.statistics() is None
        assert [b'"bye"'] == [event.data for event in (await room.history(since=START))[0]]
        assert 3 == await room.visit()
        assert await room.was_stopped()


async def test_timers_keep_no_object_alive(autojump_clock):
    """Ticking every second changes nothing."""
    async with open_directory(Room) as swarm:
        await swarm.get(Room, "a").tick_often()
        await trio.sleep(100)
        assert [(0, "start"), (5, "stop")] == Room.log


async def test_a_subscriber_keeps_it_alive_and_the_grace_begins_when_it_leaves(autojump_clock):
    """Also a subscriber who came without any call."""
    async with open_directory(Room) as swarm:
        subscription = await swarm.get(Room, "a").subscribe(Sink(), encoding=EVENTS)
        await trio.sleep(100)
        assert [(0, "start")] == Room.log
        subscription.close()
        await trio.sleep(100)
        assert [(0, "start"), (105, "stop")] == Room.log


class Endless:
    name = "endless"

    async def run(self, deliver, status):
        while True:
            await deliver("x")
            await trio.sleep(0.1)


@pytest.mark.parametrize(("pinned", "stops_at"), [(False, 5), (True, 25)])
async def test_a_pinned_feed_keeps_it_alive_another_does_not(autojump_clock, pinned, stops_at):
    """Ended at 20, the pinned one leaves the object its grace."""
    async with open_directory(Room) as swarm:
        await swarm.get(Room, "a").open_feed(Endless(), pinned=pinned)
        await trio.sleep(20)
        if pinned:
            swarm.hosts()[0].life.tasks.copy().popitem()[0].cancel()
        await trio.sleep(80)
        assert (stops_at, "stop") == pytest.approx(Room.log[1])


async def test_a_flood_nobody_reads_does_not_keep_it_alive(autojump_clock):
    """Even where the feed's lane is never empty."""

    class Flood:
        name = "flood"

        async def run(self, deliver, status):
            while True:
                await deliver("x")
                if trio.current_time() < 5:
                    await trio.sleep(0.5)

    async with open_directory(Room) as swarm:
        await swarm.get(Room, "a").open_feed(Flood(), pinned=False)
        await trio.sleep(20)
        assert [(0, "start"), (5, "stop")] == Room.log


async def test_what_arrives_during_stop_starts_the_next_life(autojump_clock):
    """A call made while `stop` runs waits for it and is answered by the next incarnation."""
    Room.stop_seconds = 1
    async with open_directory(Room) as swarm:
        room = swarm.get(Room, "a")
        await room.visit()
        await trio.sleep(5.5)
        assert "stopping" == room.statistics().state
        assert 2 == await room.visit()
        assert [(0, "start"), (5, "stop"), (6, "start")] == Room.log
        subscription = await room.subscribe(Sink(), encoding=EVENTS)
        subscription.close()


async def test_a_subscriber_that_arrives_during_stop_starts_the_next_life(autojump_clock):
    """It gets the events of `stop` and stays with the stream."""
    Room.stop_seconds = 1
    async with open_directory(Room) as swarm:
        room = swarm.get(Room, "a")
        await room.visit()
        await trio.sleep(5.5)
        async with room.watch() as events:
            assert b'"bye"' == (await anext(events)).data
            await trio.sleep(1)
            assert "running" == room.statistics().state


@pytest.mark.parametrize("seconds", [0, 1000])
async def test_a_stop_that_fails_or_hangs_stops_nothing_else(autojump_clock, logs, seconds):
    """It is logged, it has two seconds, and the object is gone all the same."""
    Room.stop_seconds, Room.stop_error = seconds, OSError("stop")
    with assert_no_leaks() as check:
        async with open_directory(Room) as swarm:
            check.watch(swarm)
            for id_ in "abc":
                await swarm.get(Room, id_).visit()
            await trio.sleep(5 + 2.1)
            assert {} == swarm.tree()["room"]
    assert {"stop_too_late" if seconds else "stop_failed"} == {entry["event"] for entry in logs}
    assert 3 == len(logs)


async def test_ending_the_scope_stops_every_object_in_order(autojump_clock):
    """`stop` runs and its changes are kept; a hanging one has two seconds."""
    with assert_no_leaks() as check:
        async with open_directory(Room) as swarm:
            check.watch(swarm)
            storage = swarm.storage
            for id_ in "abc":
                await swarm.get(Room, id_).visit()
    assert [(0, "stop")] * 3 == Room.log[3:]
    assert {"stopped"} == set(await storage.get_many(("room", "a"), ["stopped"]))
    Room.stop_seconds = 1000
    async with open_directory(Room) as swarm:
        await swarm.get(Room, "a").visit()
    assert 2 == trio.current_time()


async def test_one_more_than_the_limit_is_refused(autojump_clock):
    """TooManyObjects, until one of them goes idle."""
    settings = Settings(limits=Limits(objects_per_kind=2))
    async with open_directory(Room, settings=settings) as swarm:
        await swarm.get(Room, "a").visit()
        await swarm.get(Room, "b").visit()
        with pytest.raises(TooManyObjects):
            await swarm.get(Room, "c").visit()
        with pytest.raises(TooManyObjects):
            await swarm.get(Room, "c").subscribe(Sink(), encoding=EVENTS)
        await trio.sleep(6)
        assert 1 == await swarm.get(Room, "c").visit()


class Fixture(Room):
    @classmethod
    def pinned(cls):
        return ["cup", "league"]


async def test_pinned_objects_start_with_the_directory_and_stay(autojump_clock):
    """They start unasked, never go idle, and come back after a crash that nobody saw."""
    async with open_directory(Fixture) as swarm:
        await trio.sleep(100)
        assert {"fixture": {"running": 2}} == swarm.statistics().objects
        await swarm.get(Fixture, "cup").crash()
        await trio.sleep(10)
        assert (2, "running") == (
            swarm.get(Fixture, "cup").statistics().lives,
            swarm.get(Fixture, "cup").statistics().state,
        )


def test_two_classes_of_one_kind_are_refused():
    """It would not be clear whom a URL means."""

    async def main():
        other = type("Room", (Room,), {})
        with pytest.raises(SettingsError, match="another class"):
            async with open_directory(Room, other):
                pass

    trio.run(main)


async def test_a_crash_is_followed_by_a_jittered_wait(autojump_clock):
    """State and delays are those of the backoff: under 1, 2 and 4 s; who waits is served by the next life."""
    async with open_directory(Room, rng=random.Random(7)) as swarm:
        room = swarm.get(Room, "a")
        subscription = await room.subscribe(Sink(), encoding=EVENTS)
        twin = random.Random(7)
        for ceiling in (1, 2, 4):
            await room.crash()
            await trio.testing.wait_all_tasks_blocked()
            assert "backoff" == room.statistics().state
            began = trio.current_time()
            await room.visit()
            assert twin.uniform(0, ceiling) == pytest.approx(trio.current_time() - began)
        assert (4, 3) == (room.statistics().lives, room.statistics().crashes)
        subscription.close()


async def test_after_a_crash_stop_lets_go_but_changes_nothing(autojump_clock):
    """What it stores and publishes then is dropped."""
    async with open_directory(Room) as swarm:
        room = swarm.get(Room, "a")
        await room.visit()
        await room.crash()
        await trio.testing.wait_all_tasks_blocked()
        assert [(0, "start"), (0, "stop")] == Room.log
        assert not await room.was_stopped()
        assert [] == (await room.history(since=START))[0]


async def test_the_fourth_crash_in_a_minute_makes_it_failed_until_the_probe(autojump_clock):
    """Callers and readers get ObjectFailed with the time left; 30 s later the probe runs, and serves."""
    async with open_directory(Room) as swarm:
        room = swarm.get(Room, "a")
        subscription = await room.subscribe(Sink(), encoding=EVENTS)
        for _ in range(4):
            await room.crash()
        await trio.testing.wait_all_tasks_blocked()
        failed_at = trio.current_time()
        assert "failed" == room.statistics().state
        await trio.sleep(10)
        with pytest.raises(ObjectFailed) as caught:
            await room.visit()
        assert (20, "OSError") == (pytest.approx(caught.value.retry_after_s), caught.value.reason)
        with pytest.raises(ObjectFailed):
            await room.subscribe(Sink(), encoding=EVENTS)
        with pytest.raises(ObjectFailed):
            room.call_nowait("visit")
        await trio.sleep_until(failed_at + 30.01)
        assert "running" == room.statistics().state
        await room.crash()  # the probe fails: it is open again at once
        await trio.testing.wait_all_tasks_blocked()
        assert "failed" == room.statistics().state
        await trio.sleep(30.01)
        await trio.sleep(60)
        await room.crash()  # this one lived through the window: a first crash again
        await trio.testing.wait_all_tasks_blocked()
        assert "backoff" == room.statistics().state
        subscription.close()


async def test_a_start_that_raises_is_a_crash_and_its_callers_wait(autojump_clock):
    """Served when a later start goes well; refused when it has failed too often."""
    Room.start_errors = [OSError()] * 2
    async with open_directory(Room) as swarm:
        room = swarm.get(Room, "a")
        assert 1 == await room.visit()
        assert (3, 2) == (room.statistics().lives, room.statistics().crashes)
        assert ["start"] * 3 == [what for _, what in Room.log]
        Room.start_errors = [OSError()] * 4
        with pytest.raises(ObjectFailed):
            await swarm.get(Room, "b").visit()


async def test_a_restart_in_start_is_a_crash_too(autojump_clock):
    """Else it would go round for ever."""
    Room.start_errors = [Restart()] * 4
    async with open_directory(Room) as swarm:
        with pytest.raises(ObjectFailed):
            await swarm.get(Room, "b").visit()


async def test_a_failed_object_that_nobody_wants_is_forgotten_at_the_probe(autojump_clock):
    """So an id on which start always fails holds its place for half a minute only."""
    Room.start_errors = [OSError()] * 100
    async with open_directory(Room) as swarm:
        with pytest.raises(ObjectFailed):
            await swarm.get(Room, "a").visit()
        failed_at = trio.current_time()
        assert "failed" == swarm.get(Room, "a").statistics().state
        await trio.sleep_until(failed_at + 29.9)
        assert "failed" == swarm.get(Room, "a").statistics().state
        await trio.sleep(0.2)
        assert swarm.get(Room, "a").statistics() is None
        assert 4 == len(Room.log)


async def test_a_crashed_object_that_nobody_wants_is_not_started_again(autojump_clock):
    """Its timers would keep it alive for nobody."""
    async with open_directory(Room) as swarm:
        await swarm.get(Room, "a").crash()
        await trio.sleep(3)
        assert swarm.get(Room, "a").statistics() is None
        assert ["start", "stop"] == [what for _, what in Room.log]


class Asked(DurableObject):
    async def start(self):
        self.asked = 0
        self.demands = []
        self.state = "fresh"

    async def snapshot(self):
        self.asked += 1
        await trio.sleep(1)
        if self.state == "broken":
            raise OSError
        return {"state": self.state}

    async def on_demand(self, demand):
        self.demands.append(demand)
        await trio.sleep(1)
        if demand.subscribers == 4:
            raise OSError

    async def get(self):
        return self.asked, self.demands

    async def change(self, state):
        self.state = state
        self.publish("state", state)


async def test_a_snapshot_is_taken_once_for_all_who_wait(autojump_clock):
    """Five readers share one turn; one that comes while it runs shares the next."""
    async with open_directory(Asked) as swarm:
        asked = swarm.get(Asked, "a")
        openings = []

        async def read(at):
            await trio.sleep(at)
            async with asked.watch() as reader:
                openings.append((reader.opening.snapshot, trio.current_time()))
                await trio.sleep(10)

        async with trio.open_nursery() as nursery:
            for at in (0, 0, 0, 0, 0, 1.5, 1.6):  # the first second is `on_demand`
                nursery.start_soon(read, at)
        assert 2 == (await asked.get())[0]
        assert [b'{"state":"fresh"}'] * 7 == [snapshot for snapshot, _ in openings]
        assert 2 == len({at for _, at in openings})


async def test_a_snapshot_that_raises_lets_readers_go_on_live(autojump_clock, logs):
    """They are told why there is no state, and the object lives on."""
    async with open_directory(Asked) as swarm:
        asked = swarm.get(Asked, "a")
        await asked.change("broken")
        async with asked.watch() as reader:
            assert (None, "OSError") == (reader.opening.snapshot, reader.opening.error)
            await asked.change("well")
            assert b'"well"' == (await anext(reader)).data
        assert 1 == asked.statistics().lives
    assert ["snapshot_failed"] == [e["event"] for e in logs]


async def test_demand_is_told_coalesced_and_newest_only(autojump_clock, logs):
    """Changes while a turn runs become one; what is as it was told is not told again; raising there is no crash."""
    async with open_directory(Asked) as swarm:
        asked = swarm.get(Asked, "a")
        await asked.get()
        first = await asked.subscribe(Sink(), encoding=EVENTS, topics=frozenset({"x"}), since=START)
        await trio.testing.wait_all_tasks_blocked()
        more = [await asked.subscribe(Sink(), encoding=EVENTS, topics=frozenset({"y"}), since=START) for _ in range(3)]
        await trio.sleep(5)
        assert [Demand(frozenset("x"), 1), Demand(frozenset("xy"), 4)] == (await asked.get())[1]
        for subscription in more:
            subscription.close()
        again = await asked.subscribe(Sink(), encoding=EVENTS, topics=frozenset({"x"}), since=START)
        again.close()
        await trio.sleep(5)
        assert [Demand(frozenset("x"), 1)] == (await asked.get())[1][2:]
        first.close()
        assert Demand(frozenset(), 0) == (await asked.get())[1][-1]
    assert ["on_demand_failed"] == [e["event"] for e in logs]


async def test_a_new_life_is_told_the_demand_again(autojump_clock):
    """It knows nothing of what the last one was told."""

    class Frail(Asked):
        async def crash(self):
            async def body():
                raise OSError

            self.spawn(body)

    async with open_directory(Frail) as swarm:
        frail = swarm.get(Frail, "a")
        subscription = await frail.subscribe(Sink(), encoding=EVENTS, topics=frozenset({"x"}), since=START)
        await frail.crash()
        await trio.sleep(5)
        assert [Demand(frozenset("x"), 1)] == (await frail.get())[1]
        subscription.close()
