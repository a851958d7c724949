"""One life of an object: its nursery, and its turns, one at a time.

    start turn -> turns from the mailbox -> (idle, crashed, cancelled) -> nursery ends -> stop turn -> gate drained

Timers, feeds and background tasks are children of the nursery. Whatever ends the life ends them first, so that `stop`
finds the object alone. Only a start that raised, a crash, a turn past its deadline, `Restart` or a failed commit end
it in error; then nothing that `stop` changes is kept, because the attributes may be in any state.

The deadline of a turn is that of one scope around all turns, moved as each turn begins: past it the life is over
anyway.
"""

import contextvars
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog
import trio

from trio_swarm.errors import ObjectRestarted, Restart, SwarmClosed, TooManyTasks, TurnTimeout
from trio_swarm.objects.gate import Departure, Gate, Stamped
from trio_swarm.objects.items import Message, Publish, Snapshot, Start, StatusChange, Stop
from trio_swarm.objects.mailbox import CALL, FEED, Item
from trio_swarm.objects.recording import Recorder
from trio_swarm.objects.store import Overlay
from trio_swarm.objects.timers import TaskHandle
from trio_swarm.objects.turn import CURRENT, Turn
from trio_swarm.settings import LARGE_MESSAGE_BYTES
from trio_swarm.storage import Commit, Record

if TYPE_CHECKING:
    from trio_swarm.objects.durable import DurableObject, Feed
    from trio_swarm.objects.host import Host

TURNS_A_SLICE: Final = 16  # turns that never waited, about a third of a millisecond; then other tasks have their turn
_NEVER: Final = trio.CancelScope().deadline

_log = structlog.get_logger("trio_swarm.objects")


