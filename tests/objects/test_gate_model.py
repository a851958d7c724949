"""The gate against a model: whatever turns do and whatever becomes of their commits, nothing leaves before it is safe.

Each turn has a number. What it lets out (its answer, its event, a state, a snapshot) is looked at in the moment when
it comes out, beside what the store holds in that moment.
"""

import json
import os
import random

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_swarm.errors import ObjectRestarted, Restart, StorageError
from trio_swarm.fanout.encoding import EVENTS
from trio_swarm.journal.event import START, Event
from trio_swarm.objects.durable import DurableObject
from trio_swarm.settings import ObjectSettings, Settings
from trio_swarm.storage import queries
from trio_swarm.testing.leaks import assert_no_leaks
from trio_swarm.testing.slow_storage import SlowStorage
from trio_swarm.testing.small_swarm import open_directory

TIMES = int(os.environ.get("TRIO_SWARM_EXAMPLES", "1"))  # so many times the examples of every run

IDS = ["a", "b"]
LOST = (StorageError, ObjectRestarted)


class Ledger(DurableObject):
    """Each turn notes its number in `world.ran` as it ends, with what it did."""

    world = None

    async def start(self):
        self.life = len(self.world.lives)
        self.world.lives.append(self.id)
        if self.world.with_feed:
            self.feed(Line(self.world, self.id))

    async def turn(self, number, what, seconds):
        for kind in what:
            match kind:
                case "store":
                    self.storage.put(f"k{number}", number)
                case "publish":
                    self.publish("x", number)
                case "durable":
                    self.publish("d", number, durable=True)
                case "alarm":
                    self.set_alarm(f"k{number}", after=10**6)
        await trio.sleep(seconds)
        if "raise" in what:
            raise ValueError(number)
        if "restart" in what:
            raise Restart
        seen = [int(key[1:]) for key in await self.storage.list("k")]
        self.world.ran.append((self.id, self.life, number, what))
        return seen

    async def snapshot(self):
        return [int(key[1:]) for key in await self.storage.list("k")]

    async def on_alarm(self, key, data, attempt):
        raise AssertionError("it is far away")

    async def on_message(self, feed, message):
        raise AssertionError("there is none")


class Line:
    """A feed whose state the test tells."""

    name = "line"

    def __init__(self, world, id):
        self.world = world
        self.id = id

    async def run(self, deliver, status):
        self.world.lines[self.id] = status
        try:
            await trio.sleep_forever()
        finally:
            self.world.lines.pop(self.id, None)


class Sink:
    """A reader; what it is given is looked at at once."""

    def __init__(self, world, id):
        self.world = world
        self.id = id
        self.ready = True
        self.on_ready = None
        self.events = []

    def write(self, payload):
        for item in payload:
            if isinstance(item, Event):
                number = int(item.data)
                self.events.append(number)
                self.world.left(self.id, number)
            elif hasattr(item, "state"):
                self.world.safe_until(self.id, *json.loads(item.reason))

    def abort(self, reason):
        self.ready = False


