"""Lists of operations on objects, carried out in virtual time, against a model of the designed states and delays.

One `trio.run` an example. A model object knows when each life begins and ends, what is stored, and what each
operation must answer. After each example the scope is closed and nothing may be left.
"""

import random

import attrs
import trio
from hypothesis import event, given, settings
from hypothesis import strategies as st

from trio_swarm.errors import ObjectFailed, ObjectRestarted, SwarmClosed, TurnTimeout
from trio_swarm.fanout.encoding import EVENTS
from trio_swarm.journal.event import START, Draft
from trio_swarm.objects.durable import DurableObject
from trio_swarm.supervise.backoff import Backoff
from trio_swarm.supervise.breaker import Breaker
from trio_swarm.testing.leaks import assert_no_leaks
from trio_swarm.testing.small_swarm import open_directory

GRACE = 5.0
IDS = ["a", "b"]


class Subject(DurableObject):
    publishable = True

    async def start(self):
        self.count = await self.storage.get("count", 0)

    async def stop(self):
        if self.count % 3 == 0:
            raise RuntimeError("stop")

    async def add(self, seconds, end):
        self.storage.put("count", self.count + 1)
        self.publish("count", self.count + 1)
        await trio.sleep(seconds)
        if end == "raise":
            raise ValueError
        self.count += 1
        return self.count

    async def read(self):
        return await self.storage.get("count", 0)

    async def crash_in(self, what):
        async def crash():
            raise OSError(what)

        if what == "task":
            self.spawn(crash)
        elif what == "timer":
            self.after(0.25, crash)
        else:
            self.feed(CrashFeed())

    async def on_message(self, feed, message):
        raise OSError(message)


class CrashFeed:
    name = "crash"

    async def run(self, deliver, status):
        await deliver("boom")
        await trio.sleep_forever()


class Sink:
    def __init__(self):
        self.ready = True
        self.on_ready = None
        self.got = []

    def write(self, payload):
        self.got += [event.data for event in payload if hasattr(event, "data")]

    def abort(self, reason):
        self.ready = False


@attrs.define
class Model:
    """What one object should be."""

    backoff: Backoff
    breaker: Breaker
    count: int = 0
    events: list = attrs.Factory(list)
    subscribers: int = 0
    idle_from: float = 0.0
    state: str | None = None
    began: float = 0.0  # this life
    until: float = 0.0  # of a backoff, or the probe

    def settle(self, now):
        """What time alone has done."""
        if self.state == "running" and not self.subscribers and now >= self.idle_from + GRACE:
            self.forget()
        if self.state in {"backoff", "failed"} and now >= self.until:
            if self.state == "failed":
                assert self.breaker.admits(self.until)
            if self.subscribers:
                self.state = "running"
                self.began = self.idle_from = self.until
            else:
                self.forget()

    def forget(self):
        self.state = None


OPERATION = st.one_of(
    st.tuples(st.just("add"), st.sampled_from(IDS), st.sampled_from([0.0, 0.5, 31.0]), st.sampled_from(["", "raise"])),
    st.tuples(st.just("cancelled"), st.sampled_from(IDS), st.sampled_from([0.5, 2.0]), st.just("")),
    st.tuples(st.just("publish"), st.sampled_from(IDS), st.just(0.0), st.just("")),
    st.tuples(st.just("watch"), st.sampled_from(IDS), st.just(0.0), st.just("")),
    st.tuples(st.just("leave"), st.sampled_from(IDS), st.just(0.0), st.just("")),
    st.tuples(st.just("crash"), st.sampled_from(IDS), st.just(0.0), st.sampled_from(["task", "timer", "message"])),
    st.tuples(st.just("wait"), st.just("a"), st.sampled_from([0.1, 1.0, 4.9, 5.1, 31.0, 70.0]), st.just("")),
)


