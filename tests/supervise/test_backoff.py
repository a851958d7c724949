"""Full jitter under a doubling ceiling."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_swarm.errors import SettingsError
from trio_swarm.supervise.backoff import Backoff


@given(initial=st.floats(0.01, 10), factor=st.floats(1, 100), draws=st.integers(1, 20), seed=st.integers())
def test_each_delay_lies_under_a_ceiling_that_doubles_up_to_the_maximum(initial, factor, draws, seed):
    """The n-th delay is between 0 and min(maximum, initial * 2**n)."""
    maximum = initial * factor
    backoff = Backoff(initial, maximum, random.Random(seed))
    for n in range(draws):
        ceiling = min(maximum, initial * 2**n)
        assert ceiling == pytest.approx(backoff.ceiling)
        assert 0 <= backoff.next() <= ceiling


def test_delays_spread_over_the_whole_span():
    """A thousand first delays reach every tenth of the span."""
    tenths = {int(Backoff(1, 30, random.Random(seed)).next() * 10) for seed in range(1000)}
    assert set(range(10)) == tenths


def test_reset_begins_anew():
    """After a reset the ceiling is the initial one."""
    backoff = Backoff(1, 30, random.Random(1))
    assert backoff.fresh
    backoff.next()
    assert (False, 2) == (backoff.fresh, backoff.ceiling)
    backoff.reset()
    assert (True, 1) == (backoff.fresh, backoff.ceiling)


@pytest.mark.parametrize(("initial", "maximum"), [(0, 1), (-1, 1), (2, 1)])
def test_impossible_spans_are_refused(initial, maximum):
    """A span that cannot be is an error of the settings."""
    with pytest.raises(SettingsError):
        Backoff(initial, maximum, random.Random(1))
