"""Counting in a sliding window."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_swarm.bounded.window import Window


def test_the_tenth_in_a_minute():
    """Nine are in order, the tenth is not; a minute after the first it would have been."""
    window = Window(9, 60.0)
    assert not any(window.hit(float(second)) for second in range(9))
    assert window.hit(59.9)
    window = Window(9, 60.0)
    assert not any(window.hit(float(second)) for second in range(9))
    assert not window.hit(60.0)


@given(st.integers(0, 5), st.lists(st.sampled_from([0.0, 0.5, 1.0, 4.0]), max_size=50))
def test_against_a_list(limit, pauses):
    """A hit is over the limit exactly if that many others lie in the window before it."""
    window = Window(limit, 3.0)
    now, all_ = 0.0, []
    for pause in pauses:
        now += pause
        assert (sum(now - time < 3.0 for time in all_) >= limit) == window.hit(now)
        all_.append(now)


def test_memory_is_the_limit():
    """A flood is not written down."""
    window = Window(3, 60.0)
    for _ in range(1000):
        window.hit(0.0)
    assert len(window._times) == 3


@pytest.mark.parametrize("now", [0.0, 5.0])
def test_nothing_allowed(now):
    """A limit of 0 refuses everything."""
    assert Window(0, 60.0).hit(now)
