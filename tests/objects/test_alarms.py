"""Alarms, in virtual time: due when they should be, at least once, retried, postponed, and lost by nothing."""

import os
import random
from datetime import UTC, datetime, timedelta

import attrs
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_swarm.errors import ObjectFailed, Restart, StorageError, TooLarge
from trio_swarm.fanout.streams import Streams
from trio_swarm.journal.clock import IdClock
from trio_swarm.journal.event import START
from trio_swarm.objects.alarms import CROWDED_S, LATER_S, LOOK_S, LOOKED_AT, NOBODY_S, PACE_S
from trio_swarm.objects.directory import Directory
from trio_swarm.objects.durable import DurableObject
from trio_swarm.settings import AlarmSettings, Limits, ObjectSettings, Settings
from trio_swarm.storage import Alarm, Commit
from trio_swarm.storage.memory import MemoryStorage
from trio_swarm.testing.leaks import assert_no_leaks
from trio_swarm.testing.slow_storage import SlowStorage
from trio_swarm.testing.small_swarm import open_directory

TIMES = int(os.environ.get("TRIO_SWARM_EXAMPLES", "1"))  # so many times the examples of every run

OWNER = ("reminder", "a")


class Reminder(DurableObject):
    """`RUNG` notes each turn: when, who, key, data, attempt."""

    rung: list

    async def on_alarm(self, key, data, attempt):
        type(self).rung.append((trio.current_time(), self.id, key, data, attempt))
        plan = data if isinstance(data, dict) else {}
        if attempt <= plan.get("raises", 0):
            self.storage.put("raised", attempt)
            self.publish("", "never seen")
            if "set" in plan:
                self.set_alarm(key, after=plan["set"])
            raise ValueError(attempt)
        if attempt <= plan.get("restarts", 0):
            raise Restart
        if attempt <= plan.get("hangs", 0):
            await trio.sleep(1000)
        if "set" in plan:
            self.set_alarm(key, after=plan["set"], data="again")
        await trio.sleep(plan.get("takes", 0))
        self.storage.put("rang", key)

    async def set(self, key, **options):
        self.set_alarm(key, **options)

    async def unset(self, key):
        self.delete_alarm(key)

    async def set_and_raise(self, key):
        self.set_alarm(key, after=1)
        self.delete_alarm("other")
        raise ValueError

    async def set_slowly(self, key, seconds, **options):
        await trio.sleep(seconds)
        self.set_alarm(key, **options)

    async def nap(self, seconds):
        await trio.sleep(seconds)

    async def hold(self, size):
        self.storage.put("size", size)


@pytest.fixture(autouse=True)
def rung():
    """Every turn of an alarm."""
    Reminder.rung = []
    return Reminder.rung


def times(rung):
    return [round(at, 3) for at, *_ in rung]


def put_alarms(storage, alarms, kind="reminder"):
    """Alarms of an earlier process: (id, key, due in seconds)."""
    owners = {}
    for id_, key, due_s in alarms:
        owners.setdefault(id_, {})[key] = Alarm(round(due_s * 1000), b"\xc0")
    outcomes = []
    for id_, set_ in owners.items():
        storage.submit(Commit((kind, id_), 1, {}, alarms=set_), outcomes.append)
    assert {None} == set(outcomes)


@pytest.fixture
def quick(autojump_clock):
    """The clock stands at an hour, so that there is a past."""
    autojump_clock.jump(3600)
    return autojump_clock


async def all_alarms(storage):
    return [
        (found.owner, found.key, found.alarm)
        for found in (await storage.due_alarms(["reminder"], 10**15, 10**6)).alarms
    ]


