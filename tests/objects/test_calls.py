"""Calls: what reaches the object, and what cancellation and cycles do."""

from functools import partial

import attrs
import pytest
import trio

from trio_swarm.errors import (
    CallCycle,
    InvalidArguments,
    InvalidName,
    InvalidPosition,
    SwarmClosed,
    UnknownKind,
    UnknownMethod,
    UnknownObject,
)
from trio_swarm.objects.durable import DurableObject, exposed
from trio_swarm.settings import ObjectSettings, Settings
from trio_swarm.testing.small_swarm import open_directory


class Worker(DurableObject):
    async def start(self):
        self.done = []

    @exposed
    async def work(self, name, seconds=0):
        await trio.sleep(seconds)
        self.done.append(name)
        return name

    async def inside(self):
        return self.done

    async def _private(self):
        return "secret"

    def plain(self):
        return "not async"

    @classmethod
    def exists(cls, id):
        return id != "nobody"


async def test_a_call_cancelled_before_its_turn_never_runs(autojump_clock):
    """The caller leaves at once, and the turn is not taken."""
    async with open_directory(Worker) as swarm:
        worker = swarm.get(Worker, "a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.work, "first", 10)
            await trio.testing.wait_all_tasks_blocked()
            began = trio.current_time()
            with trio.move_on_after(1) as scope:
                await worker.work("second")
            assert (True, 1) == (scope.cancelled_caught, trio.current_time() - began)
        assert ["first"] == await worker.inside()


async def test_a_call_cancelled_after_its_turn_began_runs_on(autojump_clock):
    """The caller leaves at once, the turn runs to its end, and its answer is dropped."""
    async with open_directory(Worker) as swarm:
        worker = swarm.get(Worker, "a")
        began = trio.current_time()
        with trio.move_on_after(1):
            await worker.work("first", 10)
        assert 1 == trio.current_time() - began
        assert ["first"] == await worker.inside()
        assert 10 == trio.current_time() - began


async def test_a_full_lane_makes_callers_wait_and_call_nowait_not(autojump_clock):
    """With two places taken the third caller waits and is served; call_nowait raises WouldBlock."""
    settings = Settings(objects=ObjectSettings(call_lane=2))
    async with open_directory(Worker, settings=settings) as swarm:
        worker = swarm.get(Worker, "a")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.work, 0, 5)
            await trio.testing.wait_all_tasks_blocked()
            for n in range(1, 5):
                nursery.start_soon(worker.work, n)
                await trio.testing.wait_all_tasks_blocked()
            assert 4 == worker.statistics().mailbox.call
            with pytest.raises(trio.WouldBlock):
                worker.call_nowait("work", ("never",))
            with trio.move_on_after(1):
                await worker.work("withdrawn from the line")
        assert [0, 1, 2, 3, 4] == await worker.inside()
        assert 0 == worker.statistics().mailbox.call


async def test_call_nowait_is_served_and_its_exception_logged(autojump_clock, logs):
    """Nobody waits for it, so what it raises goes to the log."""
    async with open_directory(Worker) as swarm:
        worker = swarm.get(Worker, "a")
        worker.call_nowait("work", ("quiet",))
        worker.call_nowait("work", (), {"wrong": 1})
        assert ["quiet"] == await worker.inside()
    assert [("call_failed", "worker/a", "work")] == [(e["event"], e["object"], e["method"]) for e in logs]


async def test_from_outside_only_exposed_methods_can_be_called(autojump_clock):
    """Hooks, private, plain and internal methods are unknown there; internal ones are called in this process."""
    async with open_directory(Worker) as swarm:
        worker = swarm.get(Worker, "a")
        assert b'"x"' == bytes(await worker.call("work", ("x",), outside=True))
        for name in ("inside", "_private", "plain", "start", "on_message", "publish", "nothing", "__init__", "storage"):
            with pytest.raises(UnknownMethod):
                await worker.call(name, outside=True)
        assert ["x"] == await worker.call("inside")
        for name in ("plain", "_private", "start", "spawn"):
            with pytest.raises(UnknownMethod):
                await worker.call(name)
            with pytest.raises(AttributeError):
                getattr(worker, name)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), (("a", 1, 2), {}), (("a",), {"name": "b"}), (("a",), {"other": 1}), ((), {"seconds": 1})],
)
async def test_from_outside_arguments_are_bound_first(autojump_clock, args, kwargs):
    """What the signature does not take is the caller's mistake, and no turn is spent on it."""
    async with open_directory(Worker) as swarm:
        worker = swarm.get(Worker, "a")
        with pytest.raises(InvalidArguments):
            await worker.call("work", args, kwargs, outside=True)
        assert worker.statistics() is None


