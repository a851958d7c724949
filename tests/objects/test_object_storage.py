"""What turns read: their own changes, then those not committed yet, then the store."""

import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_swarm.objects.durable import DurableObject
from trio_swarm.testing.slow_storage import SlowStorage
from trio_swarm.testing.small_swarm import open_directory

KEYS = st.sampled_from(["a", "ab", "abc", "b", "c"])
CHANGE = st.one_of(
    st.tuples(st.just("put"), KEYS, st.integers(0, 9)),
    st.tuples(st.just("delete"), KEYS, st.just(0)),
    st.tuples(st.just("clear"), st.just(""), st.just(0)),
)
TURN = st.tuples(st.just("turn"), st.lists(CHANGE, max_size=3), st.sampled_from([False, False, False, True]))
STEP = st.one_of(TURN, TURN, st.tuples(st.just("release"), st.just(1), st.just(False)))


class Book(DurableObject):
    async def change(self, changes, fails):
        for what, key, value in changes:
            if what == "put":
                self.storage.put(key, value)
            elif what == "delete":
                self.storage.delete(key)
            else:
                self.storage.delete_all()
        seen = await self.look()
        if fails:
            raise ValueError(seen)
        return seen

    async def look(self):
        storage = self.storage
        return (
            await storage.list(),
            await storage.list("ab"),
            await storage.list(limit=2),
            await storage.list("a", start="ab"),
            await storage.list(start="b", limit=2, reverse=True),
            await storage.get_many(["a", "c", "nowhere"]),
            await storage.get("b", "default"),
        )


def expected(model):
    keys = sorted(model)

    def pick(names):
        return {key: model[key] for key in names}

    return (
        pick(keys),
        pick(k for k in keys if k.startswith("ab")),
        pick(keys[:2]),
        pick(k for k in keys if k.startswith("a") and k >= "ab"),
        pick([k for k in reversed(keys) if k <= "b"][:2]),
        pick(k for k in ("a", "c") if k in model),
        model.get("b", "default"),
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=14))
def test_turns_read_what_a_plain_dict_would_hold(steps):
    """Whatever is committed, under way or undone, each turn sees the changes of all turns before it, and its own."""

    async def main():
        storage, model = SlowStorage(holding=True), {}
        async with open_directory(Book, storage=storage) as swarm, trio.open_nursery() as nursery:
            book, seen = swarm.get(Book, "a"), []

            async def turn(changes, fails):
                try:
                    seen.append(await book.change(changes, fails))
                except ValueError as error:
                    assert fails
                    seen.append(error.args[0])

            wanted = []
            for what, argument, fails in steps:
                if what == "release":
                    storage.release(min(argument, len(storage.waiting)))
                    continue
                after = dict(model)
                for change, key, value in argument:
                    if change == "put":
                        after[key] = value
                    elif change == "delete":
                        after.pop(key, None)
                    else:
                        after.clear()
                wanted.append(expected(after))
                if not fails:
                    model = after
                nursery.start_soon(turn, argument, fails)
                await trio.testing.wait_all_tasks_blocked()
            storage.holding = False
            storage.release()
            await trio.testing.wait_all_tasks_blocked()
            assert sorted(map(repr, wanted)) == sorted(map(repr, seen))
            assert expected(model) == await book.look()
            assert ({}, False) == swarm.hosts()[0].life.overlay.view()
            assert expected(model)[0] == {
                key: value[0] for key, value in await storage.inner.scan(("book", "a"), "", None, 100)
            }

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_an_older_commit_hides_nothing_newer(autojump_clock):
    """A value, a deletion and a clearing under way stand until their own commit is safe, not that of a turn before."""
    storage = SlowStorage(holding=True)
    async with open_directory(Book, storage=storage) as swarm, trio.open_nursery() as nursery:
        book = swarm.get(Book, "a")
        steps = [[("put", "a", 1), ("put", "b", 1)], [("put", "a", 2)], [("delete", "b", 0)], [("clear", "", 0)]]
        wanted = [{"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 2}, {}]
        seen = []

        async def look():
            try:
                await book.change([], True)
            except ValueError as error:
                seen.append(error.args[0][0])

        for turns in range(1, 5):
            for step in steps[:turns]:
                nursery.start_soon(book.change, step, False)
                await trio.testing.wait_all_tasks_blocked()
            storage.release(1)
            nursery.start_soon(look)
            await trio.testing.wait_all_tasks_blocked()
            storage.release()
            await trio.testing.wait_all_tasks_blocked()
        assert wanted == seen
        storage.holding = False


async def test_a_list_gives_its_number_although_some_are_gone(autojump_clock):
    """Pairs deleted but not committed are made up for from the store."""
    storage = SlowStorage()
    async with open_directory(Book, storage=storage) as swarm, trio.open_nursery() as nursery:
        book, seen = swarm.get(Book, "a"), []
        await book.change([("put", key, 1) for key in ("a", "ab", "abc", "b")], False)
        storage.holding = True
        nursery.start_soon(book.change, [("delete", "a", 0), ("delete", "ab", 0)], False)
        await trio.testing.wait_all_tasks_blocked()

        async def look():
            seen.append((await book.look())[2])

        nursery.start_soon(look)
        await trio.testing.wait_all_tasks_blocked()
        storage.holding = False
        storage.release()
        await trio.testing.wait_all_tasks_blocked()
        assert [{"abc": 1, "b": 1}] == seen


async def test_a_commit_that_lands_while_a_list_is_read_changes_nothing(autojump_clock):
    """What was pending as the read began is merged into what the store gives, whenever that is."""
    storage = SlowStorage(read_s=1)
    async with open_directory(Book, storage=storage) as swarm, trio.open_nursery() as nursery:
        book, seen = swarm.get(Book, "a"), []
        await book.change([("put", "a", 1), ("put", "b", 2)], False)
        storage.holding = True
        nursery.start_soon(book.change, [("delete", "a", 0), ("put", "c", 3)], False)
        await trio.sleep(10)

        async def look():
            seen.append((await book.look())[0])

        nursery.start_soon(look)
        await trio.sleep(0.5)
        storage.holding = False
        storage.release()
        await trio.sleep(10)
        assert [{"b": 2, "c": 3}] == seen


async def test_values_come_back_as_the_type_asked_for(autojump_clock):
    """A tuple comes back as a list, unless its type is given; bytes stay bytes."""

    class Typed(DurableObject):
        async def keep(self):
            self.storage.put("t", (1, b"x"))
            return await self.storage.get("t"), await self.storage.get("t", type=tuple[int, bytes])

    async with open_directory(Typed) as swarm:
        assert ([1, b"x"], (1, b"x")) == await swarm.get(Typed, "a").keep()
