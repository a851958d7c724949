"""A mailbox: what waits for its turn, in three lanes.

    control   snapshots and demand: few, because their senders ask once
    call      calls, publishing from outside, timers
    feed      messages of upstreams

Each lane is a Trio memory channel of fixed size. A higher lane goes first, but a lower one that waits gets at least one
turn in eight. Who sends into a full lane waits (and with it, for a feed, the upstream's socket).

An `Item` is one thing that wants a turn, and the promise of its outcome: waiting, then (unless its sender has left)
running, then settled. A sender that is cancelled before the turn takes the item with it; one that is cancelled later
only leaves.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import attrs
import trio

if TYPE_CHECKING:
    from trio_swarm.objects.durable import DurableObject

CONTROL: Final = 0
CALL: Final = 1
FEED: Final = 2
PATIENCE: Final = 7  # turns of higher lanes that a waiting lane lets pass


class Item:
    """Something that wants a turn; see the module. Subclasses say what the turn does."""

    __slots__ = ("box", "error", "settled", "task", "value", "withdrawn")

    lane = CALL
    read_only = False
    crashes = False  # whether raising in it brings the object down
    wanted = True  # whether the object lives on, or starts again, because this waits
    active = True  # whether its turn starts the object's grace anew

    def __init__(self) -> None:
        self.box: Mailbox | None = None  # where it waits
        self.settled = False
        self.value: Any = None
        self.error: Exception | None = None
        self.task: trio.lowlevel.Task | None = None
        self.withdrawn = False

    @property
    def title(self) -> str:
        """What logs and errors call the turn."""
        raise NotImplementedError

    def begin(self, instance: "DurableObject") -> Awaitable[Any]:
        """The turn's body."""
        raise NotImplementedError

    def settle(self, value: Any, error: Exception | None = None) -> None:
        """The outcome, when it may leave: an error, or else a value. The first one stands."""
        if not self.settled:
            self.settled = True
            self.value = value
            self.error = error
            if self.task is not None:
                task, self.task = self.task, None
                trio.lowlevel.reschedule(task)

    def withdraw(self) -> None:
        """The sender left. Before the turn began, it never will."""
        self.withdrawn = True
        if self.box is not None:
            self.box.forget(self)

    async def wait(self) -> Any:
        """Wait for the outcome, once. Cancelled before its turn, it withdraws; later, it only leaves."""
        if self.settled:
            await trio.lowlevel.checkpoint()
        else:
            self.task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._leave)
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
            return self.value
        finally:
            del error  # like the item's own, it would be a cycle by the traceback, and the sender's client in it

    def _leave(self, _: Any) -> trio.lowlevel.Abort:
        self.task = None
        self.withdraw()
        return trio.lowlevel.Abort.SUCCEEDED


@attrs.frozen
class MailboxStatistics:
    """What waits in each lane, senders that wait for room among them."""

    control: int
    call: int
    feed: int


class Mailbox:
    """The three lanes of one object. It outlives the object's incarnations: what waits is there for the next one."""

    __slots__ = ("_blocked", "_passed", "_receive", "_send", "_sleeper", "counts", "wanting")

    def __init__(self, control: int, call: int, feed: int) -> None:
        lanes = [trio.open_memory_channel[Item](size) for size in (control, call, feed)]
        self._send = [lane[0] for lane in lanes]
        self._receive = [lane[1] for lane in lanes]
        self.counts = [0, 0, 0]  # items in each lane; 0 means that nobody waits for room in it either
        self.wanting = 0  # senders who still want their turn: without timers, feeds, and those who left
        self._blocked = [0, 0, 0]  # senders waiting for room, and for a moment those that were cancelled there
        self._passed = [0, 0, 0]  # turns that went to higher lanes while this one waited
        self._sleeper: trio.lowlevel.Task | None = None

    async def send(self, item: Item) -> None:
        """Put an item into its lane; waits while that is full. No checkpoint while there is room.

        Cancelled while it waits, the item was never sent.
        """
        try:
            self.send_nowait(item)
        except trio.WouldBlock:
            pass
        else:
            return
        lane = item.lane
        self._blocked[lane] += 1
        self._remember(item)
        try:
            await self._send[lane].send(item)
        except BaseException:
            item.withdraw()
            raise
        finally:
            self._blocked[lane] -= 1

    def send_nowait(self, item: Item) -> None:
        """Put an item into its lane.

        Raises:
            trio.WouldBlock: it is full.
        """
        self._send[item.lane].send_nowait(item)
        self.counts[item.lane] += 1
        self._remember(item)
        self.wake()

    async def ask(self, item: Item) -> Any:
        """Send an item and wait for its outcome."""
        await self.send(item)
        return await item.wait()

    def take(self) -> Item | None:
        """The item whose turn is next, or None when nothing waits. Skips what was withdrawn."""
        counts = self.counts
        passed = self._passed
        while True:
            if counts[CONTROL]:
                lane = CONTROL
                if counts[FEED] and passed[FEED] >= PATIENCE:
                    lane = FEED
                elif counts[CALL] and passed[CALL] >= PATIENCE:
                    lane = CALL
            elif counts[CALL]:
                lane = FEED if counts[FEED] and passed[FEED] >= PATIENCE else CALL
            elif counts[FEED]:
                lane = FEED
            else:
                return None
            item = self._receive_from(lane)
            if item.withdrawn:
                continue
            passed[lane] = 0
            for lower in range(lane + 1, 3):
                if counts[lower]:
                    passed[lower] += 1
            return item

    def _receive_from(self, lane: int) -> Item:
        channel = self._receive[lane]
        # Where somebody waits for room, the channel takes that item in as it gives this one out.
        if not self._blocked[lane] or not channel.statistics().tasks_waiting_send:
            self.counts[lane] -= 1
        item = channel.receive_nowait()
        self.forget(item)
        return item

    def _remember(self, item: Item) -> None:
        item.box = self
        self.wanting += item.wanted

    def forget(self, item: Item) -> None:
        """An item waits here no longer: it is taken, or its sender left."""
        if item.box is not None:
            item.box = None
            self.wanting -= item.wanted

    async def wait(self) -> None:
        """Sleep until something arrives, or `wake` is called."""
        self._sleeper = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._stir)

    def wake(self) -> None:
        """End the sleep of who waits for mail, if anyone."""
        sleeper = self._sleeper
        if sleeper is not None:
            self._sleeper = None
            trio.lowlevel.reschedule(sleeper)

    def _stir(self, _: Any) -> trio.lowlevel.Abort:
        self._sleeper = None
        return trio.lowlevel.Abort.SUCCEEDED

    def clear(self, error: Callable[[], Exception], lanes: tuple[int, ...] = (CONTROL, CALL, FEED)) -> None:
        """Settle everything that waits with an error, those who wait for room among them."""
        for lane in lanes:
            while self.counts[lane]:
                item = self._receive_from(lane)
                item.settle(None, error())

    def statistics(self) -> MailboxStatistics:
        """A moment of the lanes."""
        return MailboxStatistics(*self.depths())

    def depths(self) -> list[int]:
        """What waits in each lane, as `statistics` tells it."""
        return [count + blocked for count, blocked in zip(self.counts, self._blocked, strict=True)]
