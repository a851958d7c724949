"""One object through all its lives: its mailbox, its stream, and the supervisor that starts it again.

    starting -> running -> stopping -> (nobody wants it: gone) or (something arrived meanwhile: starting)
                   `-- crash, Restart, failed commit --> stopping -> backoff -> starting
                                        more than 3 crashes in 60 s: failed -> a probe: starting

The mailbox outlives the incarnations: what arrives while one stops or waits for its backoff is there for the next.
While it has failed, callers are refused. At the end of a wait an object that nobody wants any more is not started.
"""

from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import attrs
import structlog
import trio

from trio_swarm.errors import ObjectFailed, Restart, StorageError, SwarmClosed
from trio_swarm.fanout.stream import Demand, Stream
from trio_swarm.objects.incarnation import Incarnation
from trio_swarm.objects.items import DemandChange, Snapshot
from trio_swarm.objects.mailbox import CALL, Mailbox, MailboxStatistics
from trio_swarm.objects.turn import CURRENT, Turn
from trio_swarm.supervise.backoff import Backoff
from trio_swarm.supervise.breaker import Breaker
from trio_swarm.supervise.supervisor import Failure, supervise

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_swarm.objects.directory import Directory, Kind

State = Literal["starting", "running", "stopping", "backoff", "failed", "gone"]

READERS_WAIT_S: Final = 4.0  # for a history that cannot be read: once the next attempt is further away, they are told

_NO_DEMAND = Demand(frozenset(), 0)

_log = structlog.get_logger("trio_swarm.objects")


@attrs.frozen
class ObjectStatistics:
    """A moment of one live object."""

    kind: str
    id: str
    state: State
    lives: int
    turns: int
    busy_s: float  # in turns, waits inside them included
    longest_s: float  # the longest turn
    turn: str | None  # the one that runs
    mailbox: MailboxStatistics
    at_gate: int  # turns whose outcome waits for a commit
    tasks: tuple[tuple[str, str, str], ...]  # timers, feeds and background tasks: kind, name, a feed's state
    subscribers: int
    crashes: int  # within the window
    last_error: str | None


