"""When a feed is tried again, and when it is down; what its numbers tell."""

import random

from hypothesis import given
from hypothesis import strategies as st

from trio_swarm.settings import UpstreamSettings
from trio_swarm.upstream.restarts import Restarts, Retry
from trio_swarm.upstream.sequence import Sequences, Verdict

SETTINGS = UpstreamSettings()


def test_three_quick_restarts_then_a_probe_every_thirty_seconds():
    """What never comes up is down after three restarts, and probed for ever after."""
    restarts = Restarts(SETTINGS, random.Random(1))
    quick = [restarts.failed(float(n)) for n in range(3)]
    assert [retry.down for retry in quick] == [False] * 3
    assert all(0 <= retry.delay_s <= ceiling for retry, ceiling in zip(quick, (1, 2, 4), strict=True))
    assert [restarts.failed(10.0 + n * 100) for n in range(5)] == [Retry(30.0, down=True)] * 5


def test_a_peer_that_hangs_in_every_handshake_is_down():
    """Attempts of 30 s never make three restarts in 60 s; they are three without a success all the same."""
    restarts = Restarts(SETTINGS, random.Random(1))
    assert [restarts.failed(30.0 * n).down for n in range(1, 6)] == [False, False, False, True, True]


def test_a_peer_that_accepts_and_hangs_up_is_down():
    """Success after success does not hide that it happens too often."""
    restarts = Restarts(SETTINGS, random.Random(1))
    found = []
    for n in range(6):
        restarts.succeeded()
        found.append(restarts.failed(float(n)).down)
    assert found == [False] * 3 + [True] * 3


def test_after_a_quiet_window_all_is_forgiven():
    """An hour of life, and the next fall is a first one: three quick restarts, the first within a second."""
    restarts = Restarts(SETTINGS, random.Random(1))
    for n in range(4):
        restarts.failed(float(n))
    restarts.succeeded()
    retries = [restarts.failed(3600.0 + n) for n in range(4)]
    assert [retry.down for retry in retries] == [False, False, False, True]
    assert retries[0].delay_s <= 1.0


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 100)), max_size=40))
def test_never_more_than_three_quick_restarts_in_a_window(falls):
    """Whatever happens when: at most three quick restarts in any 60 s, and each delay is at most the longest."""
    restarts = Restarts(SETTINGS, random.Random(1))
    now, quick = 0.0, []
    for success, gap in falls:
        now += gap
        if success:
            restarts.succeeded()
        retry = restarts.failed(now)
        assert retry.delay_s <= SETTINGS.backoff_max_s
        if not retry.down:
            quick.append(now)
        now += retry.delay_s
    assert all(later - earlier >= SETTINGS.window_s for earlier, later in zip(quick, quick[3:], strict=False))


def test_what_numbers_tell():
    """Next, a gap, a repeat, a numbering that begins anew; each topic by itself."""
    numbers = Sequences()
    told = [numbers.take("a", n) for n in (5, 6, 9, 9, 8, 500, 501, 1)]
    assert told == [
        Verdict.NEXT,
        Verdict.NEXT,
        Verdict.GAP,
        Verdict.REPEAT,
        Verdict.REPEAT,
        Verdict.RESTART,
        Verdict.NEXT,
        Verdict.RESTART,
    ]
    assert (numbers.missing, numbers.repeats, numbers.restarts) == (2, 2, 2)
    assert numbers.take("b", 7) is Verdict.NEXT
    numbers.reconnected()
    assert numbers.take("a", 1) is Verdict.NEXT


@given(st.lists(st.integers(1, 200)), st.integers(0, 50))
def test_what_is_sent_twice_is_taken_once(numbers, again):
    """Of a rising series in which each number may come again at once, each is taken exactly once."""
    series = sorted(set(numbers))
    seen = Sequences()
    taken = [n for n in series for _ in range(1 + (n + again) % 3) if seen.take("t", n) is not Verdict.REPEAT]
    assert taken == series


def test_ten_thousand_topics_are_remembered():
    """The table of last numbers has a bound; the topic known longest goes first."""
    seen = Sequences()
    for n in range(10_001):
        seen.take(str(n), 1)
    assert seen.take("1", 1) is Verdict.REPEAT
    assert seen.take("0", 1) is Verdict.NEXT
