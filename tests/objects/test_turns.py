"""A turn is a transaction, one at a time."""

import msgspec
import pytest
import trio

from trio_swarm.errors import InvalidName, ObjectRestarted, Restart, StorageError, TooManyTasks, TurnTimeout
from trio_swarm.journal.event import START
from trio_swarm.objects.durable import DurableObject, exposed
from trio_swarm.settings import ObjectSettings, Settings
from trio_swarm.testing.small_swarm import open_directory


class Score(DurableObject):
    async def start(self):
        self.points = await self.storage.get("points", 0)
        self.running = 0

    async def add(self, points, *, fails=False, restarts=False, seconds=0):
        self.storage.put("points", await self.storage.get("points", 0) + points)
        self.publish("points", points)
        await trio.sleep(seconds)
        if restarts:
            raise Restart
        if fails:
            raise ValueError("no such player")
        self.points += points
        return self.points

    async def stored(self):
        return await self.storage.get("points", 0)

    async def overlap(self):
        self.running += 1
        await trio.sleep(1)
        seen, self.running = self.running, self.running - 1
        return seen

    async def burn(self, clock):
        clock.jump(31)

    async def sleep_on(self):
        with trio.CancelScope(shield=True):
            await trio.sleep(40)
        return "late"


async def published(reference):
    events, _ = await reference.history(since=START)
    return [msgspec.json.decode(event.data) for event in events]


async def test_what_a_turn_stores_publishes_and_answers_becomes_visible(autojump_clock):
    """After the call, its value is stored, its event is in the journal, and its answer is here."""
    async with open_directory(Score) as swarm:
        score = swarm.get(Score, "a")
        assert [3, 5] == [await score.add(3), await score.add(2)]
        assert (5, [3, 2]) == (await score.stored(), await published(score))


async def test_a_turn_that_raises_is_undone(autojump_clock):
    """Its changes and events are dropped, its caller gets the exception, and the object lives on."""
    async with open_directory(Score) as swarm:
        score = swarm.get(Score, "a")
        await score.add(3)
        with pytest.raises(ValueError, match="no such player"):
            await score.add(4, fails=True)
        assert (3, [3], 3) == (await score.stored(), await published(score), await score.add(0))
        assert 1 == score.statistics().lives


async def test_restart_undoes_the_turn_and_starts_from_storage(autojump_clock):
    """The caller learns that nothing is kept; the next call meets a new life that read the storage, without a wait."""
    async with open_directory(Score) as swarm:
        score = swarm.get(Score, "a")
        await score.add(3)
        with pytest.raises(ObjectRestarted):
            await score.add(4, restarts=True)
        began = trio.current_time()
        assert 4 == await score.add(1)
        assert (2, began) == (score.statistics().lives, trio.current_time())
        assert 0 == score.statistics().crashes


async def test_turns_never_overlap(autojump_clock):
    """Five calls at once take five seconds, and each is alone."""
    async with open_directory(Score) as swarm:
        score, seen = swarm.get(Score, "a"), []

        async def call():
            seen.append(await score.overlap())

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(call)
        assert [1] * 5 == seen
        assert 5 == pytest.approx(trio.current_time() - began)


async def test_a_turn_past_its_deadline_ends_and_the_object_restarts(autojump_clock):
    """After 30 s the caller gets TurnTimeout, nothing of the turn is kept, and a new life serves who waits."""
    async with open_directory(Score) as swarm:
        score = swarm.get(Score, "a")
        began = trio.current_time()
        with pytest.raises(TurnTimeout) as caught:
            await score.add(4, seconds=1000)
        assert ("add()", 30.0, 30) == (caught.value.turn, caught.value.seconds, trio.current_time() - began)
        assert (0, []) == (await score.stored(), await published(score))
        assert (2, 0) == (score.statistics().lives, score.statistics().crashes)


async def test_a_turn_that_outran_its_cancellation_is_late_too(autojump_clock):
    """Neither a shield nor work without a checkpoint passes the deadline off as an answer."""
    async with open_directory(Score) as swarm:
        score = swarm.get(Score, "a")
        with pytest.raises(TurnTimeout):
            await score.sleep_on()
        with pytest.raises(TurnTimeout):
            await score.burn(autojump_clock)