class Incarnation:
    """See the module. Made and run by its host."""

    def __init__(self, host: "Host", number: int) -> None:
        self.host = host
        self.number = number
        self.error: Exception | None = None  # why it ends, if not in order
        self.counted = False  # whether that is a crash
        self.started = False
        self.check_idle = False  # set by the directory: look, between two turns, whether to stop
        self.active_at = trio.current_time()
        self.tasks: dict[TaskHandle, None] = {}
        self.pinned_feeds = 0
        self._ending = False
        self.overlay = Overlay()
        self.gate = Gate(
            host.stream,
            host.directory.storage,
            host.directory.settings.objects.commits_in_flight,
            self._broken,
            self._lost,
        )
        self._recorder = Recorder(
            host.stream,
            keep=host.kind.journal,
            durable=host.kind.durable,
            latest=host.kind.latest,
            limit=host.directory.settings.limits.topics_per_journal,
            waiting=self.gate.waiting,
        )
        self._nursery: trio.Nursery | None = None
        self._watch = trio.CancelScope()
        self._interrupted: Item | None = None
        self._statuses: dict[str, Departure] = {}  # those that wait at the gate: one a feed
        self._context = contextvars.copy_context()  # of the host's task: tasks of a turn inherit nothing of it
        self._turn_s = host.directory.settings.objects.turn_s
        self._instance: DurableObject | None = None

    # Its course

    async def run(self) -> None:
        """Live. Returns when idle or broken (`error` says why); cancelled, it is over in order."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            with self._watch:
                await self._live()
            if self._watch.cancelled_caught:
                item = self._interrupted
                self.fail(self._timeout(item), counted=item is None or item.crashes)
            nursery.cancel_scope.cancel()

    async def stop(self) -> None:
        """Tell the caller of the turn that was cancelled, then take the author's last turn, which may fail in any way.

        Called under a shield, which its deadline (`stop_s`) keeps short.
        """
        self._nursery = None
        self._ending = True
        self._tell_interrupted()
        if not self.started or self._instance is None:
            return
        item = Stop()
        self._turn_s = self.host.directory.settings.objects.stop_s
        self._watch = trio.CancelScope()
        with self._watch:
            await self._take_turn(item, self._instance, keep=self.error is None)
        self._interrupted = None
        if self._watch.cancelled_caught:
            _log.error("stop_too_late", object=self.host.name, seconds=self._turn_s)
        elif item.error is not None:
            _log.error("stop_failed", object=self.host.name, exc_info=item.error)

    def close(self) -> None:
        """Nothing more comes of this life: what still waits for a commit is told that its outcome is not known."""
        self.gate.close(SwarmClosed())
        self.host.mailbox.clear(lambda: self._lost("its feeds begin anew"), (FEED,))

    async def _live(self) -> None:
        CURRENT.set(None)
        host = self.host
        mailbox, gate, watch = host.mailbox, self.gate, self._watch
        try:
            self._instance = instance = host.kind.make(self)
        except Exception as error:  # noqa: BLE001 - the author's constructor
            self.fail(error, counted=True)
            return
        await self._take_turn(Start(), instance)
        if self.error is not None:
            return
        self.started = True
        host.begun()
        turns = 0
        while self.error is None:
            if gate.full:
                watch.deadline = _NEVER
                await gate.wait_room()
                continue
            if self.check_idle:
                self.check_idle = False
                if host.idle_long_enough():
                    return
            item = mailbox.take()
            if item is None:
                watch.deadline = _NEVER
                CURRENT.set(None)
                await mailbox.wait()
                turns = 0
                continue
            await self._take_turn(item, instance)
            turns += 1
            if turns >= TURNS_A_SLICE:
                turns = 0
                watch.deadline = _NEVER
                await trio.lowlevel.checkpoint()

    async def _take_turn(self, item: Item, instance: "DurableObject", *, keep: bool = True) -> None:
        turn = Turn(self.host, instance, item)
        self.host.turn = turn
        self.host.turns += 1
        CURRENT.set(turn)
        began = trio.current_time()
        self._watch.deadline = began + self._turn_s
        value: Any = None
        error: Exception | None = None
        try:
            value = await item.begin(instance)
        except Exception as raised:  # noqa: BLE001 - the author's code
            error = raised
        except BaseException:
            self._interrupted = item
            raise
        finally:
            turn.ended = True
            self.host.turn = None
        now = trio.current_time()
        took = now - began
        self.host.busy_s += took
        self.host.longest_s = max(self.host.longest_s, took)
        if item.active:
            self.active_at = now
        if took >= self._turn_s:  # it may have outrun its cancellation
            error = self._timeout(item)
            self.gate.leave(Departure(item, error=error))
            self.fail(error, counted=item.crashes)
        elif error is not None:
            self._refuse(item, error)
        elif keep:
            self._keep(turn, item, value)

    def _keep(self, turn: Turn, item: Item, value: Any) -> None:
        """A turn ended well: give the ids, send the changes, let it leave."""
        stamped: Stamped = ()
        record: Record | None = None
        message_id: str | None = None
        if turn.drafts:
            next_id = self.host.directory.clock.next
            stamped = tuple([(next_id(), draft) for draft in turn.drafts])
            if isinstance(item, Publish):
                value, message_id = item.conclude(stamped), item.message_id
            record = self._recorder.record(stamped, message_id)
        departure = Departure(item, value, stamped)
        if not (turn.changes or turn.clear or record or turn.alarms):
            self.gate.leave(departure)
            return
        commit = Commit(self.host.owner, self.number, turn.changes, turn.clear, record, turn.alarms)
        serial = self.overlay.add(commit.changes, clear=commit.clear, alarms=commit.alarms)
        self.gate.leave_after(departure, commit, partial(self._committed, serial, commit))

    def _committed(self, serial: int, commit: Commit) -> None:
        """The store has it: what was only known here is known there."""
        self.overlay.committed(serial, commit.changes, commit.alarms)
        if commit.record is not None:
            self._recorder.confirmed(commit.record)
        due = [alarm.due_ms for alarm in commit.alarms.values() if alarm is not None]
        if due:
            self.host.directory.alarms.note(min(due))

    def _refuse(self, item: Item, error: Exception) -> None:
        """A turn raised: nothing of it is kept, and its caller gets the exception."""
        if isinstance(error, Restart) and not isinstance(item, Stop):
            self.gate.leave(Departure(item, error=self._lost("it asked for it")))
            # A life that ends before anybody was served must not go round for ever.
            self.fail(error, counted=isinstance(item, Start | Snapshot))
            return
        self.gate.leave(Departure(item, error=error))
        if item.crashes:
            self.fail(error, counted=True)

    def _tell_interrupted(self) -> None:
        """The turn that was cancelled under way has a caller."""
        item, self._interrupted = self._interrupted, None
        if item is None:
            return
        error: Exception
        if self.error is None:
            error = SwarmClosed()
        elif isinstance(self.error, TurnTimeout):
            error = self.error
        else:
            error = self._lost(type(self.error).__name__)
        self.gate.leave(Departure(item, error=error))

    # Its end

    def fail(self, error: Exception, *, counted: bool) -> None:
        """End this life in error; the first one stands."""
        if self.error is not None or self._ending:
            _log.error("also_failed", object=self.host.name, exc_info=error)
            return
        self.error = error
        self.counted = counted
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    def _broken(self, error: Exception) -> None:
        """A commit failed: who waits for a turn asked an object that no longer is."""
        self.fail(error, counted=False)
        if not self._ending:
            self.host.mailbox.clear(lambda: self._lost(type(error).__name__), (CALL,))

    def _lost(self, reason: str) -> ObjectRestarted:
        return ObjectRestarted(self.host.kind.name, self.host.id, reason)

    def _timeout(self, item: Item | None) -> TurnTimeout:
        title = "a turn" if item is None else item.title
        return TurnTimeout(self.host.kind.name, self.host.id, title, self._turn_s)

    # Its tasks

    def begin_timer(
        self, kind: str, seconds: float, fn: Callable[[], Any], course: Callable[..., Awaitable[None]]
    ) -> TaskHandle:
        """A timer; see `DurableObject.every` and `after`."""
        name = getattr(fn, "__name__", repr(fn))
        if not callable(fn):
            raise TypeError(
                f"{kind} wants an async function: not `self.{kind}({seconds}, f())`, but `self.{kind}({seconds}, f)`"
            )
        if seconds < 0 or (kind == "every" and seconds == 0):
            raise ValueError(f"{kind} wants a positive number of seconds, not {seconds}")
        handle = TaskHandle(kind, name)
        self._begin(handle, partial(course, seconds, fn, name, self.host.mailbox.ask))
        return handle

    def begin_task(self, fn: Callable[[], Any]) -> TaskHandle:
        """A background task; see `DurableObject.spawn`."""
        handle = TaskHandle("task", getattr(fn, "__name__", repr(fn)))
        self._begin(handle, fn)
        return handle

    def begin_feed(self, feed: "Feed", *, pinned: bool) -> TaskHandle:
        """A feed; see `DurableObject.feed`."""
        if not self.host.kind.has_messages:
            raise TypeError(
                f"{self.host.kind.name} opens a feed and takes no messages: give it an `async def on_message`"
            )
        handle = TaskHandle("feed", feed.name)
        handle.statistics = getattr(feed, "statistics", None)
        name, send = feed.name, self.host.mailbox.send

        async def deliver(message: Any) -> None:
            item = Message(name, message)
            await send(item)
            if getattr(message, "size", 0) > LARGE_MESSAGE_BYTES:
                with suppress(Exception):  # what its turn raised has brought the object down already
                    await item.wait()

        def status(state: str, reason: str | None = None) -> None:
            handle.state = state
            self._pass_status(name, state, reason)

        async def course() -> None:
            try:
                await feed.run(deliver, status)
            finally:
                self._forget_status(name)
                self.host.kind.past.feed_ended(name, handle.statistics)
                self.pinned_feeds -= pinned
                self.active_at = trio.current_time()
                self.host.watch_idle()

        self._begin(handle, course)
        self.pinned_feeds += pinned
        return handle

    def _begin(self, handle: TaskHandle, body: Callable[[], Awaitable[Any]]) -> None:
        nursery = self._nursery
        if nursery is None or nursery.cancel_scope.cancel_called:
            raise RuntimeError(f"{handle} cannot begin: {self.host.name} is stopping")
        limit = self.host.directory.settings.objects.tasks
        if len(self.tasks) >= limit:
            raise TooManyTasks(self.host.kind.name, self.host.id, limit)
        self.tasks[handle] = None
        # In the host's context: the task outlives this turn, and must not pass for a part of it.
        self._context.run(
            partial(
                nursery.start_soon, self._course, handle, body, name=f"{self.host.name} {handle.kind} {handle.name}"
            )
        )

    async def _course(self, handle: TaskHandle, body: Callable[[], Awaitable[Any]]) -> None:
        try:
            await handle.run(body)
        except Restart as error:
            self.fail(error, counted=False)
        except Exception as error:  # noqa: BLE001 - a timer's turn has told its error already
            self.fail(error, counted=True)
        finally:
            self.tasks.pop(handle, None)

    def _forget_status(self, feed: str) -> None:
        """A feed has ended: nobody is told of it any more."""
        waiting = self._statuses.pop(feed, None)
        if waiting is not None:
            self.gate.drop(waiting)
        self.host.stream.forget_status(feed)

    def _pass_status(self, feed: str, state: str, reason: str | None) -> None:
        waiting = self._statuses.pop(feed, None)
        if waiting is not None:
            self.gate.drop(waiting)  # only the newest state matters; so the gate holds one a feed at most
        departure = Departure(StatusChange(self.host.stream, feed, state, reason))
        self.gate.leave(departure)
        if len(self.gate):
            self._statuses[feed] = departure
