"""The runtime's scope: what goes in starts, what comes out comes out as it is, and at the end nothing is left."""

import attrs
import msgspec
import pytest
import trio
import trio.testing

from trio_swarm import DurableObject, Settings, create_app, open_swarm
from trio_swarm.errors import SettingsError, SwarmError, TooManyObjects
from trio_swarm.settings import Limits
from trio_swarm.testing.leaks import assert_no_leaks


class Game(DurableObject):
    async def say(self, what):
        self.publish("", what)


class Twin(DurableObject):
    kind = "game"


class Pinned(DurableObject):
    @classmethod
    def pinned(cls):
        return ["a", "b", "c"]


async def test_what_the_body_raises_comes_out_as_it_is(autojump_clock):
    """The same exception, with its cause, in no group."""
    cause = KeyError("cause")
    with pytest.raises(ValueError, match="mine") as caught:
        async with open_swarm(objects=[Game]):
            raise ValueError("mine") from cause
    assert caught.value.__cause__ is cause


async def test_a_group_that_the_body_raises_is_not_wrapped(autojump_clock):
    """A group is an exception like any other."""
    group = ExceptionGroup("mine", [ValueError("one"), KeyError("two")])
    with pytest.RaisesGroup(ValueError, KeyError) as caught:
        async with open_swarm(objects=[Game]):
            raise group
    assert caught.value is group


@pytest.mark.parametrize(
    ("objects", "error"), [([Game, Twin], SettingsError), ([Pinned], TooManyObjects)], ids=["two of a kind", "pinned"]
)
async def test_what_prevents_the_start_comes_out_bare(autojump_clock, objects, error):
    """A mistake in the settings or classes is one error, and not a group."""
    settings = attrs.evolve(Settings(), limits=Limits(objects_per_kind=2))
    with pytest.raises(error):
        async with open_swarm(objects=objects, settings=settings):
            pass


async def test_a_cancelled_scope_is_cancelled_and_nothing_else(autojump_clock):
    """A deadline around the swarm ends it; no error comes of that."""
    with assert_no_leaks(), trio.move_on_after(5) as scope:
        async with open_swarm(objects=[Game]) as swarm:
            await swarm.get(Game, "a").say(1)
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_readers_end_with_the_swarm(autojump_clock):
    """A task outside the scope that iterates over a stream comes to the end when the swarm closes."""
    got = []

    async def read(swarm, *, task_status):
        async with swarm.get(Game, "a").watch() as events:
            task_status.started()
            got.extend([event.data async for event in events])

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery, open_swarm(objects=[Game]) as swarm:
            await nursery.start(read, swarm)  # noqa: ASYNC111 - that it closes before the reader ends is the case
            await swarm.get(Game, "a").say("hello")
            await trio.sleep(1)
    assert got == [b'"hello"']


async def lifespan(app):
    """What an ASGI host does at its start, and what it is told."""
    told = []

    async def receive():
        return {"type": "lifespan.startup"}

    async def send(message):
        told.append(message)

    await app({"type": "lifespan"}, receive, send)
    return told


async def test_an_application_that_cannot_start_says_why():
    """The host is told, once, with the sentence; it does not go on without a swarm."""
    [message] = await lifespan(create_app(objects=[Game, Twin], settings=Settings()))
    assert message["type"] == "lifespan.startup.failed"
    assert "game" in message["message"]


def test_a_host_that_does_not_run_on_trio_is_told_so():
    """Under another event loop the first thing said is what to do about it."""

    class Answered(Exception):
        pass

    async def send(message):
        raise Answered(message)

    async def receive():
        return {"type": "lifespan.startup"}

    coroutine = create_app(settings=Settings())({"type": "lifespan"}, receive, send)
    with pytest.raises(Answered, match="-k trio"):
        coroutine.send(None)


async def test_the_tree_shows_what_runs(autojump_clock):
    """Kinds, objects, timers, topics and readers, as data that JSON can hold."""

    class Clocked(Game):
        kind = "clocked"

        async def start(self):
            self.every(30, self.tick)

        async def tick(self):
            self.publish("tick", 1)

    async with open_swarm(objects=[Clocked]) as swarm, swarm.get(Clocked, "a").watch("tick"):
        await trio.testing.wait_all_tasks_blocked()  # until it has started
        tree = msgspec.json.decode(msgspec.json.encode(swarm.tree()))
        found = tree["kinds"]["clocked"]["a"]
        assert found["state"] == "running"
        assert found["tasks"] == [["every", "tick", ""]]
        assert found["topics"] == ["tick"]
        assert found["subscribers"] == 1
        assert tree["runtime"]["live_streams"] == 1
        assert tree["clients"] == []
        assert swarm.statistics().streams.live == 1


def test_every_error_of_the_tree_writes_its_sentence():
    """`str` of an error is for people: it holds what the error carries."""
    assert str(TooManyObjects("game", 3)) == "there are 3 live game objects already; try again in 5 s"
    assert issubclass(TooManyObjects, SwarmError)
