"""Tasks of an object beside its turns: timers here, and the handle of all of them.

A timer is a task that sleeps, asks for a turn, and waits for its end. So a tick cannot overlap the next one, and none
pile up in the lane: what fell due meanwhile is skipped.
"""

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio

from trio_swarm.objects.mailbox import Item

if TYPE_CHECKING:
    from trio_swarm.objects.durable import DurableObject

TurnTaker = Callable[[Item], Awaitable[Any]]


class TaskHandle:
    """A timer, feed or background task of an object. It ends with the object in any case."""

    __slots__ = ("_scope", "kind", "name", "state", "statistics")

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind  # every, after, feed, task
        self.name = name
        self.state = ""  # a feed's last status
        self.statistics: Callable[[], Any] | None = None  # a feed's own, where it has any
        self._scope = trio.CancelScope()

    def __repr__(self) -> str:
        return f"<{self.kind} {self.name}>"

    def cancel(self) -> None:
        """End it now. A turn of it that has begun runs on. Idempotent."""
        self._scope.cancel()

    async def run(self, body: Callable[[], Awaitable[Any]]) -> None:
        """The body, until it ends or is cancelled."""
        with self._scope:
            await body()


class Tick(Item):
    """A timer's turn. Timers keep no object alive, so it is no interest."""

    __slots__ = ("_fn", "_name")

    crashes = True
    wanted = False
    active = False

    def __init__(self, fn: Callable[[], Awaitable[Any]], name: str) -> None:
        super().__init__()
        self._fn = fn
        self._name = name

    @property
    def title(self) -> str:
        """Which timer's."""
        return f"timer {self._name}"

    def begin(self, instance: "DurableObject") -> Awaitable[Any]:  # noqa: ARG002 - bound already
        """The author's function."""
        return self._fn()

    def settle(self, value: Any, error: Exception | None = None) -> None:  # noqa: ARG002
        """The timer only waits: what its turn raised has brought the object down already."""
        super().settle(value)


async def tick_every(seconds: float, fn: Callable[[], Awaitable[Any]], name: str, take_turn: TurnTaker) -> None:
    """Tick at multiples of `seconds` from now, skipping those that a longer turn ran over."""
    due = trio.current_time() + seconds
    while True:
        await trio.sleep_until(due)
        await take_turn(Tick(fn, name))
        late = trio.current_time() - due
        due += (math.floor(late / seconds) + 1) * seconds


async def tick_once(seconds: float, fn: Callable[[], Awaitable[Any]], name: str, take_turn: TurnTaker) -> None:
    """Tick once, `seconds` from now."""
    await trio.sleep(seconds)
    await take_turn(Tick(fn, name))