async def test_an_alarm_rings_at_its_time_with_its_data(quick, rung):
    """After seconds, at a number or a datetime; the data comes back as plain data; afterwards it is gone."""
    async with open_directory(Reminder) as swarm:
        a = swarm.get(Reminder, "a")
        await a.set("after", after=5, data={"x": [1, (2, 3)]})
        await a.set("at", at=3607)
        await a.set("datetime", at=datetime.fromtimestamp(3606, UTC).astimezone())
        await a.set("past", at=0, data=b"bytes")
        await trio.sleep(10)
        assert [
            (3600, "a", "past", b"bytes", 1),
            (3605, "a", "after", {"x": [1, [2, 3]]}, 1),
            (3606, "a", "datetime", None, 1),
            (3607, "a", "at", None, 1),
        ] == rung
        assert [] == await all_alarms(swarm.storage)
        assert (4, 0, 0, 0, 0) == (*attrs.astuple(swarm.alarms.statistics())[1:], swarm.alarms.statistics().ringing)


async def test_what_is_no_alarm_is_refused(quick):
    """Each mistake has its error, in the turn that makes it; a class without `on_alarm` sets none."""

    class Deaf(DurableObject):
        async def set(self):
            self.set_alarm("a", after=1)

    async with open_directory(Reminder, Deaf) as swarm:
        a = swarm.get(Reminder, "a")
        for options in (
            {},
            {"at": 1, "after": 1},
            {"at": datetime(2020, 1, 1)},  # noqa: DTZ001 - that is the mistake
            {"after": float("nan")},
            {"at": 10**12},
        ):
            with pytest.raises(ValueError, match=r"alarm|time zone|moment|beyond"):
                await a.set("a", **options)
        with pytest.raises(StorageError):
            await a.set("", after=1)
        with pytest.raises(TooLarge):
            await a.set("a", after=1, data="x" * 200_000)
        with pytest.raises(TypeError, match="on_alarm"):
            await swarm.get(Deaf, "a").set()
        assert [] == await all_alarms(swarm.storage)


async def test_a_key_has_one_alarm(quick, rung):
    """Setting it again replaces it, earlier or later; deleting takes it back; a turn that raises changes nothing."""
    async with open_directory(Reminder) as swarm:
        a = swarm.get(Reminder, "a")
        await a.set("k", after=5)
        await a.set("k", after=20, data="later")
        await a.set("l", after=20)
        await a.set("l", after=2, data="earlier")
        await a.set("m", after=3)
        await a.unset("m")
        await a.unset("nothing")
        await a.set("other", after=4)
        with pytest.raises(ValueError):
            await a.set_and_raise("k")
        await trio.sleep(30)
        assert [(3602, "a", "l", "earlier", 1), (3604, "a", "other", None, 1), (3620, "a", "k", "later", 1)] == rung


async def test_one_that_was_set_anew_while_it_waited_for_its_turn_does_not_ring(quick, rung):
    """It was due, and asked for its turn; the turn before set it for later: it rings then, with its new data, once."""
    async with open_directory(Reminder) as swarm, trio.open_nursery() as nursery:
        a = swarm.get(Reminder, "a")
        await a.set("k", after=1, data="old")
        nursery.start_soon(lambda: a.set_slowly("k", 3, after=10, data="new"))
        await trio.sleep(20)
        assert [(3613, "a", "k", "new", 1)] == rung


async def test_an_earlier_alarm_wakes_the_clock(quick, rung):
    """Set while it sleeps towards a later one."""
    async with open_directory(Reminder) as swarm:
        a = swarm.get(Reminder, "a")
        await a.set("late", after=50)
        await trio.sleep(1)
        await a.set("early", after=0.5)
        await trio.sleep(0.6)
        assert [3601.5] == times(rung)


async def test_an_idle_object_is_started_for_its_alarm(quick, rung):
    """It lives again for the turn, and goes after its grace."""
    async with open_directory(Reminder) as swarm:
        a = swarm.get(Reminder, "a")
        await a.set("k", after=100)
        await trio.sleep(50)
        assert a.statistics() is None
        await trio.sleep(51)
        assert ([3700], "running") == (times(rung), a.statistics().state)
        await trio.sleep(10)
        assert a.statistics() is None


async def test_setting_it_anew_in_its_own_turn_survives(quick, rung):
    """What the turn sets for the same key is a new alarm with its first attempt."""
    async with open_directory(Reminder) as swarm:
        await swarm.get(Reminder, "a").set("k", after=1, data={"set": 3})
        await trio.sleep(10)
        assert [(3601, "a", "k", {"set": 3}, 1), (3604, "a", "k", "again", 1)] == rung
        assert [] == await all_alarms(swarm.storage)


