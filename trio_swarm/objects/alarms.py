"""Alarms: timers that outlive the process, because they stand in storage until the turn that they are for is committed.

    set_alarm -> commit -> (due) -> a turn of `on_alarm` -> its commit takes the alarm away
                              `---- it raised: undone; the alarm is due again, later

One clock for all objects asks storage what is due, and rings: it starts the object if need be, and asks it for a turn.
An alarm is at least once: a process that dies between ringing and commit rings again. It is due on the wall clock,
which may be set; so the clock looks again now and then whether its time has come.

What has to do with the object, not with its author's code, is no attempt: too many objects, an object that has failed,
a store that does not answer. Then the alarm is postponed, in storage, where it stands in nobody's way. So is one of an
object that is none, as its class says; but that is an attempt, or it would come again for ever.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import attrs
import msgspec
import structlog
import trio

from trio_swarm.errors import (
    ObjectFailed,
    ObjectRestarted,
    Restart,
    StorageError,
    SwarmClosed,
    TooManyObjects,
    TurnTimeout,
    UnknownObject,
)
from trio_swarm.objects.mailbox import CALL, Item
from trio_swarm.objects.turn import CURRENT
from trio_swarm.settings import AlarmSettings
from trio_swarm.storage import Alarm, Owner, SetAlarm, Storage

if TYPE_CHECKING:
    from trio_swarm.objects.durable import DurableObject
    from trio_swarm.objects.host import Host

FAILED: Final = "alarm_failed"  # the type of the event in the journal
LOOK_S: Final = 60.0  # the wall clock may have been set meanwhile
PACE_S: Final = 0.1  # at most, between two of those that were due at the start: one alone does not wait for nobody
LOOKED_AT: Final = 1_000  # alarms at a time: more than may ring
AN_OBJECT: Final = 8  # of its alarms at a time: its turns go one by one, and others wait for a place
CROWDED_S: Final = 0.05  # with no place left the clock looks twenty times a second: 1,280 alarms, 64 at a time
LATER_S: Final = (1.0, 5.0)  # what could not be rung is tried again at a moment between these
LONGEST_S: Final = 3600.0  # between two attempts, where the settings ask for many
NOBODY_S: Final = 3600.0  # its class says that there is no such object: perhaps it will be told of it again

_log = structlog.get_logger("trio_swarm.objects")


@attrs.frozen
class AlarmStatistics:
    """A moment of the alarms; all but `ringing` count from the beginning."""

    ringing: int
    rung: int  # turns of `on_alarm` that went well, and are kept
    retried: int  # that raised, and come again
    failed: int  # that raised the last time; and alarms given up because there is no such object
    postponed: int  # could not be rung


class Ring(Item):
    """An alarm's turn.

    Args:
        due: the alarm, as it was when it was due.
        clock: what it belongs to.
        failure: a turn of this attempt has failed already; this one only says so in storage.
    """

    __slots__ = ("_again", "_clock", "_due", "_error", "_failure", "begun", "under_way")

    lane = CALL

    def __init__(self, due: SetAlarm, clock: "AlarmClock", failure: Exception | None = None) -> None:
        super().__init__()
        self._due = due
        self._clock = clock
        self._failure = failure
        self._error: Exception | None = None  # what this attempt came to
        self._again: Alarm | None = None  # the next one, if it raised and there is one
        self.begun = False
        self.under_way = False  # begun, and not at its end: what cuts it short is the author's, or as good as that

    @property
    def title(self) -> str:
        """Which alarm."""
        return f"alarm {self._due.key}"

    async def begin(self, instance: "DurableObject") -> None:
        """Have the author's turn; if it raises, have the alarm come again, or give it up."""
        turn = CURRENT.get()
        if turn is None or not await self._is_set(instance):
            return
        self.begun = self.under_way = True
        key, alarm = self._due.key, self._due.alarm
        turn.alarms[key] = None  # a `set_alarm` in this turn replaces it
        self._error = self._failure
        if self._error is None:
            try:
                await instance.on_alarm(key, msgspec.msgpack.decode(alarm.data), alarm.attempt)
            except Restart:
                raise
            except Exception as error:  # noqa: BLE001 - the author's code
                self._error = error
        self.under_way = False
        if self._error is None:
            return
        turn.undo()
        turn.alarms[key] = self._again = self._clock.again(alarm)
        if self._again is None:
            instance.publish("", {"key": key, "attempts": alarm.attempt}, type=FAILED)

    def settle(self, value: Any, error: Exception | None = None) -> None:
        """Tell what came of it, once that is kept."""
        if self.begun and error is None and not self.settled:
            self._clock.tell(self._due, self._error, self._again)
        self._error = None  # its traceback leads back here: nothing is to be left to the collector
        super().settle(value, error)

    async def _is_set(self, instance: "DurableObject") -> bool:
        """Whether no turn has set or deleted it since it was found due."""
        if instance._life.overlay.has_alarm(self._due.key):  # noqa: SLF001 - the runtime's own
            return False
        found = await self._clock.storage.alarm(self._due.owner, self._due.key)
        return found is not None and found.number == self._due.number