class Host:
    """See the module. Made by the directory only."""

    def __init__(self, directory: "Directory", kind: "Kind", id: str) -> None:
        objects = directory.settings.objects
        self.directory = directory
        self.kind = kind
        self.id = id
        self.owner = (kind.name, id)
        self.name = f"{kind.name}/{id}"
        self.state: State = "starting"
        self.pinned = id in kind.pinned
        self.mailbox = Mailbox(objects.control_lane, objects.call_lane, objects.feed_lane)
        self.stream: Stream = directory.streams.open(
            self.name, journal=kind.journal, latest=kind.latest, recalled=False
        )
        self.turn: Turn | None = None
        self.life: Incarnation | None = None
        self.lives = 0
        self.turns = 0
        self.busy_s = 0.0
        self.longest_s = 0.0
        self.failures = 0
        self.due_listed = False  # whether the directory has it on its list of those to look at
        self.snapshot_asked = False
        self.demand_asked = False
        self.demand_told = _NO_DEMAND
        self.last_error: str | None = None
        self.again_in_s = 0.0  # the wait that followed it
        self.breaker = Breaker(objects.crashes, objects.crash_window_s, objects.backoff_max_s)
        self._backoff = Backoff(objects.backoff_initial_s, objects.backoff_max_s, directory.rng)
        if kind.lag_policy is not None:
            self.stream.lag_policy = kind.lag_policy
        self.stream.on_demand = self._demand_changed
        if kind.has_snapshot:
            self.stream.ask_snapshot = self._ask_snapshot

    async def run(self) -> None:
        """All its lives, in a task of the directory's nursery."""
        CURRENT.set(None)
        try:
            while True:
                await supervise(
                    self._one_life,
                    backoff=self._backoff,
                    breaker=self.breaker,
                    on_failure=self._failed,
                    counts=self._counts,
                    at_once=_is_restart,
                    wanted=self._wanted,
                )
                if not self._wanted():
                    break
        finally:
            self.state = "gone"
            self.life = None
            self.mailbox.clear(SwarmClosed)
            self.directory.bury(self)

    async def _one_life(self, healthy: "Callable[[], None]") -> None:  # noqa: ARG002 - the breaker's window judges a probe
        self.lives += 1
        self.state = "starting"
        self.demand_told = _NO_DEMAND
        await self.directory.recall(self.kind, self.id, self.stream)
        life = self.life = Incarnation(self, self.directory.next_incarnation())
        if self.kind.has_snapshot:
            self.stream.ask_snapshot = self._ask_snapshot  # asks again for those whom the last life left waiting
        stop_s = self.directory.settings.objects.stop_s
        try:
            try:
                await life.run()
            finally:
                self.state = "stopping"
                # Its turn has a deadline of half that; this one only shields it.
                with trio.CancelScope(deadline=trio.current_time() + 2 * stop_s, shield=True):
                    await life.stop()
            await life.gate.wait_empty()  # the next life must read what was committed, however long that takes
        finally:
            with trio.CancelScope(deadline=trio.current_time() + stop_s, shield=True):
                await life.gate.wait_empty()
            life.close()
        if life.error is not None:
            raise life.error

    def begun(self) -> None:
        """The start turn went well."""
        self.state = "running"
        if self.life is not None:
            self.life.active_at = trio.current_time()
        self._demand_changed()
        self.watch_idle()

    # Interest

    def idle_long_enough(self) -> bool:
        """Whether to stop now: nothing wants it, and the grace is over. Decided between two turns, without a wait."""
        life = self.life
        return life is not None and not self._busy() and trio.current_time() >= self.idle_at()

    def idle_at(self) -> float:
        """When the grace ends, if nothing happens."""
        active = 0.0 if self.life is None else self.life.active_at
        return active + self.directory.settings.objects.grace_s

    def _busy(self) -> bool:
        life = self.life
        return (
            self._wanted()
            or self.turn is not None
            or (life is not None and (life.pinned_feeds > 0 or len(life.gate) > 0))
        )

    def _wanted(self) -> bool:
        # Timers, and messages of feeds that are not pinned, are no interest: they end with the object.
        return self.pinned or self.stream.subscribers > 0 or self.mailbox.wanting > 0

    def watch_idle(self) -> None:
        """From now on the directory looks whether it is idle, unless it cannot be for long."""
        if self.state == "running" and not self.pinned and not self.stream.subscribers:
            self.directory.watch_idle(self)

    def _demand_changed(self) -> None:
        life = self.life
        if life is not None and not self.stream.subscribers:
            life.active_at = trio.current_time()
        self.watch_idle()
        if self.kind.has_demand and not self.demand_asked and self.stream.demand != self.demand_told:
            self.demand_asked = True
            self.mailbox.send_nowait(DemandChange(self))

    def _ask_snapshot(self) -> None:
        if not self.snapshot_asked:
            self.snapshot_asked = True
            self.mailbox.send_nowait(Snapshot(self))

    # Failure

    def failure(self) -> ObjectFailed:
        """What callers are told while it has failed."""
        retry_s = self.breaker.retry_after(trio.current_time())
        return ObjectFailed(self.kind.name, self.id, self.last_error or "unknown", retry_s)

    def _counts(self, error: Exception) -> bool:
        life = self.life
        if life is None:
            return not isinstance(error, StorageError)  # its history could not be read: that is not its own fault
        return life.error is not error or life.counted

    def _failed(self, failure: Failure) -> None:
        self.failures += 1
        self.last_error = type(failure.error).__name__
        self.state = "failed" if failure.state == "open" else "backoff"
        again_in_s = round(failure.delay_s, 3)
        if isinstance(failure.error, Restart):
            _log.warning("object_restarted", object=self.name, state=self.state, again_in_s=again_in_s)
        else:
            _log.error(
                "object_failed", object=self.name, state=self.state, again_in_s=again_in_s, exc_info=failure.error
            )
        if isinstance(failure.error, StorageError) and (self.life is None or not self.life.started):
            reason = failure.error.reason
            self.mailbox.clear(lambda: StorageError(reason), (CALL,))  # they learn it now, not after the next attempts
            if failure.delay_s > READERS_WAIT_S:
                self.stream.refuse_unplaced(lambda: StorageError(reason))
        self.life = None
        self.again_in_s = failure.delay_s
        if self.state == "failed":
            self.mailbox.clear(self.failure)
            self.snapshot_asked = self.demand_asked = False
            self.stream.abandon_snapshots(self.last_error)
            self.stream.refuse_unplaced(self.failure)

    def statistics(self) -> ObjectStatistics:
        """A moment of this object."""
        life = self.life
        return ObjectStatistics(
            kind=self.kind.name,
            id=self.id,
            state=self.state,
            lives=self.lives,
            turns=self.turns,
            busy_s=self.busy_s,
            longest_s=self.longest_s,
            turn=None if self.turn is None else self.turn.item.title,
            mailbox=self.mailbox.statistics(),
            at_gate=0 if life is None else len(life.gate),
            tasks=() if life is None else tuple((task.kind, task.name, task.state) for task in life.tasks),
            subscribers=self.stream.subscribers,
            crashes=self.breaker.crashes(trio.current_time()),
            last_error=self.last_error,
        )

    def tree(self) -> dict[str, Any]:
        """This object and what hangs on it, as plain data."""
        demand = self.stream.demand
        return {
            **attrs.asdict(self.statistics()),
            "journal": attrs.asdict(self.stream.journal.statistics()),
            "topics": sorted(demand.topics),  # those that readers name
        }


_is_restart = partial(lambda kind, error: isinstance(error, kind), Restart)
