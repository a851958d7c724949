"""The memory store against a plain dict, and its bounds."""

import trio
from hypothesis import given
from hypothesis import strategies as st

from trio_swarm.errors import StorageError
from trio_swarm.storage import Commit
from trio_swarm.storage.memory import LEAST_BYTES, MemoryStorage

KEYS = st.text("ab/", min_size=1, max_size=3)
CHANGES = st.dictionaries(KEYS, st.none() | st.binary(max_size=4), max_size=4)
OWNERS = [("game", "a"), ("game", "b")]


def submit(store, owner, changes, *, clear=False, incarnation=1):
    outcomes = []
    store.submit(Commit(owner, incarnation, changes, clear), outcomes.append)
    (error,) = outcomes
    return error


@given(st.lists(st.tuples(st.sampled_from(OWNERS), CHANGES, st.booleans())), KEYS | st.just(""), st.none() | KEYS)
def test_it_holds_what_a_plain_dict_holds(commits, prefix, start):
    """After any commits, reads and scans of each owner give what a dict of its own gives, and the bytes add up."""

    async def main():
        store, model = MemoryStorage(), {owner: {} for owner in OWNERS}
        for owner, changes, clear in commits:
            assert submit(store, owner, changes, clear=clear) is None
            if clear:
                model[owner].clear()
            for key, value in changes.items():
                if value is None:
                    model[owner].pop(key, None)
                else:
                    model[owner][key] = value
        for owner, pairs in model.items():
            assert pairs == await store.get_many(owner, [*pairs, "nowhere"])
            for reverse in (False, True):
                wanted = sorted(
                    (
                        (key, value)
                        for key, value in pairs.items()
                        if key.startswith(prefix) and (start is None or (key <= start if reverse else key >= start))
                    ),
                    reverse=reverse,
                )
                for limit in (2, 100):
                    assert wanted[:limit] == await store.scan(owner, prefix, start, limit, reverse=reverse)

    trio.run(main)


async def test_a_commit_past_the_bound_is_refused_whole():
    """Nothing of it is kept, later ones of the incarnation are refused too, and the next incarnation is taken."""
    store = MemoryStorage(limit_bytes=1)
    owner = ("game", "a")
    assert submit(store, owner, {"small": b"1"}) is None
    error = submit(store, owner, {"small": b"2", "large": b"x" * LEAST_BYTES})
    assert f"the store refused: the memory store is full: it may hold {LEAST_BYTES} bytes" == str(error)
    assert isinstance(submit(store, owner, {"small": b"3"}), StorageError)
    assert {"small": b"1"} == await store.get_many(owner, ["small", "large"])
    assert submit(store, owner, {"small": b"4"}, incarnation=2) is None


async def test_it_never_holds_more_than_its_bound_and_deleting_makes_room():
    """Filled until it refuses, emptied, and filled again: as much goes in as before, for ever."""
    store = MemoryStorage(limit_bytes=4 * LEAST_BYTES)
    fills = []
    for life in range(1, 6):
        owner, count = ("game", str(life)), 0
        while submit(store, owner, {str(count): b"x" * 500}, incarnation=life) is None:
            count += 1
            assert store.statistics().bytes <= 4 * LEAST_BYTES
        fills.append(count)
        assert submit(store, owner, {}, clear=True, incarnation=life + 1) is None
    assert fills[0] > 300
    assert [fills[0]] * 5 == fills


async def test_the_clock_mark_only_rises():
    """A lower reservation changes nothing."""
    store = MemoryStorage()
    assert 0 == await store.clock_mark()
    await store.reserve_clock(10)
    await store.reserve_clock(5)
    assert 10 == await store.clock_mark()
    await store.aclose()
    await store.aclose()
