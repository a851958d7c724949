"""Each kind of leak turns `assert_no_leaks` red, by name, and a clean scope leaves it green."""

import os
import threading

import pytest
import trio

from trio_swarm import open_swarm, testing
from trio_swarm.fanout.encoding import EVENTS
from trio_swarm.journal.event import START, Draft
from trio_swarm.objects.durable import DurableObject
from trio_swarm.testing.leaks import LeakError, assert_no_leaks
from trio_swarm.testing.small_swarm import open_directory


class Leaky(DurableObject):
    publishable = True

    async def set_timer(self):
        self.every(1000, self.set_timer)

    async def set_task(self):
        self.spawn(trio.sleep_forever)

    async def block(self):
        await trio.sleep(25)


class Sink:
    ready = True
    on_ready = None

    def write(self, payload): ...

    def abort(self, reason): ...


@pytest.fixture
async def swarm(autojump_clock):
    async with open_directory(Leaky) as directory:
        yield directory


def leaked(caught):
    return "\n".join(caught.value.leaks)


def test_a_clean_scope_is_green():
    """Objects with timers, tasks and readers, all gone with their scope; also around a whole run of Trio."""

    async def main():
        with assert_no_leaks() as check:
            async with open_directory(Leaky) as directory:
                check.watch(directory)
                leaky = directory.get(Leaky, "a")
                await leaky.set_timer()
                await leaky.set_task()
                async with leaky.watch():
                    await trio.sleep(100)
                assert check.leaks()

    with assert_no_leaks():
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_a_swarm(autojump_clock):
    """A swarm is watched as its directory is; all names that tests need are in `trio_swarm.testing`."""
    with testing.assert_no_leaks() as check:
        async with open_swarm(objects=[Leaky]) as swarm:
            check.watch(swarm)
            await swarm.get(Leaky, "a").block()
            assert "object leaky/a (running)" in check.leaks()
    assert all(hasattr(testing, name) for name in testing.__all__)


async def test_a_task(nursery):
    """A task that outlives the body is named, with its parent."""
    with pytest.raises(LeakError) as caught, assert_no_leaks():
        nursery.start_soon(trio.sleep_forever, name="forgotten")
    assert "task forgotten, child of" in leaked(caught)
    nursery.cancel_scope.cancel()


async def test_a_timer_of_an_object(autojump_clock, swarm):
    """A timer that still ticks is named with its object."""
    await swarm.get(Leaky, "a").block()
    with pytest.raises(LeakError) as caught, assert_no_leaks(swarm):
        await swarm.get(Leaky, "a").set_timer()
    assert "every set_timer of leaky/a" in leaked(caught)


async def test_a_deadline(autojump_clock):
    """A deadline that was left registered."""
    scope = trio.CancelScope(deadline=trio.current_time() + 1000)
    with pytest.raises(LeakError) as caught, assert_no_leaks():
        scope.__enter__()
    scope.__exit__(None, None, None)
    assert "a deadline that ends at 1000.000" in leaked(caught)


def test_a_descriptor(tmp_path):
    """An open file is named by what it points at."""
    with pytest.raises(LeakError) as caught, assert_no_leaks():
        descriptor = os.open(tmp_path / "file", os.O_CREAT)
    os.close(descriptor)
    assert str(tmp_path / "file") in leaked(caught)


async def test_a_socket():
    """A socket that nobody closed, of a stream of Trio's."""
    with pytest.raises(LeakError) as caught, assert_no_leaks():
        ends = trio.socket.socketpair()
    for end in ends:
        end.close()
    assert "descriptor" in leaked(caught)
    assert "socket:" in leaked(caught)


def test_a_thread():
    """A thread that still runs."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="writer")
    with pytest.raises(LeakError) as caught, assert_no_leaks():
        thread.start()
    done.set()
    thread.join()
    assert ("thread writer",) == caught.value.leaks


async def test_a_live_object(autojump_clock, swarm):
    """An entry of the directory, and its stream."""
    with pytest.raises(LeakError) as caught, assert_no_leaks(swarm):
        await swarm.get(Leaky, "a").block()
    assert "object leaky/a (running)" in leaked(caught)
    assert "stream leaky/a" in leaked(caught)


async def test_a_background_task_of_an_object(autojump_clock, swarm):
    """Named as the object's, and as Trio's."""
    await swarm.get(Leaky, "a").block()
    with pytest.raises(LeakError) as caught, assert_no_leaks(swarm):
        await swarm.get(Leaky, "a").set_task()
    assert "task sleep_forever of leaky/a" in leaked(caught)
    assert "task leaky/a task sleep_forever, child of leaky/a" in leaked(caught)


async def test_a_subscription(autojump_clock, swarm):
    """A reader that nobody closed."""
    await swarm.get(Leaky, "a").block()
    with pytest.raises(LeakError) as caught, assert_no_leaks(swarm.streams):
        subscription = await swarm.get(Leaky, "a").subscribe(Sink(), encoding=EVENTS, since=START)
    subscription.close()
    assert ("a subscription to leaky/a",) == caught.value.leaks


async def test_a_parked_caller(autojump_clock, swarm, nursery):
    """A call that waits in the lane, and the task that waits for it."""
    leaky = swarm.get(Leaky, "a")
    nursery.start_soon(leaky.block)
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(LeakError) as caught, assert_no_leaks(swarm):
        nursery.start_soon(leaky.block)
        await trio.testing.wait_all_tasks_blocked()
    assert "an item in the call lane of leaky/a" in leaked(caught)
    assert "task " in leaked(caught)


async def test_an_item_that_nobody_waits_for(autojump_clock, swarm, nursery):
    """An errand in the lane, without any task."""
    leaky = swarm.get(Leaky, "a")
    nursery.start_soon(leaky.block)
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(LeakError) as caught, assert_no_leaks(swarm):
        leaky.call_nowait("block")
    assert ("an item in the call lane of leaky/a",) == caught.value.leaks


async def test_a_publication_under_way(autojump_clock, swarm, nursery):
    """An entry in the table of messageIds whose turn has not come."""
    leaky = swarm.get(Leaky, "a")
    nursery.start_soon(leaky.block)
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(LeakError) as caught, assert_no_leaks(swarm):
        nursery.start_soon(leaky.publish, [Draft(b"1")], "m")
        await trio.testing.wait_all_tasks_blocked()
    assert "publication 'm' to leaky/a under way" in leaked(caught)


async def test_whatever_else_is_watched():
    """A function that names what a part of one's own holds."""
    held = ["cat", "dog"]
    with pytest.raises(LeakError) as caught, assert_no_leaks(lambda: held):
        held += ["dog", "cow"]
    assert {"dog", "cow"} == set(caught.value.leaks)


async def test_an_exception_of_the_body_passes_with_a_note(nursery):
    """It is not hidden behind the leak that it caused."""
    with pytest.raises(OSError, match="first") as caught, assert_no_leaks():
        nursery.start_soon(trio.sleep_forever, name="forgotten")
        raise OSError("first")
    assert "task forgotten" in caught.value.__notes__[0]
    nursery.cancel_scope.cancel()


async def test_an_exception_of_a_clean_body_passes_bare():
    """Without a note."""
    with pytest.raises(OSError, match="first") as caught, assert_no_leaks():
        raise OSError("first")
    assert not hasattr(caught.value, "__notes__")
