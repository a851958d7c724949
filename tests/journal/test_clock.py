"""The clock of event ids, under a machine's clock that does what it likes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_swarm.journal.clock import IdClock
from trio_swarm.journal.event import EventId


class Wall:
    """A wall clock that a test sets."""

    def __init__(self, ms):
        self.ms = ms

    def __call__(self):
        return self.ms


def ready(wall, mark_ms=0):
    clock = IdClock(wall, mark_ms)
    clock.reserved(clock.needs_reservation())
    return clock


moves = st.integers(-20_000, 20_000)
steps = st.tuples(st.just("move"), moves) | st.sampled_from([("next", 0)] * 3 + [("reserve", 0), ("restart", 0)])


@given(st.integers(0, 50_000), st.lists(steps, max_size=80))
def test_ids_rise_whatever_happens(begin, operations):
    """Under any moves of the machine's clock, late reservations and restarts, each id is above all before it."""
    wall = Wall(begin)
    clock = ready(wall)
    mark = clock.ceiling_ms  # what storage holds
    last = EventId(0, 0)
    for what, amount in operations:
        if what == "move":
            wall.ms = max(0, wall.ms + amount)
        elif what == "reserve":
            until = clock.needs_reservation()
            near = max(wall.ms, last.ms) >= mark - 5_000
            assert near or until is None or last.ms == 0
            if until is not None:
                assert until >= wall.ms + 10_000
                mark = max(mark, until)
                clock.reserved(until)
        elif what == "restart":
            clock = IdClock(wall, mark)
            with pytest.raises(RuntimeError):
                clock.next()
            mark = clock.needs_reservation()
            clock.reserved(mark)
        else:
            given_ = clock.next()
            assert given_ > last
            assert given_.ms < mark
            last = given_


def test_ids_follow_the_wall_clock():
    """While the machine's clock goes on, ids carry its milliseconds, counting from 0 within each."""
    wall = Wall(5_000)
    clock = ready(wall)
    assert [clock.next(), clock.next()] == [(5_000, 0), (5_000, 1)]
    wall.ms = 5_003
    assert clock.next() == (5_003, 0)


def test_a_clock_set_back_only_counts():
    """The milliseconds stand still until the machine's clock has caught up."""
    wall = Wall(5_000)
    clock = ready(wall)
    clock.next()
    wall.ms = 10
    assert clock.next() == (5_000, 1)


def test_nothing_is_given_before_a_reservation():
    """An id that no storage has reserved could be given again by the next process."""
    clock = IdClock(Wall(5_000))
    with pytest.raises(RuntimeError, match="reserved"):
        clock.next()


def test_at_the_ceiling_the_counter_goes_on():
    """A reservation that comes late costs milliseconds, not uniqueness, and ids never reach what is not reserved."""
    wall = Wall(5_000)
    clock = IdClock(wall)
    clock.reserved(6_000)
    wall.ms = 9_000
    assert [clock.next(), clock.next()] == [(5_999, 0), (5_999, 1)]
    clock.reserved(20_000)
    assert clock.next() == (9_000, 0)


def test_reservations_are_due_five_seconds_ahead():
    """Ten seconds are reserved at a time, the next ones when half is used."""
    wall = Wall(100_000)
    clock = ready(wall)
    assert clock.ceiling_ms == 110_000
    wall.ms = 104_999
    assert clock.needs_reservation() is None
    wall.ms = 105_000
    assert clock.needs_reservation() == 115_000


def test_a_restart_begins_above_the_mark():
    """Even where the machine's clock was set back across the restart."""
    clock = ready(Wall(50), mark_ms=110_000)
    assert clock.next() > EventId(110_000, 0)


def test_a_reservation_never_shrinks():
    """A lower mark than the one held changes nothing; a first one below the last process's mark is refused."""
    wall = Wall(5_000)
    clock = ready(wall)
    clock.reserved(6_000)
    assert clock.ceiling_ms == 15_000
    with pytest.raises(ValueError, match="holds no id"):
        IdClock(wall, 8_000).reserved(8_000)


def test_the_first_id_is_above_the_beginning():
    """No event has the id 0-0, which means the beginning, even on a machine without a clock."""
    assert ready(Wall(0)).next() > EventId(0, 0)


def test_restarts_do_not_run_away_from_the_clock():
    """A process that is killed as soon as it has given an id, a hundred times in a second, is 10 s ahead, not 1,000."""
    wall, mark, last = Wall(100_000), 0, EventId(0, 0)
    for _ in range(100):
        clock = ready(wall, mark)
        mark = clock.ceiling_ms
        id_ = clock.next()
        assert last < id_
        last = id_
        wall.ms += 10
    assert mark <= wall.ms + 10_000
