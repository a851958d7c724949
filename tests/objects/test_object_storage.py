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
STEP = st.one_of(
    st.tuples(st.just("turn"), st.lists(CHANGE, max_size=4), st.booleans()),
    st.tuples(st.just("release"), st.integers(1, 3), st.just(False)),
)


class Book(DurableObject):
    async def change(self, changes, fails):
        for what, key, value in changes:
            if what == "put":
                self.storage.put(key, value)
            elif what == "delete":
                self.storage.delete(key)
            else:
                self.storage.clear()
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


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=12))
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
            assert expected(model)[0] == {
                key: value[0] for key, value in await storage.inner.scan(("book", "a"), "", None, 100)
            }

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


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
