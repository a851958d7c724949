"""The breaker's states."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_swarm.errors import SettingsError
from trio_swarm.supervise.breaker import Breaker


def test_more_than_the_limit_in_the_window_opens_it():
    """Three crashes in 60 s are borne, the fourth opens."""
    breaker = Breaker(3, 60, 30)
    assert ["closed"] * 3 + ["open"] == [breaker.crash(now) for now in (0, 10, 20, 59)]


def test_crashes_older_than_the_window_do_not_count():
    """Four crashes spread over more than the window leave it closed."""
    breaker = Breaker(3, 60, 30)
    assert ["closed"] * 4 == [breaker.crash(now) for now in (0, 20, 40, 60)]
    assert 3 == breaker.crashes(60)


def test_open_admits_one_probe_after_its_time():
    """Nothing passes while open; then one attempt does, and not a second beside it."""
    breaker = Breaker(0, 60, 30)
    assert "open" == breaker.crash(100)
    assert not breaker.admits(129.9)
    assert pytest.approx(5) == breaker.retry_after(125)
    assert breaker.admits(130)
    assert "half_open" == breaker.state
    assert not breaker.admits(131)


def test_a_probe_that_comes_through_closes_it():
    """After ok everything is admitted, and old crashes are forgotten."""
    breaker = Breaker(1, 60, 30)
    breaker.crash(0)
    breaker.crash(1)
    assert breaker.admits(31)
    breaker.ok(32)
    assert ("closed", 0, True) == (breaker.state, breaker.crashes(32), breaker.admits(32))
    assert "closed" == breaker.crash(33)


def test_a_probe_that_crashes_opens_it_again():
    """One crash of the probe is enough."""
    breaker = Breaker(3, 60, 30)
    for now in range(4):
        breaker.crash(now)
    assert breaker.admits(33)
    assert "open" == breaker.crash(34)
    assert not breaker.admits(63.9)
    assert breaker.admits(64)


def test_a_probe_that_lived_through_the_window_had_come_back():
    """A crash long after the probe is the first of a new count."""
    breaker = Breaker(1, 60, 30)
    breaker.crash(0)
    breaker.crash(0)
    assert breaker.admits(30)
    assert "closed" == breaker.crash(90)


def test_a_lost_probe_lets_the_next_one_go():
    """A probe of which nothing is heard does not close the door for ever."""
    breaker = Breaker(0, 60, 30)
    breaker.crash(0)
    assert breaker.admits(30)
    assert breaker.admits(60)


def test_ok_while_closed_forgets_nothing():
    """What flaps is found: success between crashes leaves them counted."""
    breaker = Breaker(1, 60, 30)
    breaker.crash(0)
    breaker.ok(1)
    assert "open" == breaker.crash(2)


@given(st.lists(st.tuples(st.floats(0, 50), st.sampled_from(["crash", "ok", "admits"])), max_size=40))
def test_it_opens_exactly_when_a_plain_list_says_so(steps):
    """While closed, a crash opens it exactly when the list of its crashes holds more than the limit in the window."""
    breaker, now, crashes = Breaker(3, 60, 30), 0.0, []
    for wait, step in steps:
        now += wait
        before = breaker.state
        if step == "crash":
            crashes.append(now)
            state = breaker.crash(now)
            if before == "closed":
                assert ("open" if sum(now - at < 60 for at in crashes) > 3 else "closed") == state
        elif step == "ok":
            breaker.ok(now)
        else:
            assert breaker.admits(now) or breaker.retry_after(now) > 0
        if before == "half_open" and breaker.state == "closed":
            crashes = [now] if step == "crash" else []


@pytest.mark.parametrize("arguments", [(-1, 60, 30), (3, 0, 30), (3, 60, 0)])
def test_impossible_numbers_are_refused(arguments):
    """They are an error of the settings."""
    with pytest.raises(SettingsError):
        Breaker(*arguments)
