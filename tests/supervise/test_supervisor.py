"""Try, and try again, in virtual time."""

import random

import pytest
import trio

from trio_swarm.errors import Restart
from trio_swarm.supervise.backoff import Backoff
from trio_swarm.supervise.breaker import Breaker
from trio_swarm.supervise.supervisor import supervise


class Attempts:
    """Attempts that end as they are told, and what the supervisor said."""

    def __init__(self, *ends):
        self.ends = list(ends)
        self.at = []
        self.failures = []

    async def __call__(self, healthy):
        self.at.append(trio.current_time())
        end = self.ends.pop(0)
        if isinstance(end, tuple):
            seconds, end = end
            await trio.sleep(seconds)
        if end == "healthy":
            healthy()
            end = self.ends.pop(0)
        if isinstance(end, Exception):
            raise end
        return end

    def run(self, **options):
        options.setdefault("backoff", Backoff(1, 30, random.Random(4)))
        options.setdefault("breaker", Breaker(3, 60, 30))
        return supervise(self, on_failure=self.failures.append, **options)


async def test_what_returns_is_not_tried_again(autojump_clock):
    """The answer of the attempt is the answer of the supervisor."""
    attempts = Attempts("done")
    assert "done" == await attempts.run()
    assert [] == attempts.failures


async def test_each_exception_is_followed_by_the_told_delay(autojump_clock):
    """The next attempt begins exactly the told delay after the last one ended; the delays lie under 1, 2 and 4 s."""
    attempts = Attempts(OSError(), OSError(), OSError(), "done")
    assert "done" == await attempts.run()
    waits = [b - a for a, b in zip(attempts.at, attempts.at[1:], strict=False)]
    assert [failure.delay_s for failure in attempts.failures] == pytest.approx(waits)
    assert all(wait <= ceiling for wait, ceiling in zip(waits, (1, 2, 4), strict=True))


async def test_the_fourth_crash_waits_for_the_probe(autojump_clock):
    """After more than three in the window the next attempt comes 30 s later; a healthy probe starts backoff anew."""
    backoff, breaker = Backoff(1, 30, random.Random(4)), Breaker(3, 60, 30)
    attempts = Attempts(*[OSError() for _ in range(4)], "healthy", OSError(), "done")
    assert "done" == await attempts.run(backoff=backoff, breaker=breaker)
    assert ["closed", "closed", "closed", "open", "closed"] == [failure.state for failure in attempts.failures]
    assert 30 == pytest.approx(attempts.at[4] - attempts.at[3])
    assert attempts.at[5] - attempts.at[4] <= 1


async def test_a_long_life_starts_backoff_anew(autojump_clock):
    """What ran longer than the window before it fell is tried again under the first ceiling."""
    attempts = Attempts(OSError(), OSError(), (61, OSError()), "done")
    await attempts.run()
    assert attempts.failures[2].delay_s <= 1


async def test_what_does_not_count_never_opens_it(autojump_clock):
    """Uncounted exceptions wait for backoff, and no more."""
    attempts = Attempts(*[ValueError() for _ in range(8)], "done")
    await attempts.run(counts=lambda error: not isinstance(error, ValueError))
    assert {"closed"} == {failure.state for failure in attempts.failures}
    assert not any(failure.counted for failure in attempts.failures)


async def test_what_is_tried_at_once_waits_the_second_time(autojump_clock):
    """The first such end in a while has no delay; the next has, so that it cannot spin."""
    attempts = Attempts(Restart(), Restart(), "done")
    await attempts.run(at_once=lambda error: isinstance(error, Restart))
    assert 0 == attempts.failures[0].delay_s
    assert attempts.failures[1].delay_s > 0


async def test_what_nobody_wants_is_not_tried_again(autojump_clock):
    """Asked after the wait, `wanted` ends it with None."""
    attempts = Attempts(OSError(), "done")
    assert await attempts.run(wanted=lambda: False) is None
    assert 1 == len(attempts.at)


async def test_cancelling_ends_it_in_any_wait(autojump_clock):
    """Cancelled in an attempt, in a backoff, or before a probe, it is over at once."""
    for failures in (0, 1, 4):
        attempts = Attempts(*[OSError() for _ in range(failures)], (1000, "done"))
        with trio.move_on_after(40 if failures < 4 else 15) as scope:
            await attempts.run()
        assert scope.cancelled_caught