async def test_unknown_kinds_ids_and_names(autojump_clock):
    """Each is told by its own error; none starts an object."""
    async with open_directory(Worker) as swarm:
        with pytest.raises(UnknownKind):
            swarm.get("player", "a")
        with pytest.raises(InvalidName):
            swarm.get("worker", "a/b")
        with pytest.raises(UnknownObject):
            await swarm.get("worker", "nobody").inside()
        with pytest.raises(UnknownObject):
            await swarm.get("worker", "nobody").history()
        assert {} == swarm.tree()["worker"]
        assert ("worker", "a", "worker/a") == (
            swarm.get("worker", "a").kind,
            swarm.get("worker", "a").id,
            swarm.get("worker", "a").stream_name,
        )
        assert swarm.get("worker", "a") == swarm.get(Worker, "a")
        assert 1 == len({swarm.get("worker", "a"), swarm.get(Worker, "a")})


async def test_two_first_callers_meet_the_same_object(autojump_clock):
    """Starting is decided without a wait."""
    async with open_directory(Worker) as swarm:
        async with trio.open_nursery() as nursery:
            for n in range(10):
                nursery.start_soon(swarm.get(Worker, "a").work, n)
        assert (1, list(range(10))) == (
            swarm.get(Worker, "a").statistics().lives,
            sorted(await swarm.get(Worker, "a").inside()),
        )


class Node(DurableObject):
    async def start(self):
        self.seen = None

    async def go(self, *way):
        """Call the next on the way, which calls the next."""
        if way:
            return await self.swarm.get(Node, way[0]).go(*way[1:])
        return self.id

    async def slowly(self, other):
        await trio.sleep(1)
        return await self.swarm.get(Node, other).go()

    async def from_task(self):
        async def body():
            self.seen = await self.reference.go()

        self.spawn(body)

    async def from_task_meanwhile(self):
        await self.from_task()
        await trio.sleep(5)

    async def get_seen(self):
        return self.seen

    async def watch_itself(self):
        async with self.reference.watch():
            pass

    async def both(self, one, other):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.swarm.get(Node, one).go)
            nursery.start_soon(self.swarm.get(Node, other).go, self.id)

    async def nowait(self):
        self.reference.call_nowait("go")


@pytest.mark.parametrize("way", [["a"], ["b", "a"], ["b", "c", "a"], ["b", "b"], ["b", "c", "b"]])
async def test_a_call_that_would_wait_for_its_own_turn_is_refused(autojump_clock, way):
    """Over one, two or three objects; at once, not at the turn's deadline."""
    async with open_directory(Node) as swarm:
        with pytest.raises(CallCycle):
            await swarm.get(Node, "a").go(*way)
        assert 0 == trio.current_time()


async def test_the_cycle_is_named(autojump_clock):
    """The error tells the way round."""
    async with open_directory(Node) as swarm:
        with pytest.raises(CallCycle) as caught:
            await swarm.get(Node, "a").go("b", "c", "a")
        assert ("node/c", "node/a", "node/b", "node/c") == caught.value.path


async def test_two_roots_that_would_wait_for_each_other(autojump_clock):
    """A to B and B to A, from two callers: the later one is refused, the other answered."""
    async with open_directory(Node) as swarm:
        ends = []

        async def root(mine, other):
            try:
                ends.append(await swarm.get(Node, mine).slowly(other))
            except CallCycle:
                ends.append("cycle")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(root, "a", "b")
            nursery.start_soon(root, "b", "a")
        assert sorted(["cycle", ends[1] if ends[0] == "cycle" else ends[0]]) == sorted(ends)
        assert 1 == ends.count("cycle")
        assert 1 == trio.current_time()


async def test_a_way_without_a_cycle_passes(autojump_clock):
    """Meeting an object twice in a row of ended turns, or beside each other, is none."""
    async with open_directory(Node) as swarm:
        assert "c" == await swarm.get(Node, "a").go("b", "c")
        assert "a" == await swarm.get(Node, "b").go("a")
        with pytest.RaisesGroup(CallCycle):
            await swarm.get(Node, "a").both("b", "c")


async def test_a_task_started_by_a_turn_inherits_no_chain(autojump_clock):
    """It may call its own object, also while the turn that started it still runs, for it waits for nobody's turn."""
    async with open_directory(Node) as swarm:
        node = swarm.get(Node, "a")
        await node.from_task()
        await trio.testing.wait_all_tasks_blocked()
        assert "a" == await node.get_seen()
        other = swarm.get(Node, "b")
        await other.from_task_meanwhile()
        await trio.testing.wait_all_tasks_blocked()
        assert ("b", 1) == (await other.get_seen(), other.statistics().lives)