class World:
    """The real thing and the model, side by side."""

    def __init__(self, swarm, seed):
        self.swarm = swarm
        self.seed = seed
        self.models = {}
        self.sinks = {id_: [] for id_ in IDS}
        self.journals = {id_: [] for id_ in IDS}

    def model(self, id_):
        found = self.models.get(id_)
        if found is None or found.state is None:
            kept = found
            found = self.models[id_] = Model(Backoff(1, 30, random.Random(0)), Breaker(3, 60, 30))
            if kept is not None:
                found.count, found.events = kept.count, kept.events
        return found

    async def check(self):
        """The real states are the designed ones."""
        await trio.testing.wait_all_tasks_blocked()
        now = trio.current_time()
        for id_ in IDS:
            real = self.swarm.get(Subject, id_).statistics()
            model = self.models.get(id_)
            if model is not None:
                model.settle(now)
            assert (None if model is None else model.state) == (None if real is None else real.state)
            if real is not None and real.state == "running":
                assert model.subscribers == real.subscribers

    async def call(self, id_, *args):
        return await self.swarm.get(Subject, id_).call("add", args)

    def expect(self, id_):
        """The model of an object that is about to be asked; None where it has failed."""
        model = self.model(id_)
        model.settle(trio.current_time())
        if model.state is None:
            model = self.model(id_)
            model.state = "running"
            model.began = model.idle_from = trio.current_time()
        return None if model.state == "failed" else model

    def begin(self, model):
        """The moment when the turn begins, which is later while it waits for its backoff."""
        if model.state == "backoff":
            model.state = "running"
            model.began = model.idle_from = model.until
            return model.until
        return trio.current_time()

    def delay(self, model):
        """The real delay is random and must lie under the model's ceiling; then the model goes by the real one."""
        real_host = next(host for host in self.swarm.hosts() if host.id == self.current)
        if model.state == "failed":
            model.until = trio.current_time() + 30
        else:
            ceiling = model.backoff.ceiling
            model.backoff.next()
            assert real_host.again_in_s <= ceiling
            model.until = trio.current_time() + real_host.again_in_s

    async def operate(self, what, id_, seconds, extra):
        self.current = id_
        event(what)
        if what == "wait":
            await trio.sleep(seconds)
            return
        if what == "leave":
            if self.sinks[id_]:
                model = self.models[id_]
                subscription, _ = self.sinks[id_].pop()
                subscription.close()
                model.subscribers -= 1
                if model.state == "running":
                    model.idle_from = trio.current_time()
            return
        model = self.expect(id_)
        reference = self.swarm.get(Subject, id_)
        if model is None:
            try:
                await (reference.read() if what != "watch" else reference.subscribe(Sink(), encoding=EVENTS))
            except ObjectFailed:
                return
            raise AssertionError("a failed object answered")
        await getattr(self, what)(reference, model, seconds, extra)

    async def watch(self, reference, model, seconds, extra):
        sink = Sink()
        subscription = await reference.subscribe(sink, encoding=EVENTS)
        await subscription.opened()
        subscription.start()
        self.sinks[reference.id].append((subscription, (sink, len(model.events))))
        model.subscribers += 1

    async def publish(self, reference, model, seconds, extra):
        began = self.begin(model)
        published = await reference.publish([Draft(b'"x"'), Draft(b'"y"')])
        assert (2, began) == (published.count, trio.current_time())
        model.events += [b'"x"', b'"y"']
        model.idle_from = began

    async def add(self, reference, model, seconds, extra):
        began = self.begin(model)
        try:
            answer = await reference.add(seconds, extra)
        except ValueError:
            answer = "raised"
        except TurnTimeout:
            answer = "TurnTimeout"
        if seconds > 30:
            assert ("TurnTimeout", began + 30) == (answer, trio.current_time())
            await self.down(model, counted=False)
            return
        assert began + seconds == trio.current_time()
        model.idle_from = trio.current_time()
        if extra == "raise":
            assert "raised" == answer
            return
        model.count += 1
        model.events.append(str(model.count).encode())
        assert model.count == answer

    async def cancelled(self, reference, model, seconds, extra):
        """The caller leaves after a second; a turn that began by then runs on, one that did not never will."""
        began, now = self.begin(model), trio.current_time()
        if began > now:  # it waits for a backoff: then the model cannot begin either
            model.state, model.until = "backoff", began
        with trio.move_on_after(1):
            await reference.add(seconds, "")
        await trio.testing.wait_all_tasks_blocked()
        if began > now + 1:
            assert now + 1 == trio.current_time()
            return
        if began > now:
            model.state, model.began, model.idle_from = "running", began, began
        if began == now + 1:
            return
        await trio.sleep_until(max(trio.current_time(), began + seconds))
        await trio.testing.wait_all_tasks_blocked()
        model.count += 1
        model.events.append(str(model.count).encode())
        model.idle_from = began + seconds

    async def crash(self, reference, model, seconds, extra):
        self.begin(model)
        await reference.crash_in(extra)
        model.idle_from = trio.current_time()
        if extra == "timer":
            await trio.sleep(0.25)
        await trio.testing.wait_all_tasks_blocked()
        await self.down(model, counted=True)

    async def down(self, model, *, counted):
        await trio.testing.wait_all_tasks_blocked()
        now = trio.current_time()
        if now - model.began >= 60:
            model.backoff.reset()
        opened = counted and model.breaker.crash(now) == "open"
        model.state = "failed" if opened else "backoff"
        self.delay(model)

    async def end(self):
        """Every reader had every event since it came, once and in order, and the store holds what it should."""
        await trio.testing.wait_all_tasks_blocked()
        for id_ in IDS:
            model = self.models.get(id_)
            if model is None:
                continue
            for subscription, (sink, since) in self.sinks[id_]:
                assert model.events[since:] == sink.got
                subscription.close()
            stored = await self.swarm.storage.get_many(("subject", id_), ["count"])
            assert ({"count": bytes([model.count])} if model.count else {}) == stored


