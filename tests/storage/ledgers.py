"""Ledgers: objects of whose turns each keeps several things that belong together, so that half of one can be seen.

`power_cut_workload.py` runs them in its process, `tests/soak/crash.py` in a service. What must hold of them whatever
is cut off, and when, is in `stored_ledgers.py`.
"""

import os
import time

from trio_swarm import DurableObject, exposed

PAGES = 7
LATE = 5  # the turn from which on the topic `late` is durable
COUNTED = ("rung", "rung_sum", "reminded", "ticks")
# Seconds after which alarms ring, so that a second has many of them, and most turns of a reminder replace one.
ONCE_S = (0.0, 0.03, 0.2, 1.0)
REMINDER_S = 0.25
TICK_S = 0.7
FAR_S = 3_600.0
JUNK = -1  # what a turn leaves that is to be undone

# A machine's clock may be set back while the service is down: milliseconds, for a service that is to believe it.
if _set_back := int(os.environ.get("CRASH_CLOCK_MS", "0")):
    _real_time_ns = time.time_ns
    time.time_ns = lambda: _real_time_ns() - _set_back * 1_000_000


def alarm_key(number):
    """Each turn sets one alarm of its own; one in five raises the first time."""
    return f"stubborn:{number}" if number % 5 == 3 else f"once:{number}"


def has_spare(number):
    """Whether this turn sets the alarm `spare`; if not, it deletes it."""
    return number % 2 == 1


class Ledger(DurableObject):
    """Turn `number` writes it everywhere: into keys, into events, into alarms."""

    @exposed
    async def enter(self, number: int, size: int = 0, cleared: bool = False) -> int:  # noqa: FBT001, FBT002
        if cleared:
            counted = await self.storage.get_many((*COUNTED, "jotted"))
            self.storage.delete_all()
            self.storage.put_many(counted)
        self.storage.put_many({"left": number, "right": number, f"page:{number % PAGES}": [number, "x" * size]})
        if number % 5 == 0:
            self.storage.delete(f"page:{(number + 1) % PAGES}")
        self.publish("turns", {"turn": number}, durable=True)
        self.publish("late", {"late": number}, durable=number >= LATE)
        if number % 3 == 0:
            self.publish("chatter", {"chatter": number})
        self.set_alarm(alarm_key(number), after=ONCE_S[number % len(ONCE_S)], data=number)
        self.set_alarm("reminder", after=REMINDER_S, data=number)
        if has_spare(number):
            self.set_alarm("spare", after=FAR_S, data=number)
        else:
            self.delete_alarm("spare")
        if number == 1:
            self.set_alarm("tick", after=TICK_S, data=0)
        return number

    @exposed
    async def jot(self, number: int) -> None:
        """A turn that only stores."""
        self.storage.put("jotted", number)

    @exposed
    async def state(self) -> dict[str, int]:
        """All that is stored, by name; a page is its number."""
        pairs = await self.storage.list()
        return {key: value[0] if key.startswith("page:") else value for key, value in pairs.items()}

    @exposed
    async def rest(self) -> int:
        """No more ticks; answers how many there were."""
        self.delete_alarm("tick")
        return await self.storage.get("ticks", 0)

    async def on_alarm(self, key, data, attempt):
        """What an alarm does can be counted."""
        name = key.partition(":")[0]
        if name == "stubborn" and attempt == 1:
            self.storage.put_many({"left": JUNK, "rung": JUNK})
            self.publish("turns", {"turn": JUNK}, durable=True)
            self.set_alarm("spare", after=0, data=JUNK)
            raise ArithmeticError("the first time it raises, and nothing of this is kept")
        if name in {"once", "stubborn"}:
            kept = await self.storage.get_many(("rung", "rung_sum"))
            self.storage.put_many({"rung": kept.get("rung", 0) + 1, "rung_sum": kept.get("rung_sum", 0) + data})
            self.publish("rung", {"rung": data}, durable=True)
        elif name == "reminder":
            self.storage.put("reminded", data)
            self.publish("reminded", {"reminded": data}, durable=True)
        elif name == "tick":
            self.storage.put("ticks", data + 1)
            self.publish("ticks", {"tick": data + 1}, durable=True)
            self.set_alarm("tick", after=TICK_S, data=data + 1)
        else:
            raise AssertionError(f"{key} rang with {data}")