async def test_call_nowait_to_oneself_is_no_cycle(autojump_clock):
    """Nothing waits for it."""
    async with open_directory(Node) as swarm:
        await swarm.get(Node, "a").nowait()
        assert "a" == await swarm.get(Node, "a").go()


async def test_watching_oneself_in_a_turn_is_a_cycle(autojump_clock):
    """Opening would wait for a turn of this object."""
    async with open_directory(Node) as swarm:
        with pytest.raises(CallCycle):
            await swarm.get(Node, "a").watch_itself()


async def test_a_long_chain_of_waits(autojump_clock):
    """Calls nested 1,100 deep, more than Python's frames, are checked, and the cycle at their end is named whole."""

    class Link(DurableObject):
        async def start(self):
            self.next = None

        async def ask(self, last):
            number = int(self.id)
            following = self.swarm.get("link", str((number + 1) % (last + 1)))
            return await following.ask(last)

    limits = attrs.evolve(Settings().limits, objects_per_kind=2_000)
    async with open_directory(Link, settings=Settings(limits=limits)) as swarm:
        with pytest.raises(CallCycle) as raised:
            await swarm.get("link", "0").ask(1_100)
        assert 1_102 == len(raised.value.path)
        assert ("link/1100", "link/0", "link/1") == raised.value.path[:3]


async def test_a_method_that_is_not_async_says_so(autojump_clock):
    """The error for a plain method tells what to write."""
    async with open_directory(Worker) as swarm:
        with pytest.raises(AttributeError, match="`plain` is not async: not `def plain`, but `async def plain`"):
            swarm.get(Worker, "a").plain  # noqa: B018
        with pytest.raises(UnknownMethod) as raised:
            await swarm.get(Worker, "a").call("plain")
        assert "is not async" in raised.value.__notes__[0]


async def test_a_cancelled_caller_hears_of_its_cancellation(autojump_clock):
    """Not that the swarm is closed, whatever it asks for."""
    async with open_directory(Worker) as swarm:
        worker = swarm.get(Worker, "a")

    async def watch():
        async with worker.watch():
            pass

    for use in (
        partial(worker.call, "inside"),
        worker.inside,
        watch,
        worker.history,
        partial(worker.subscribe, None, encoding=None),
    ):
        with trio.CancelScope() as scope:
            scope.cancel()
            await use()
        assert scope.cancelled_caught


async def test_history_and_watch_take_topics(autojump_clock):
    """A collection for the one, one by one for the other; text is a position; the wrong shape is told the right."""

    class Board(DurableObject):
        async def put(self, *topics):
            for topic in topics:
                self.publish(topic, topic)

    async with open_directory(Board) as swarm:
        board = swarm.get(Board, "a")
        await board.put("book", "b", "o", "k")
        (first, *_), _ = await board.history(["book"])
        assert (["b"], False) == await names(board.history({"b"}, str(first.id)))
        assert (["b", "o", "k"], False) == await names(board.history(since=str(first.id)))
        with pytest.raises(TypeError, match=r"not `history\('book'\)`, but `history\(\['book'\]\)`"):
            await board.history("book")
        with pytest.raises(InvalidName):
            await board.history(["a,b"])
        with pytest.raises(InvalidPosition):
            await board.history(since="then")
        with pytest.raises(TypeError, match=r"not `watch\(\['book'\]\)`, but `watch\(\*\['book'\]\)`"):
            async with board.watch(["book"]):
                pass
        with pytest.raises(InvalidName):
            async with board.watch("a,b"):
                pass


async def names(asked):
    events, gap = await asked
    return [event.topic for event in events], gap


async def test_after_the_end_there_is_a_clear_error(autojump_clock):
    """A reference that outlives its swarm says so; a caller that waited is told too."""
    async with open_directory(Worker) as swarm:
        worker = swarm.get(Worker, "a")
        await worker.inside()
    with pytest.raises(SwarmClosed):
        await worker.inside()


async def test_callers_that_wait_when_the_swarm_closes_are_told(autojump_clock):
    """Running, in the lane, or before the full lane: each gets SwarmClosed, none hangs."""
    ends = []
    async with trio.open_nursery() as nursery:

        async def call(worker, n):
            try:
                await worker.work(n, 10)
            except SwarmClosed:
                ends.append(n)

        async with open_directory(Worker, settings=Settings(objects=ObjectSettings(call_lane=1))) as swarm:
            worker = swarm.get(Worker, "a")
            for n in range(4):
                nursery.start_soon(call, worker, n)
            await trio.testing.wait_all_tasks_blocked()
    assert [0, 1, 2, 3] == sorted(ends)