async def test_one_that_raises_is_undone_and_comes_again(quick, rung):
    """What it set for the same key is undone too: the retry is due instead, from 2 s on, jittered, and is no crash."""
    async with open_directory(Reminder) as swarm:
        a = swarm.get(Reminder, "a")
        await a.set("k", after=1, data={"raises": 1, "set": 100})
        await trio.sleep(1.5)
        ((_, key, alarm),) = await all_alarms(swarm.storage)
        assert ("k", 2) == (key, alarm.attempt)
        assert 3602 <= alarm.due_ms / 1000 <= 3603
        assert {} == await swarm.storage.get_many(OWNER, ["raised"])
        await trio.sleep(3)
        assert [1, 2] == [attempt for *_, attempt in rung]
        assert (1, 0) == (a.statistics().lives, a.statistics().crashes)
        assert ([], False) == await a.history(since=START)


async def test_after_six_retries_it_is_given_up(quick, rung, logs):
    """Each waits twice as long, between half of it and all; then the event and the statistics say so."""
    async with open_directory(Reminder) as swarm:
        a = swarm.get(Reminder, "a")
        await a.set("k", after=1, data={"raises": 9})
        await trio.sleep(300)
        assert list(range(1, 8)) == [attempt for *_, attempt in rung]
        waits = [later - before for before, later in zip(times(rung), times(rung)[1:], strict=False)]
        for n, wait in enumerate(waits):
            assert 2**n - 0.01 <= wait <= 2 * 2**n + 0.01
        ((event,), gap) = await a.history(since=START)
        assert (b'{"key":"k","attempts":7}', "alarm_failed", "", False) == (event.data, event.type, event.topic, gap)
        statistics = swarm.alarms.statistics()
        assert (0, 6, 1, 0) == (statistics.rung, statistics.retried, statistics.failed, statistics.postponed)
        assert [] == await all_alarms(swarm.storage)
        names = [entry["event"] for entry in logs]
        assert (6, 1) == (names.count("alarm_retried"), names.count("alarm_failed"))


@pytest.mark.parametrize("how", ["restarts", "hangs"])
async def test_restart_and_a_turn_past_its_deadline_use_an_attempt(quick, rung, how):
    """The next life notes it, and the alarm comes again by its retries; given up, the event says so."""
    config = Settings(objects=ObjectSettings(turn_s=2.0), alarms=AlarmSettings(retries=2))
    async with open_directory(Reminder, settings=config) as swarm:
        a = swarm.get(Reminder, "a")
        await a.set("k", after=1, data={how: 1})
        await trio.sleep(40)
        assert [1, 2] == [attempt for *_, attempt in rung]
        assert {"rang": b"\xa1k"} == await swarm.storage.get_many(OWNER, ["rang"])
        del rung[:]
        await a.set("l", after=1, data={how: 9})
        await trio.sleep(200)
        assert [1, 2, 3] == [attempt for *_, attempt in rung]
        assert ["alarm_failed"] == [event.type for event in (await a.history(since=START))[0]]
        assert [] == await all_alarms(swarm.storage)


async def test_a_store_that_fails_uses_no_attempt(quick, rung, logs):
    """The alarm's own commit fails, or one that its turn was built on: it comes again as the first attempt."""
    storage = SlowStorage()
    async with open_directory(Reminder, storage=storage) as swarm:
        a = swarm.get(Reminder, "a")
        await a.set("k", after=1)
        await trio.sleep(0.5)
        storage.holding = True
        await trio.sleep(1)
        assert 1 == len(storage.waiting)
        storage.fail()  # its own
        await trio.sleep(6)
        assert [1, 1] == [attempt for *_, attempt in rung]
        async with trio.open_nursery() as nursery:
            storage.release()
            storage.holding = False
            await a.set("k", after=1)
            storage.holding = True

            async def refused():
                with pytest.raises(StorageError):
                    await a.hold(1)

            nursery.start_soon(refused)
            await trio.sleep(1.5)
            assert ([1, 1, 1], 2) == ([attempt for *_, attempt in rung], len(storage.waiting))
            storage.holding = False
            storage.fail()  # the one before
            storage.release()
        await trio.sleep(8)
        assert [1, 1, 1, 1] == [attempt for *_, attempt in rung]
        assert (2, 0) == (swarm.alarms.statistics().postponed, swarm.alarms.statistics().retried)
        assert [] == await all_alarms(storage)


