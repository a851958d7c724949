"""The broadcaster: one task that brings every reader of every stream up to date.

Publishing marks views; a pass works off what is marked. For each view it visits the readers, takes the one encoded
range for each position, and writes it with one non-blocking call of the sink. Events that arrive meanwhile wait for
the next pass and go together: batches grow by themselves under load and vanish when there is none.

A reader whose sink is not ready is passed over; the sink calls back when its socket is writable again, and the next
pass visits it. Besides the marked views, a pass makes single *visits*: to readers with something owed (a gap, a
snapshot, a feed's state), with topics joining from an older position, with more ranges to go, or whose sink became
ready.

After at most 32 writes other tasks get their turn: a feed passes about one message a turn of Trio's loop, so a
broadcaster that held the loop for a whole pass would hold the upstream back, and batches would never grow. One
client's error never leaves this task.
"""

from collections.abc import Iterable
from typing import Any, Final

import attrs
import structlog
import trio

from trio_swarm.fanout.subscription import Subscription
from trio_swarm.fanout.view import LOST, NOTHING, Step, View
from trio_swarm.settings import STEPS_A_PASS

WRITES_A_TURN: Final = 32  # about 0.15 ms of this task, then the others: measured, docs/performance.md

_log = structlog.get_logger("trio_swarm.fanout")


@attrs.frozen
class BroadcasterStatistics:
    """What the broadcaster has done since it began, and what is marked now."""

    passes: int
    writes: int
    published: int  # events
    deliveries: int  # events, each as often as it was written
    delivered_bytes: int  # of what is bytes: not what in-process readers are given
    marked_views: int
    marked_readers: int


class _SinkReaders:
    """The subscriptions behind one sink (a WebSocket has many), called when the sink is ready again."""

    __slots__ = ("_broadcaster", "readers")

    def __init__(self, broadcaster: "Broadcaster") -> None:
        self._broadcaster = broadcaster
        self.readers: list[Subscription] = []

    def __call__(self) -> None:
        self._broadcaster.visit(self.readers)


