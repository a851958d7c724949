"""The memory of what happened lately."""

from hypothesis import given
from hypothesis import strategies as st

from trio_swarm.bounded.recent import Recent


class Now:
    """A clock that a test sets."""

    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time


def test_an_entry_lives_its_time():
    """Reading does not renew it; putting it again does."""
    now = Now()
    recent = Recent(10, 5.0, now)
    recent.put("a", 1)
    now.time = 4.0
    assert recent.get("a") == 1
    recent.put("b", 2)
    now.time = 5.0
    assert recent.get("a") is None
    assert "a" not in recent
    assert ("b" in recent, len(recent)) == (True, 1)
    recent.put("b", 3)
    now.time = 9.5
    assert recent.get("b") == 3


def test_forget():
    """An entry can go at once, and one that is not there too."""
    recent = Recent(10, 5.0, Now())
    recent.put("a", 1)
    recent.forget("a")
    recent.forget("a")
    assert recent.get("a") is None


def test_the_longest_unused_goes_first():
    """Beyond the limit, what was neither put nor read for longest is forgotten."""
    recent = Recent(2, 5.0, Now())
    recent.put("a", 1)
    recent.put("b", 2)
    recent.get("a")
    recent.put("c", 3)
    assert [key in recent for key in "abc"] == [True, False, True]


@given(st.integers(1, 5), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), max_size=60))
def test_bounds_hold(limit, operations):
    """Never more entries than allowed, never an old one, and the newest is always there."""
    now = Now()
    recent = Recent(limit, 5.0, now)
    put_at = {}
    for key, pause in operations:
        now.time += pause
        recent.put(key, now.time)
        put_at[key] = now.time
        assert len(recent) <= limit
        assert now.time == recent.get(key)
        for other, time in put_at.items():
            assert recent.get(other) in ({None, time} if now.time - time < 5.0 else {None})