class AlarmClock:
    """See the module.

    Args:
        storage: where alarms stand.
        live: starts an object, or gives the one that lives.
        kinds: whose alarms are rung here.
        settings: retries, and how many at a time.
        now_ms: the wall clock.
        rng: for jitter.
    """

    def __init__(
        self,
        storage: Storage,
        live: "Callable[[Owner], Host]",
        kinds: Sequence[str],
        settings: AlarmSettings,
        now_ms: Callable[[], int],
        rng: random.Random,
    ) -> None:
        self.storage = storage
        self.now_ms = now_ms
        self._live = live
        self._kinds = kinds
        self._settings = settings
        self._rng = rng
        self._ringing: dict[int, Owner] = {}  # by number
        self._rung = self._retried = self._failed = self._postponed = 0
        self._news = trio.Event()
        self._wake_at: float | None = None  # when the clock looks again, on Trio's clock; None: it is about to look

    def note(self, due_ms: int) -> None:
        """An alarm for this moment has been set."""
        # In seconds from now: the wall clock may have been set since it went to sleep.
        if self._wake_at is None or trio.current_time() + (due_ms - self.now_ms()) / 1000 < self._wake_at:
            self._news.set()

    def again(self, alarm: Alarm) -> Alarm | None:
        """The alarm for the next attempt, when this one has failed; None where there is none left."""
        if alarm.attempt > self._settings.retries:
            return None
        whole_s = self._settings.retry_initial_s * 2 ** min(alarm.attempt - 1, 20)
        wait_s = min(whole_s, LONGEST_S) * self._rng.uniform(0.5, 1.0)
        return Alarm(self.now_ms() + round(wait_s * 1000), alarm.data, alarm.attempt + 1)

    def tell(self, due: SetAlarm, error: Exception | None, again: Alarm | None) -> None:
        """What came of an alarm, and is kept: it went well, or it comes again, or it is given up."""
        name, key, attempt = "/".join(due.owner), due.key, due.alarm.attempt
        if error is None:
            self._rung += 1
        elif again is None:
            self._failed += 1
            _log.error("alarm_failed", object=name, alarm=key, attempts=attempt, exc_info=error)
        else:
            self._retried += 1
            again_in_s = round(max(0, again.due_ms - self.now_ms()) / 1000, 3)
            _log.warning(
                "alarm_retried", object=name, alarm=key, attempt=attempt, again_in_s=again_in_s, exc_info=error
            )

    def statistics(self) -> AlarmStatistics:
        """A moment of the alarms."""
        return AlarmStatistics(len(self._ringing), self._rung, self._retried, self._failed, self._postponed)

    async def run(self) -> None:
        """Ring what is due, until cancelled."""
        began_ms = self.now_ms()
        pace_s: float | None = None
        overdue = 0  # those that were due at the start and have not been rung
        async with trio.open_nursery() as nursery:
            while True:
                self._news = trio.Event()
                self._wake_at = None
                try:
                    if pace_s is None:
                        overdue = await self.storage.count_alarms(self._kinds, began_ms)
                        pace_s = min(PACE_S, self._settings.spread_s / max(1, overdue))
                    busy = self._busy()
                    due = await self.storage.due_alarms(self._kinds, self.now_ms(), LOOKED_AT, busy)
                except StorageError as error:
                    _log.warning("alarms_unread", error=str(error))
                    await trio.sleep(self._rng.uniform(*LATER_S))
                    continue
                for alarm in filter(self._may_ring, due.alarms):
                    self._ringing[alarm.number] = alarm.owner
                    nursery.start_soon(self._ring, alarm, name=f"alarm of {'/'.join(alarm.owner)}")
                    if overdue and alarm.alarm.due_ms <= began_ms:
                        overdue -= 1  # what is set for the past from now on waits for nobody
                        await trio.sleep(pace_s)
                if len(due.alarms) == LOOKED_AT and not self._busy() <= busy:
                    continue  # behind those of an object that has its number by now, nobody has been seen yet
                crowded = any(alarm.number not in self._ringing for alarm in due.alarms)
                await self._wait_due(due.next_ms, crowded=crowded)

    def _busy(self) -> set[Owner]:
        """Objects of which no more may ring: those that are due would hide all others."""
        return {owner for owner, count in Counter(self._ringing.values()).items() if count >= AN_OBJECT}

    def _may_ring(self, alarm: SetAlarm) -> bool:
        """Whether there is a place for it; an object that is slow, or stuck, does not take them all."""
        return (
            alarm.number not in self._ringing
            and len(self._ringing) < self._settings.at_once
            and list(self._ringing.values()).count(alarm.owner) < AN_OBJECT
        )

    async def _wait_due(self, next_ms: int | None, *, crowded: bool) -> None:
        """Wait for the next alarm that is due, or for news: one is set, or one that rings is over.

        `crowded`: some that are due wait for a place. Not each one that is over then makes the clock look again.
        """
        seconds = LOOK_S if next_ms is None else min(LOOK_S, max(0, next_ms - self.now_ms()) / 1000)
        self._wake_at = trio.current_time() + seconds
        with trio.move_on_after(seconds):
            await self._news.wait()
            if crowded:
                await trio.sleep(CROWDED_S)

    async def _ring(self, due: SetAlarm) -> None:
        """Have one alarm's turn, whatever comes of it."""
        try:
            await self._ask(due, None)
        except SwarmClosed:
            return
        except Exception as error:  # noqa: BLE001 - a class that cannot say whether there is such an object, too
            await self._postpone(due, error)
        finally:
            self._ringing.pop(due.number, None)
            self._news.set()

    async def _ask(self, due: SetAlarm, failure: Exception | None) -> None:
        item = Ring(due, self, failure)
        try:
            await self._live(due.owner).mailbox.ask(item)
        except (TurnTimeout, ObjectRestarted, StorageError) as error:
            # A store that does not answer is nobody's attempt; but what an object may not keep, it never may.
            whole = isinstance(error, TurnTimeout) or (isinstance(error, StorageError) and error.too_much)
            tried = item.begun if whole else item.under_way and not isinstance(error, StorageError)
            if failure is not None or not tried:
                raise
            await self._ask(due, error)  # the next life of the object notes the attempt

    async def _postpone(self, due: SetAlarm, error: Exception) -> None:
        alarm, attempt = due.alarm, due.alarm.attempt
        wait_s = self._rng.uniform(*LATER_S)
        if isinstance(error, TooManyObjects):
            wait_s *= 3  # until some are idle, which takes a grace of theirs
        elif isinstance(error, ObjectFailed):
            wait_s += error.retry_after_s
        elif isinstance(error, UnknownObject):
            if attempt > self._settings.retries:
                await self._give_up(due, error)
                return
            attempt += 1
            wait_s += NOBODY_S
        self._postponed += 1
        _log.warning(
            "alarm_postponed",
            object="/".join(due.owner),
            alarm=due.key,
            error=type(error).__name__,
            again_in_s=round(wait_s, 3),
        )
        try:
            await self.storage.amend(due, Alarm(self.now_ms() + round(wait_s * 1000), alarm.data, attempt))
        except StorageError:
            await trio.sleep(wait_s)  # it is due as before; not again at once

    async def _give_up(self, due: SetAlarm, error: Exception) -> None:
        """Take away an alarm for which there is no object to do it."""
        try:
            await self.storage.amend(due, None)
        except StorageError:
            await trio.sleep(self._rng.uniform(*LATER_S))
        else:
            self.tell(due, error, None)