async def test_the_deadline_counts_one_turn_only(autojump_clock):
    """A hundred turns of 20 s, and idle time between them, pass."""
    settings = Settings(objects=ObjectSettings(grace_s=1000))
    async with open_directory(Score, settings=settings) as swarm:
        score = swarm.get(Score, "a")
        for n in range(20):
            assert n + 1 == await score.add(1, seconds=20)
            await trio.sleep(100)
        assert 1 == score.statistics().lives


class Author(DurableObject):
    async def start(self):
        self.problems = []
        self.handle = None

    async def background(self):
        async def body():
            for misuse in (lambda: self.publish("t", 1), lambda: self.storage.put("k", 1)):
                try:
                    misuse()
                except RuntimeError as error:
                    self.problems.append(str(error))

        self.handle = self.spawn(body)

    async def found(self):
        return self.problems

    async def bad(self, what):
        match what:
            case "topic":
                self.publish("a,b", 1)
            case "type":
                self.publish("t", 1, type="gap")
            case "data":
                self.publish("t", object())
            case "key":
                self.storage.put("", 1)
            case "timer":
                self.every(0, self.found)
            case "coroutine":
                self.after(1, 5)
            case "feed":
                self.feed(self)

    name = "itself"

    async def raw(self):
        self.publish_raw("t", b'{"a": 1}', type="tick", key="k")
        self.publish("t", msgspec.Raw(b'{"a":2}'))

    async def many_tasks(self):
        for _ in range(5):
            self.spawn(trio.sleep_forever)

    async def own_nursery(self):
        async def child(n):
            await trio.sleep(n)
            self.publish("t", n)

        async with trio.open_nursery() as nursery:
            for n in range(3):
                nursery.start_soon(child, n)

    async def snapshot(self):
        self.publish("t", 1)


async def test_publishing_and_storing_need_a_turn(autojump_clock):
    """Outside of one the author is told the right line, and nothing happens."""
    async with open_directory(Author) as swarm:
        author = swarm.get(Author, "a")
        await author.background()
        await trio.sleep(1)
        first, second = await author.found()
        assert "await self.reference." in first
        assert first.startswith("publish outside of a turn of author/a")
        assert second.startswith("storage.put outside of a turn")
        assert [] == await published(author)


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("topic", InvalidName),
        ("type", InvalidName),
        ("data", TypeError),
        ("key", StorageError),
        ("timer", ValueError),
        ("coroutine", TypeError),
        ("feed", TypeError),
    ],
)
async def test_misuse_is_told_to_the_caller(autojump_clock, what, error):
    """What the author gets wrong in a call is raised there, and the object lives on."""
    async with open_directory(Author) as swarm:
        author = swarm.get(Author, "a")
        with pytest.raises(error):
            await author.bad(what)
        assert ([], 1) == (await author.found(), author.statistics().lives)


async def test_raw_data_passes_unchanged(autojump_clock):
    """Bytes that are JSON already are neither read nor written anew."""
    async with open_directory(Author) as swarm:
        author = swarm.get(Author, "a")
        await author.raw()
        events, _ = await author.history(since=START)
        assert [(b'{"a": 1}', "tick", "k"), (b'{"a":2}', "message", None)] == [(e.data, e.type, e.key) for e in events]


async def test_tasks_of_the_turn_itself_belong_to_it(autojump_clock):
    """What a nursery inside the turn publishes leaves with the turn."""
    async with open_directory(Author) as swarm:
        author = swarm.get(Author, "a")
        await author.own_nursery()
        assert [0, 1, 2] == await published(author)


async def test_a_snapshot_may_only_read(autojump_clock, logs):
    """Publishing in one is refused; the reader opens without a state and is told so."""
    async with open_directory(Author) as swarm, swarm.get(Author, "a").watch() as reader:
        assert "RuntimeError" == reader.opening.error
        assert [] == await published(swarm.get(Author, "a"))
    assert ["snapshot_failed"] == [entry["event"] for entry in logs]


async def test_timers_feeds_and_tasks_have_a_number(autojump_clock):
    """One more than the limit is refused."""
    settings = Settings(objects=ObjectSettings(tasks=4))
    async with open_directory(Author, settings=settings) as swarm:
        with pytest.raises(TooManyTasks):
            await swarm.get(Author, "a").many_tasks()


def test_exposed_wants_a_public_async_method():
    """Anything else is told at the class."""
    with pytest.raises(TypeError, match="async def goal"):

        @exposed
        def goal(self): ...

    with pytest.raises(TypeError, match="public name"):

        @exposed
        async def _goal(self): ...