class Broadcaster:
    """See the module. One a runtime."""

    def __init__(self) -> None:
        self._views: dict[View, None] = {}
        self._visits: dict[Subscription, None] = {}
        self._steps: dict[tuple[View, int], Step] = {}
        self._marked = trio.Event()
        self._passes = 0
        self._writes = 0
        self._deliveries = 0
        self._bytes = 0
        self.published = 0  # counted by the streams

    def mark(self, views: Iterable[View]) -> None:
        """These views have something new."""
        for view in views:
            self._views[view] = None
        self._marked.set()

    def visit(self, readers: Iterable[Subscription]) -> None:
        """Look at these readers in the next pass."""
        for reader in readers:
            self._visits[reader] = None
        self._marked.set()

    def attach(self, reader: Subscription) -> None:
        """Have the reader visited when its sink becomes ready."""
        known = reader.sink.on_ready
        if not isinstance(known, _SinkReaders):
            known = reader.sink.on_ready = _SinkReaders(self)
        known.readers.append(reader)

    def detach(self, reader: Subscription) -> None:
        """Forget a reader."""
        known = reader.sink.on_ready
        if isinstance(known, _SinkReaders) and reader in known.readers:
            known.readers.remove(reader)
            if not known.readers:
                reader.sink.on_ready = None
        self._visits.pop(reader, None)

    def statistics(self) -> BroadcasterStatistics:
        """Counters since the beginning, and the present marks."""
        return BroadcasterStatistics(
            passes=self._passes,
            writes=self._writes,
            published=self.published,
            deliveries=self._deliveries,
            delivered_bytes=self._bytes,
            marked_views=len(self._views),
            marked_readers=len(self._visits),
        )

    def _count(self, step: Step | None, writes: int) -> None:
        """So many clients were given this range: counted by range, because a delivery is the hottest path there is."""
        if step is None or not writes:
            return
        payload = step[0]
        self._writes += writes
        self._deliveries += writes * step[3]
        if type(payload) is bytes:
            self._bytes += writes * len(payload)
        elif step[3] and type(payload[0]) is str:
            self._bytes += writes * sum(map(len, payload))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Work until cancelled. Cancelling leaves every reader at a position whose events it was given."""
        task_status.started()
        while True:
            await self._marked.wait()
            self._marked = trio.Event()
            await self._pass()
            await trio.lowlevel.checkpoint()

    async def _pass(self) -> None:
        """Serve all that is marked. On its own, so that nobody waits in the names of a pass for the next one."""
        views, self._views = self._views, {}
        visits, self._visits = self._visits, {}
        self._passes += 1
        since_yield = 0
        for view in views:
            since_yield = await self._serve(view, since_yield)
        for reader in visits:
            self._visit(reader)
            since_yield += 1
            if since_yield >= WRITES_A_TURN:
                since_yield = 0
                await trio.lowlevel.checkpoint()
        self._steps.clear()

    async def _serve(self, view: View, since_yield: int) -> int:
        """Give every ready reader of a view its next range. This loop is the price of a delivery.

        Takes and gives the number of writes since others had their turn.
        """
        before = since_yield
        done = 0  # of this range, before the last yield
        last = -1  # most readers stand where the one before stands
        head = 0
        payload: Any = NOTHING
        step: Step | None = None
        for reader in tuple(view.readers):
            sink = reader.sink
            if not sink.ready or reader.view is not view:
                continue
            position = reader.position
            if position != last:
                self._count(step, done + since_yield - before)
                done, before = 0, since_yield
                step = self._step(view, position)
                if step is None:
                    break
                payload, end, id_, _ = step
                last = position
                head = view.journal.head
            if payload is NOTHING:
                reader.position = end
                continue
            if payload is LOST:
                reader.stream.lagged(reader)
                continue
            reader.position = end
            reader.id = id_
            try:
                sink.write(payload)
            except Exception as error:  # noqa: BLE001 - one client's error never leaves the broadcaster
                self._failed(reader, error)
            if end != head:
                self.visit((reader,))
            since_yield += 1
            if since_yield >= WRITES_A_TURN:
                done += since_yield - before
                before = since_yield = 0
                await trio.lowlevel.checkpoint()
        self._count(step, done + since_yield - before)
        return since_yield

    def _visit(self, reader: Subscription) -> None:
        """Do all that one reader is owed, as far as its sink takes it, and at most one range."""
        if reader.closed or not reader.started:
            return
        try:
            sink = reader.sink
            stream = reader.stream
            _pay(reader)
            if reader.owed or reader.waiting:
                return
            stream.resume_live(reader)
            if sink.ready:  # not before: what is owed to a blocked client must not grow with every change
                reader.owed = tuple(stream.status_payloads(reader))
                _pay(reader)
            if reader.owed or not sink.ready:
                return
            if reader.legs is not None:
                self._visit_leg(reader)
            elif reader.view is not None:
                self._visit_live(reader, reader.view)
        except Exception as error:  # noqa: BLE001
            self._failed(reader, error)

    def _visit_live(self, reader: Subscription, view: View) -> None:
        step = self._step(view, reader.position)
        if step is None:
            return
        payload, end, id_, _ = step
        if payload is LOST:
            reader.stream.lagged(reader)
            return
        reader.position = end
        if payload is not NOTHING:
            reader.id = id_
            reader.sink.write(payload)
            self._count(step, 1)
            if end != reader.stream.journal.head:
                self.visit((reader,))

    def _visit_leg(self, reader: Subscription) -> None:
        """Bring the hindmost topics one range nearer to the next ones."""
        legs = reader.legs
        stream = reader.stream
        if legs is None:
            return
        leg, following = legs[0], legs[1]
        journal = stream.journal
        if journal.lost(leg.position, leg.topics):
            stream.lagged(reader)
            return
        taken = journal.read(leg.position, leg.topics)
        # What another leg reads is ahead here: it has been given already.
        ahead = frozenset[str]().union(*(other.topics or () for other in legs[1:]))
        events = [e for e in taken.events if e.seq <= following.position and e.topic not in ahead]
        leg.position = min(taken.end, following.position)
        if events:
            leg.id = events[-1].id
            reader.id = max(reader.id, leg.id)
            payload = reader.encoding.events(stream.name, events)
            reader.sink.write(payload)
            self._count((payload, leg.position, leg.id, len(events)), 1)
        stream.merge_legs(reader)
        self.visit((reader,))

    def _step(self, view: View, position: int) -> Step | None:
        """The range after a position, encoded once a pass. None: the view cannot be read; its readers are aborted."""
        key = view, position
        step = self._steps.get(key)
        if step is None:
            try:
                step = view.step(position)
            except Exception as error:  # noqa: BLE001
                for reader in tuple(view.readers):
                    self._failed(reader, error)
                return None
            if len(self._steps) >= STEPS_A_PASS:
                self._steps.clear()
            self._steps[key] = step
        return step

    def _failed(self, reader: Subscription, error: Exception) -> None:
        _log.error("reader_failed", stream=reader.stream.name, exc_info=error)
        reader.sink.abort("internal error")
        reader.close()


def _pay(reader: Subscription) -> None:
    """Write what is owed, as far as the sink takes it."""
    sink = reader.sink
    while reader.owed and sink.ready:
        payload, *rest = reader.owed
        reader.owed = tuple(rest)
        sink.write(payload)
