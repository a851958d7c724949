"""Try, and try again: what objects and feeds share when something of theirs ends in an exception.

`supervise` runs `attempt` until it returns. When it raises, the breaker decides between a short wait (backoff, full
jitter) and a long one (open: the next attempt is a probe). What ran longer than the breaker's window before it fell
starts with a short backoff again. All waiting is here, and is cancelled with the scope around it; all deciding is in
`backoff.py` and `breaker.py`.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import attrs
import trio

from trio_swarm.supervise.backoff import Backoff
from trio_swarm.supervise.breaker import Breaker, BreakerState

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


@attrs.frozen
class Failure:
    """One end in an exception, as its owner is told before the wait that follows.

    Attributes:
        error: what it ended with.
        state: `open` means: it is down, and the next attempt is a probe.
        delay_s: how long until the next attempt.
        counted: whether it counted towards the breaker.
    """

    error: Exception
    state: BreakerState
    delay_s: float
    counted: bool


class Attempt(Protocol[T_co]):
    """One attempt; it calls `healthy()` when it has proved to work: that ends a probe, and its backoff starts anew."""

    def __call__(self, healthy: Callable[[], None], /) -> Awaitable[T_co]:
        """Run until it is over (return) or broken (raise)."""


def _always(_error: Exception) -> bool:
    return True


def _still() -> bool:
    return True


async def supervise(
    attempt: Attempt[T],
    *,
    backoff: Backoff,
    breaker: Breaker,
    on_failure: Callable[[Failure], None],
    counts: Callable[[Exception], bool] = _always,
    at_once: Callable[[Exception], bool] | None = None,
    wanted: Callable[[], bool] = _still,
) -> T | None:
    """Run `attempt` until it returns, with a jittered wait after each exception.

    Args:
        attempt: see `Attempt`; only `Exception` is caught, so `Cancelled` and friends pass.
        backoff: the short waits.
        breaker: counts crashes, decides when to wait long.
        on_failure: told (synchronously) of each end, before the wait.
        counts: whether an exception counts towards the breaker; by default all do.
        at_once: an exception for which this is true is tried again without a wait, where no other failed lately.
        wanted: asked after the wait; False ends supervision and the answer is None.

    Returns:
        What `attempt` returned, or None when it was no longer wanted.
    """

    def healthy() -> None:
        if breaker.state == "half_open":
            backoff.reset()
        breaker.ok(trio.current_time())

    while True:
        began = trio.current_time()
        try:
            return await attempt(healthy)
        except Exception as error:  # noqa: BLE001 - that is what it is for
            failure = _judge(error, began, backoff, breaker, counts, at_once)
        on_failure(failure)
        await trio.sleep(failure.delay_s)
        while not breaker.admits(trio.current_time()):  # noqa: ASYNC110 - time is all it waits for
            await trio.sleep(max(breaker.retry_after(trio.current_time()), 0.001))  # rounding must not spin
        if not wanted():
            return None


def _judge(
    error: Exception,
    began: float,
    backoff: Backoff,
    breaker: Breaker,
    counts: Callable[[Exception], bool],
    at_once: Callable[[Exception], bool] | None,
) -> Failure:
    now = trio.current_time()
    if now - began >= breaker.window:
        backoff.reset()
    counted = counts(error)
    if counted and breaker.crash(now) == "open":
        return Failure(error, "open", breaker.retry_after(now), counted)
    fresh, delay = backoff.fresh, backoff.next()
    if fresh and at_once is not None and at_once(error):
        delay = 0.0
    return Failure(error, breaker.state, delay, counted)