async def test_too_many_objects_postpone_without_an_attempt(quick, rung):
    """It stands later in storage, in nobody's way, until there is room."""
    config = Settings(limits=Limits(objects_per_kind=1))
    async with open_directory(Reminder, settings=config) as swarm:
        b = swarm.get(Reminder, "b")
        async with b.watch():
            put_alarms(swarm.storage, [("c", "k", 3602)])
            swarm.alarms.note(3602_000)
            await b.set("k", after=10)
            await trio.sleep(20)
            assert [("b", 1)] == [(id_, attempt) for _, id_, _, _, attempt in rung]
            ((owner, _, alarm),) = await all_alarms(swarm.storage)
            assert (("reminder", "c"), 1) == (owner, alarm.attempt)
            assert trio.current_time() < alarm.due_ms / 1000 <= trio.current_time() + 3 * LATER_S[1]
        await trio.sleep(12)
        assert ("c", 1) == (rung[-1][1], rung[-1][-1])
        assert 2 <= swarm.alarms.statistics().postponed <= 21


async def test_an_object_that_has_failed_or_is_not_there_postpones(quick, rung, logs):
    """Till after the breaker's probe, as the first attempt; or for an hour, which is one."""

    class Broken(Reminder):
        working = False

        @classmethod
        def exists(cls, id):
            return id != "nobody" or cls.working

        async def start(self):
            if not self.working:
                raise OSError

    storage = MemoryStorage()
    put_alarms(storage, [("a", "k", 3630), ("nobody", "k", 3630)], "broken")
    async with open_directory(Broken, storage=storage) as swarm:
        with pytest.raises(ObjectFailed):
            await swarm.get(Broken, "a").unset("x")
        failed_at = trio.current_time()
        put_alarms(storage, [("a", "soon", failed_at + 0.5)], "broken")
        swarm.alarms.note(0)
        await trio.sleep(1)
        soon = (await storage.alarm(("broken", "a"), "soon")).alarm
        assert (1, 30 + LATER_S[0] <= soon.due_ms / 1000 - failed_at <= 31 + LATER_S[1]) == (soon.attempt, True)
        storage.submit(Commit(("broken", "a"), 10**6, {}, alarms={"soon": None}), print)
        await trio.sleep_until(max(failed_at + 1, 3630.5))
        Broken.working = True
        await trio.sleep(100)
        assert [("a", 1)] == [(id_, attempt) for _, id_, _, _, attempt in rung]
        ((owner, _, alarm),) = (
            (found.owner, found.key, found.alarm) for found in (await storage.due_alarms(["broken"], 10**12, 9)).alarms
        )
        assert (("broken", "nobody"), 2) == (owner, alarm.attempt)
        assert 3630 + NOBODY_S + LATER_S[0] <= alarm.due_ms / 1000 <= 3631 + NOBODY_S + LATER_S[1]
        await trio.sleep(NOBODY_S)
        assert [] == (await storage.due_alarms(["broken"], 10**12, 9)).alarms


async def test_those_due_while_nothing_ran_are_spread(quick, rung):
    """Over `spread_s`, the longest due first, `at_once` at a time at most; one alone does not wait for nobody."""
    config = Settings(alarms=AlarmSettings(at_once=7, spread_s=10))
    storage = MemoryStorage()
    put_alarms(storage, [(f"o{n % 40}", f"{n}", 100 + n) for n in range(400)])
    async with open_directory(Reminder, storage=storage, settings=config):
        await trio.sleep(30)
    assert [f"{n}" for n in range(400)] == [key for _, _, key, _, _ in rung]
    assert 3609 <= times(rung)[-1] <= 3611
    busiest = max(sum(at <= other < at + 1 for other in times(rung)) for at in times(rung))
    assert busiest <= 42
    del rung[:]
    put_alarms(storage, [("p", "0", 1), ("q", "1", 2)])
    began = trio.current_time()
    async with open_directory(Reminder, storage=storage, settings=config):
        await trio.sleep(1)
    assert [0, PACE_S] == pytest.approx([at - began for at in times(rung)], abs=0.01)