class World:
    def __init__(self, with_feed):
        self.storage = SlowStorage()
        self.with_feed = with_feed
        self.swarm = None
        self.number = 0
        self.ran = []  # (id, life, number, what) of each turn that came to its end, in order
        self.lives = []
        self.ends = {}  # number to the answer or the error
        self.asked = {}  # number to (id, what)
        self.lines = {}
        self.sinks = []
        self.snapshots = 0

    def stored(self, id_):
        pairs = queries.scan(self.storage.inner._connection, ("ledger", id_), "k", None, 10**6, reverse=False)
        return {int(key[1:]) for key, _ in pairs}

    def left(self, id_, number):
        """A turn's answer or event came out: all that it and the turns before it in its life have stored is safe."""
        life = next(life for _, life, n, _ in self.ran if n == number)
        before = [n for of, in_life, n, what in self.ran if (of, in_life) == (id_, life) and "store" in what]
        assert {n for n in before if self.place(n) <= self.place(number)} <= self.stored(id_)

    def place(self, number):
        return next(place for place, (_, _, n, _) in enumerate(self.ran) if n == number)

    def safe_until(self, id_, life, count):
        """A feed's state came out: what was stored before it in its life is safe."""
        before = [n for of, in_life, n, what in self.ran[:count] if (of, in_life) == (id_, life) and "store" in what]
        assert set(before) <= self.stored(id_)

    async def ask(self, id_, number, what, seconds):
        try:
            seen = await self.swarm.get(Ledger, id_).turn(number, what, seconds)
        except (*LOST, ValueError) as error:
            self.ends[number] = type(error)
        else:
            self.ends[number] = "answered"
            assert set(seen) <= self.stored(id_)
            self.left(id_, number)

    async def watch(self, id_):
        """A reader that begins with a snapshot."""
        sink = Sink(self, id_)
        subscription = await self.swarm.get(Ledger, id_).subscribe(sink, encoding=EVENTS)
        opening = await subscription.opened()
        self.snapshots += 1
        shown = set(json.loads(opening.snapshot))
        assert shown <= self.stored(id_)
        for of, _, number, what in self.ran:  # what it does not show comes behind it
            if of == id_ and "store" in what and number not in shown and ("publish" in what or "durable" in what):
                assert self.ends.get(number) != "answered"
        subscription.start()
        self.sinks.append((subscription, sink))

    async def operate(self, nursery, operation):
        waiting = self.storage.waiting
        match operation:
            case ("turn", id_, what, seconds):
                self.number += 1
                self.asked[self.number] = (id_, what)
                nursery.start_soon(self.ask, id_, self.number, what, seconds)
            case ("watch", id_):
                nursery.start_soon(self.watch, id_)
            case ("status", id_):
                if id_ in self.lines:
                    life = max(life for life, of in enumerate(self.lives) if of == id_)
                    self.lines[id_]("live", json.dumps([life, len(self.ran)]))
            case ("hold",):
                self.storage.holding = True
            case ("flow",):
                self.storage.holding = False
                self.storage.release()
            case ("release", count):
                self.storage.release(min(count, len(waiting)))
            case ("fail",) if waiting:
                self.storage.fail()
            case ("fail batch", count):
                self.storage.fail_batch(min(count, len(waiting)))
            case ("wait", seconds):
                await trio.sleep(seconds)
        await trio.testing.wait_all_tasks_blocked()

    async def check_end(self):
        """All have an outcome, and the outcomes are what is stored, published and set; order is kept."""
        assert self.asked.keys() == self.ends.keys()
        for id_ in IDS:
            mine = [number for number, (of, _) in self.asked.items() if of == id_]
            good = [n for n in mine if self.ends[n] == "answered"]
            assert {n for n in good if "store" in self.asked[n][1]} == self.stored(id_)
            owner = ("ledger", id_)
            alarms = await self.storage.due_alarms(["ledger"], 10**15, 10**6)
            assert {f"k{n}" for n in good if "alarm" in self.asked[n][1]} == {
                found.key for found in alarms.alarms if found.owner == owner
            }
            order = [n for of, _, n, _ in self.ran if of == id_ and n in good]
            said = [n for n in order for kind in self.asked[n][1] if kind in {"publish", "durable"}]
            events, gap = await self.swarm.get(Ledger, id_).history(since=START, limit=10**6)
            assert (said, False) == ([int(event.data) for event in events], gap)
            assert sorted({event.id for event in events}) == [event.id for event in events]
            history = await self.storage.history(owner)
            first = next((place for place, event in enumerate(events) if event.topic == "d"), len(events))
            assert [event.id for event in events[first:] if event.topic == "d"] == (
                [] if history is None else [id_ for id_, _ in history.events]
            )
            for _, sink in self.sinks:
                if sink.id == id_:
                    assert said[len(said) - len(sink.events) :] == sink.events


did = st.sampled_from(
    [
        [],
        ["store"],
        ["publish"],
        ["publish", "store"],
        ["durable"],
        ["durable", "store"],
        ["alarm"],
        ["alarm", "publish"],
    ]
)
end = st.sampled_from([*[[]] * 9, ["raise"], ["restart"]])
turn = st.tuples(
    st.just("turn"),
    st.sampled_from(IDS),
    st.tuples(did, end).map(lambda parts: [*parts[0], *parts[1]]),
    st.sampled_from([0, 0, 0, 0.5]),
)
others = {
    "watch": st.tuples(st.just("watch"), st.sampled_from(IDS)),
    "status": st.tuples(st.just("status"), st.sampled_from(IDS)),
    "hold": st.just(("hold",)),
    "flow": st.just(("flow",)),
    "release": st.tuples(st.just("release"), st.integers(1, 3)),
    "fail": st.just(("fail",)),
    "fail batch": st.tuples(st.just("fail batch"), st.integers(1, 4)),
    "wait": st.tuples(st.just("wait"), st.sampled_from([0.3, 2.0, 10.0])),
}
# By name, so that what comes often can be said: half of all are turns, and most of those meet a store that holds them.
operation = st.sampled_from(
    ["turn"] * 12 + ["hold"] * 4 + ["release"] * 3 + ["fail", "fail batch"] + [*others]
).flatmap(lambda name: turn if name == "turn" else others[name])


@settings(max_examples=120 * TIMES, deadline=None)
@given(
    st.lists(operation, max_size=12) | st.lists(operation, min_size=15, max_size=40),
    st.sampled_from([1, 2, 4, 64]),
    st.booleans(),
    st.booleans(),
)
def test_nothing_leaves_before_it_is_safe(operations, in_flight, with_feed, slow_reads):
    """No answer, event, state, snapshot or alarm before its commit; order kept; of what was refused nothing is seen."""
    config = Settings(objects=ObjectSettings(commits_in_flight=in_flight))

    async def main():
        Ledger.world = world = World(with_feed)
        world.storage.read_s = 0.1 if slow_reads else 0
        with assert_no_leaks() as check:
            async with open_directory(Ledger, storage=world.storage, settings=config, rng=random.Random(0)) as swarm:
                check.watch(swarm)
                world.swarm = swarm
                async with trio.open_nursery() as nursery:
                    world.storage.holding = True
                    for step in operations:
                        await world.operate(nursery, step)
                    await world.operate(nursery, ("flow",))
                    with trio.fail_after(300):
                        while True:
                            if len(world.ends) == len(world.asked):
                                break
                            await trio.sleep(1)
                    await trio.sleep(100)
                assert sum(step[0] == "watch" for step in operations) == world.snapshots
                await world.check_end()
                for subscription, _ in world.sinks:
                    subscription.close()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
