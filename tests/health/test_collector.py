"""The collector of a process that serves: what has survived is set aside, what died in cycles is found nevertheless."""

import gc
import weakref

import pytest

from trio_swarm.health import collector
from trio_swarm.health.collector import THRESHOLDS, seldom_collected


class Knot:
    """In a cycle with itself."""

    def __init__(self):
        self.itself = self


@pytest.fixture
def at_once(monkeypatch):
    """Whatever was set aside is gone through again when it has doubled, however little it is."""
    monkeypatch.setattr(collector, "SMALL", 0)


def test_a_cycle_that_dies_before_it_is_set_aside_is_found():
    """By the next full collection."""
    with seldom_collected():
        gc.collect()
        knot = weakref.ref(Knot())
        gc.collect()
        assert knot() is None


def test_what_has_survived_is_not_gone_through_again():
    """A cycle that dies there stays, until what was set aside has doubled; then it is found."""
    with seldom_collected():
        knot = Knot()
        gone = weakref.ref(knot)
        gc.collect()
        del knot
        gc.collect()
        assert gone() is not None


@pytest.mark.usefixtures("at_once")
def test_what_was_set_aside_is_gone_through_when_it_has_doubled():
    """And from then on again only when that has doubled."""
    with seldom_collected():
        gc.collect()
        gc.collect()  # the first bound is none
        knots = [Knot(), Knot()]
        gone = [weakref.ref(knot) for knot in knots]
        gc.collect()
        knots.pop()
        kept = [[] for _ in range(gc.get_freeze_count() // 2)]
        gc.collect()
        assert gone[1]() is not None
        kept += [[] for _ in range(gc.get_freeze_count())]
        gc.collect()  # sets aside more than the bound
        gc.collect()
        assert [True, False] == [each() is not None for each in gone]
        knots.clear()
        gc.collect()
        assert gone[0]() is not None


def test_references_free_what_was_set_aside():
    """As they free everything."""
    with seldom_collected():
        value = set()
        gone = weakref.ref(value)
        gc.collect()
        del value
        assert gone() is None


def test_afterwards_all_is_as_it_was():
    """Also where the body fails."""
    before = gc.get_threshold(), gc.get_freeze_count(), list(gc.callbacks)
    with pytest.raises(ValueError, match="body"), seldom_collected():
        assert gc.get_threshold() == THRESHOLDS
        gc.collect()
        assert gc.get_freeze_count() > 0
        raise ValueError("body")
    assert before == (gc.get_threshold(), gc.get_freeze_count(), list(gc.callbacks))