async def test_what_is_set_for_the_past_waits_for_nobody(quick, rung):
    """Once those from before the start have rung, a past moment is now: no alarm is held back for a pace."""
    storage = MemoryStorage()
    put_alarms(storage, [("o", "0", 1)])
    async with open_directory(Reminder, storage=storage) as swarm:
        await trio.sleep(1)
        for n in range(50):
            await swarm.get(Reminder, "a").set(f"{n}", at=n)
        await trio.sleep(0.01)
        assert 51 == len(rung)
        assert 3601 == times(rung)[-1]


@pytest.mark.parametrize("at_once", [1, 5])
async def test_never_more_than_so_many_at_a_time(quick, rung, at_once):
    """Turns that take a second each: as many as `at_once` under way, and all of them come."""
    config = Settings(alarms=AlarmSettings(at_once=at_once))
    async with open_directory(Reminder, settings=config) as swarm:
        for n in range(20):
            await swarm.get(Reminder, f"o{n}").set("k", after=3, data={"takes": 1})
        began = trio.current_time() + 3
        for second in range(20 // at_once):
            await trio.sleep_until(began + second * (1 + CROWDED_S) + 0.5)
            assert (at_once, at_once * (second + 1)) == (swarm.alarms.statistics().ringing, len(rung))
        await trio.sleep(2)
        assert (0, 20) == (swarm.alarms.statistics().ringing, len(rung))


async def test_one_that_rings_is_not_rung_again(quick, rung):
    """While its turn goes on the clock looks often, for others; it asks for no second turn."""
    async with open_directory(Reminder) as swarm:
        await swarm.get(Reminder, "slow").set("k", after=1, data={"takes": 9})
        for n in range(8):
            await swarm.get(Reminder, "quick").set(f"{n}", after=1 + n)
        await trio.sleep(9.5)
        slow = swarm.get(Reminder, "slow").statistics()
        assert (0, 1, 9) == (slow.mailbox.call, swarm.alarms.statistics().ringing, len(rung))


async def test_one_object_that_is_slow_makes_no_other_late(quick, rung):
    """It has more alarms due than may ring for one object; another one's rings at its time all the same."""
    async with open_directory(Reminder) as swarm:
        for n in range(9):
            await swarm.get(Reminder, "slow").set(f"{n}", after=1, data={"takes": 20})
        await swarm.get(Reminder, "quick").set("k", after=5)
        await trio.sleep(6)
        assert [3605] == [round(at, 3) for at, id_, *_ in rung if id_ == "quick"]


async def test_an_object_with_very_many_hides_no_other(quick, rung):
    """More of its alarms are due than are looked at, before that of another object, and it has no turn to give."""
    storage = MemoryStorage()
    put_alarms(storage, [("many", f"{n}", 3601 + n / 10_000) for n in range(LOOKED_AT + 100)])
    put_alarms(storage, [("quick", "k", 3602)])
    async with open_directory(Reminder, storage=storage) as swarm, trio.open_nursery() as nursery:
        nursery.start_soon(swarm.get(Reminder, "many").nap, 25)
        await trio.sleep(3)
        assert [("quick", 3602)] == [(id_, round(at, 3)) for at, id_, *_ in rung]


async def test_ten_thousand_overdue_alarms_all_ring(quick, rung):
    """Once each, over ten seconds and what the turns take, with about one look into storage for each that rang."""
    storage = SlowStorage()
    put_alarms(storage, [(f"o{n % 500}", f"{n}", 100 + n % 77) for n in range(10_000)])
    async with open_directory(Reminder, storage=storage):
        await trio.sleep(60)
    assert 10_000 == len({key for _, _, key, _, _ in rung}) == len(rung)
    assert times(rung)[-1] <= 3625
    assert 1 == storage.reads["count_alarms"]
    assert storage.reads["due_alarms"] <= 10_100
    assert [] == await all_alarms(storage)


async def test_a_clock_with_nothing_to_do_hardly_reads(quick, rung):
    """One look a minute; alarms that are far away, and turns of others, bring no more."""
    storage = SlowStorage()
    async with open_directory(Reminder, storage=storage) as swarm:
        a = swarm.get(Reminder, "a")
        await trio.sleep(600)
        assert 10 <= storage.reads["due_alarms"] <= 12
        await a.set("first", after=100_000)
        await trio.sleep(1)
        storage.reads.clear()
        for n in range(100):
            await a.set(f"{n}", after=100_000 + n)
        await trio.sleep(1)
        assert storage.reads["due_alarms"] <= 1


async def test_an_alarm_whose_change_is_under_way_is_no_storm(quick, rung):
    """Due, while the commit that takes it back is slow: the turn waits behind it, and does nothing."""
    storage = SlowStorage()
    async with open_directory(Reminder, storage=storage) as swarm, trio.open_nursery() as nursery:
        a = swarm.get(Reminder, "a")
        await a.set("k", after=2)
        storage.holding = True
        nursery.start_soon(a.unset, "k")
        await trio.sleep(10)
        assert storage.reads["due_alarms"] <= 6
        storage.holding = False
        storage.release()
        await trio.sleep(10)
        assert [] == rung
        assert 0 == swarm.alarms.statistics().rung


class Wall:
    """A wall clock that may be set."""

    def __init__(self):
        self.ahead_s = 0.0

    def __call__(self):
        return round((trio.current_time() + self.ahead_s) * 1000)


async def run_directory(wall, storage, *, task_status):
    clock = IdClock(wall)
    clock.reserved(10**14)
    config = Settings()
    streams = Streams(clock, config.limits)
    rng = random.Random(0)
    directory = Directory([Reminder], streams=streams, storage=storage, clock=clock, settings=config, rng=rng)
    async with trio.open_nursery() as inner:
        await inner.start(lambda task_status: streams.run(task_status=task_status))
        await inner.start(lambda task_status: directory.run(task_status=task_status))
        task_status.started(directory)


async def test_a_wall_clock_that_is_set(quick, rung, nursery):
    """Forward: what is due by it rings within a minute, and what is set then is in time. Back: it rings by the wall."""
    wall, storage = Wall(), MemoryStorage()
    swarm = await nursery.start(lambda task_status: run_directory(wall, storage, task_status=task_status))
    a = swarm.get(Reminder, "a")
    await a.set("far", after=100_000)
    await a.set("jumped over", after=5_000)
    await trio.sleep(1)
    wall.ahead_s = 10_000
    await a.set("soon", after=2)
    await trio.sleep(3)
    assert ["jumped over", "soon"] == [key for _, _, key, _, _ in rung]
    assert [3603] == times(rung)[1:]
    await a.set("later", after=30)
    wall.ahead_s = 0  # the moment is now three hours away
    await trio.sleep(100)
    await a.set("back", after=2)
    await trio.sleep(2.1)
    assert ["jumped over", "soon", "back"] == [key for _, _, key, _, _ in rung]
    wall.ahead_s = 10_000
    await trio.sleep(LOOK_S + 1)
    assert ["jumped over", "soon", "back", "later"] == [key for _, _, key, _, _ in rung]
    nursery.cancel_scope.cancel()


async def test_a_store_that_cannot_be_read_for_a_while(quick, rung, logs):
    """The clock tries again, some seconds apart, at the start and later, and rings when it can; no attempt is used."""
    storage = SlowStorage()
    put_alarms(storage, [("a", "old", 3600)])
    storage.unreadable = True
    async with open_directory(Reminder, storage=storage) as swarm:
        await trio.sleep(60)
        assert 60 / LATER_S[1] <= storage.reads["count_alarms"] <= 60 / LATER_S[0] + 1
        storage.unreadable = False
        await trio.sleep(LATER_S[1])
        assert [("old", 1)] == [(key, attempt) for _, _, key, _, attempt in rung]
        await swarm.get(Reminder, "a").set("k", after=2)
        await trio.sleep(0.1)
        storage.reads.clear()
        storage.unreadable = True
        await trio.sleep(60)
        assert sum(storage.reads.values()) <= 61
        storage.unreadable = False
        await trio.sleep(10)
        assert [("old", 1), ("k", 1)] == [(key, attempt) for _, _, key, _, attempt in rung]


async def test_one_that_cannot_be_postponed_waits_as_long(quick, rung, logs):
    """Neither the turn nor the postponement can be read or written: no storm, and it rings afterwards."""
    storage = SlowStorage()

    class HalfReadable(SlowStorage):
        async def alarm(self, owner, key):
            self.reads["alarm"] += 1
            raise StorageError("this one cannot be read")

        async def amend(self, alarm, to):
            self.reads["amend"] += 1
            raise StorageError("this one neither")

    storage = HalfReadable()
    put_alarms(storage, [("a", "k", 3600)])
    async with open_directory(Reminder, storage=storage) as swarm:
        await trio.sleep(60)
        assert 10 <= storage.reads["amend"] == storage.reads["alarm"] <= 60
        assert 1 == swarm.alarms.statistics().ringing
    assert [] == rung


WAYS = st.sampled_from(["", "raises", "restarts", "hangs", "takes"])
ALARM = st.tuples(st.sampled_from("abc"), st.sampled_from("kl"), st.sampled_from([-100.0, 0.5, 3.0, 9.0]), WAYS)


@settings(max_examples=60 * TIMES, deadline=None)
@given(
    st.lists(ALARM, min_size=1, max_size=8),
    st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.1, 3.0, 7.0]), st.booleans()), min_size=1, max_size=4),
    st.sampled_from([0.0, 0.25]),
    st.integers(0, 99),
)
def test_whenever_the_runtime_ends_no_alarm_is_lost_and_nothing_is_left(alarms, ends, slow_s, seed):
    """Cancelled or killed in any phase, again and again: each alarm rings to its end, and its attempts count."""
    Reminder.rung = rung = []
    config = Settings(
        objects=ObjectSettings(turn_s=2.0), alarms=AlarmSettings(at_once=2), limits=Limits(objects_per_kind=2)
    )

    async def main():
        storage = SlowStorage(read_s=slow_s)
        await trio.sleep(1000)
        wanted = {}
        for id_, key, due_s, way in alarms:
            plan = {way: 1} if way else {}
            wanted[id_, key] = (due_s, plan)

        for life, (seconds, dies) in enumerate([*ends, (400.0, False)]):
            with assert_no_leaks() as check:
                async with open_directory(Reminder, storage=storage, settings=config, rng=random.Random(seed)) as swarm:
                    check.watch(swarm)
                    if not life:
                        for (id_, key), (due_s, plan) in wanted.items():
                            while True:
                                try:
                                    await swarm.get(Reminder, id_).set(key, after=due_s, data=plan)
                                except Exception:  # noqa: BLE001 - too many objects for a moment, or it restarts
                                    await trio.sleep(1)
                                else:
                                    break
                    storage.holding = dies
                    await trio.sleep(seconds)
                    storage.die()
                storage.die()
                storage.holding = False
            await trio.sleep(1)
        assert [] == await all_alarms(storage)
        for (id_, key), (_, plan) in wanted.items():
            attempts = [attempt for _, *who, _, attempt in rung if who == [id_, key]]
            assert max(attempts) == (2 if plan and "takes" not in plan else 1)
            assert sorted(attempts) == attempts

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_a_turn_in_the_far_future_is_kept():
    """A moment just before the year 10000 can be set, and is read back to the millisecond."""

    async def main():
        async with open_directory(Reminder) as swarm:
            moment = datetime(9999, 12, 31, tzinfo=UTC) + timedelta(milliseconds=1)
            await swarm.get(Reminder, "a").set("k", at=moment)
            alarm = (await swarm.storage.alarm(OWNER, "k")).alarm
            assert round(moment.timestamp() * 1000) <= alarm.due_ms <= round(moment.timestamp() * 1000) + 1

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