@settings(max_examples=120, deadline=None)
@given(st.lists(OPERATION, max_size=14), st.integers(0, 2**16), st.sampled_from(["leave the scope", "cancel it"]))
def test_objects_are_where_the_design_says(operations, seed, way_out):
    """After each operation every object is in the designed state; at the end nothing is left."""

    async def main():
        with assert_no_leaks() as check, trio.CancelScope() as scope:
            async with open_directory(Subject, rng=random.Random(seed)) as swarm:
                check.watch(swarm)
                world = World(swarm, seed)
                for operation in operations:
                    await world.operate(*operation)
                    await world.check()
                await world.end()
                if way_out == "cancel it":
                    scope.cancel()
                    await trio.sleep_forever()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


CALLER = st.tuples(
    st.sampled_from(IDS),
    st.sampled_from(["add", "read", "publish", "watch", "crash"]),
    st.sampled_from([0.0, 0.1, 3.0]),  # when it comes
    st.sampled_from([0.0, 0.3, 40.0]),  # how long its turn takes
    st.sampled_from([0.05, 2.0, 1000.0]),  # when it loses patience
)


@settings(max_examples=80, deadline=None)
@given(st.lists(CALLER, max_size=12), st.sampled_from([0.0, 0.2, 6.0, 100.0]), st.integers(0, 2**16))
def test_whenever_the_scope_ends_nothing_is_left_and_nobody_hangs(callers, ends_after, seed):
    """Callers of all sorts at once, turns and crashes under way, the runtime cancelled at any moment: all is gone."""

    async def main():
        clean = (ObjectFailed, ObjectRestarted, SwarmClosed, TurnTimeout, StopAsyncIteration, trio.ClosedResourceError)
        ends = []

        async def one(reference, what, at, seconds, patience):
            with trio.move_on_after(patience):
                await trio.sleep(at)
                try:
                    match what:
                        case "add":
                            await reference.add(seconds, "")
                        case "read":
                            await reference.read()
                        case "publish":
                            await reference.publish([Draft(b"1")], "m")
                        case "watch":
                            async with reference.watch(since=START) as reader:
                                await anext(reader)
                        case "crash":
                            await reference.crash_in("task")
                except clean:
                    pass
            ends.append(what)

        with assert_no_leaks() as check:
            async with trio.open_nursery() as nursery:
                async with open_directory(Subject, rng=random.Random(seed)) as swarm:
                    check.watch(swarm)
                    for id_, *caller in callers:
                        reference = swarm.get(Subject, id_)
                        nursery.start_soon(one, reference, *caller)
                    await trio.sleep(ends_after)
                closed_at = trio.current_time()
                assert closed_at <= ends_after + 4  # two seconds for `stop`, two for commits
                with trio.move_on_after(1):
                    await trio.sleep(0.5)
                nursery.cancel_scope.deadline = trio.current_time() + 2000
            assert len(callers) == len(ends)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
