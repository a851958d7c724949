"""What is told of alarms: when a turn's outcome counts, and what becomes of an alarm that concerns nobody."""

import attrs
import pytest
import trio

from trio_swarm.objects.alarms import FAILED, NOBODY_S
from trio_swarm.objects.durable import DurableObject
from trio_swarm.settings import AlarmSettings, Settings
from trio_swarm.storage import ALARM_BYTES
from trio_swarm.testing.slow_storage import SlowStorage
from trio_swarm.testing.small_swarm import open_directory


class Bell(DurableObject):
    async def ring(self, key, *, after=1, raises=False):
        self.set_alarm(key, after=after, data=raises)

    async def on_alarm(self, key, data, attempt):
        if data:
            raise ValueError(attempt)


def told(swarm, logs):
    """What the statistics count, and which lines the log has of alarms that raised."""
    counts = attrs.asdict(swarm.alarms.statistics())
    lines = [entry["event"] for entry in logs if entry["event"] in {"alarm_retried", FAILED}]
    return {name: count for name, count in counts.items() if count and name not in {"ringing", "postponed"}}, lines


async def test_an_outcome_counts_when_it_is_kept(autojump_clock, logs):
    """Neither a counter nor the log tells of a turn whose commit is under way, or has failed."""
    storage = SlowStorage()
    config = Settings(alarms=AlarmSettings(retries=1))
    async with open_directory(Bell, storage=storage, settings=config) as swarm:
        bell = swarm.get(Bell, "a")
        outcomes = (
            (False, {"rung": 1}, []),
            (True, {"rung": 1, "retried": 1}, ["alarm_retried"]),
            (None, {"rung": 1, "retried": 1, "failed": 1}, ["alarm_retried", FAILED]),
        )
        for raises, counts, lines in outcomes:
            before = told(swarm, logs)
            if raises is not None:  # the last is the second attempt of the one before
                await bell.ring("k", raises=raises)
            storage.holding = True
            await trio.sleep(3)
            assert (1, before) == (len(storage.waiting), told(swarm, logs))
            storage.holding = False
            storage.fail()
            assert before == told(swarm, logs)
            storage.holding = True
            await trio.sleep(10)
            assert (1, before) == (len(storage.waiting), told(swarm, logs))
            storage.holding = False
            storage.release()
            await trio.lowlevel.checkpoint()
            assert (counts, lines) == told(swarm, logs)


class Room(Bell):
    there = True

    @classmethod
    def exists(cls, id):
        return cls.there


@pytest.mark.parametrize("readable", [True, False])
async def test_an_alarm_that_concerns_nobody_is_given_up(autojump_clock, logs, monkeypatch, readable):
    """Each hour in which its class knows no such object is an attempt; after the last one it is gone, and so are its
    bytes. The log and the statistics say so, once a store that cannot be written has taken it.
    """
    storage = SlowStorage()
    async with open_directory(Room, storage=storage) as swarm:
        await swarm.get(Room, "a").ring("k")
        await swarm.get(Room, "a").ring("far", after=100 * NOBODY_S)
    monkeypatch.setattr(Room, "there", False)
    async with open_directory(Room, storage=storage) as swarm:
        await trio.sleep(5.5 * NOBODY_S)
        assert ({}, []) == told(swarm, logs)
        assert (6, 7) == (swarm.alarms.statistics().postponed, (await storage.alarm(("room", "a"), "k")).alarm.attempt)
        if not readable:
            storage.unreadable = True
            await trio.sleep(NOBODY_S)
            assert ({}, []) == told(swarm, logs)
            storage.unreadable = False
        await trio.sleep(NOBODY_S)
        assert (({"failed": 1}, [FAILED]), 6) == (told(swarm, logs), swarm.alarms.statistics().postponed)
        assert ["far"] == [found.key for found in (await storage.due_alarms(["room"], 10**12, 9)).alarms]
        assert [(len("far") + 1 + ALARM_BYTES,)] == storage.inner._connection.execute(
            "SELECT bytes FROM object"
        ).fetchall()
