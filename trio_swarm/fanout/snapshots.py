"""Snapshots: the state of an object, for readers who have missed what led to it.

Single-flight: all who ask before a snapshot's turn begins share it, encoded once a format; who asks after that asks
for the next. The object layer answers in commit order, so at that moment the journal's head is the last event before
the state. An incarnation that dies with a snapshot under way leaves its batch here; the next incarnation is asked
again for it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from trio_swarm.fanout.subscription import Opening, Subscription
from trio_swarm.journal.journal import Gap, Journal

if TYPE_CHECKING:
    from trio_swarm.fanout.broadcaster import Broadcaster


@attrs.define(eq=False)
class SnapshotBatch:
    """The readers who asked before a snapshot's turn began: they share it."""

    readers: dict[Subscription, None]


class Snapshots:
    """Who waits for a snapshot of one stream; see the module."""

    __slots__ = ("_ask", "_asked", "_batches", "_broadcaster", "_journal", "_name", "_waiters")

    def __init__(self, name: str, journal: Journal, broadcaster: "Broadcaster") -> None:
        self._name = name
        self._journal = journal
        self._broadcaster = broadcaster
        self._ask: Callable[[], None] | None = None
        self._asked = False
        self._waiters: dict[Subscription, None] = {}
        self._batches: dict[SnapshotBatch, None] = {}

    @property
    def ask(self) -> Callable[[], None] | None:
        """How a snapshot turn is asked for; None where the class has none. Setting it asks again for all who wait."""
        return self._ask

    @ask.setter
    def ask(self, ask: Callable[[], None] | None) -> None:
        self._ask = ask
        for batch in self._batches:  # the turn that took them died with its incarnation
            self._waiters.update(batch.readers)
        self._batches.clear()
        self._asked = False
        if ask is not None and self._waiters:
            self._asked = True
            ask()

    def wait(self, reader: Subscription) -> None:
        """This reader goes on at the next snapshot."""
        reader.waiting = True
        self._waiters[reader] = None
        if not self._asked and self._ask is not None:
            self._asked = True
            self._ask()

    def forget(self, reader: Subscription) -> None:
        """This reader is closed."""
        self._waiters.pop(reader, None)
        for batch in self._batches:
            batch.readers.pop(reader, None)

    def take(self) -> SnapshotBatch:
        """The snapshot's turn begins."""
        batch = SnapshotBatch(self._waiters)
        self._waiters = {}
        self._asked = False
        self._batches[batch] = None
        return batch

    def give(self, batch: SnapshotBatch, data: bytes) -> None:
        """The state (JSON) as of the journal's head."""
        encoded: dict[str, Any] = {}
        id_ = self._journal.head_id
        for reader, gap in self._settled(batch):
            if not reader.is_open:
                reader.open_at(self._journal.head, Opening(id_, gap=gap, snapshot=data, encoded=encoded))
                continue
            encoding = reader.encoding
            if encoding.name not in encoded:
                encoded[encoding.name] = encoding.snapshot(self._name, id_, data)
            told = () if gap is None else (encoding.gap(self._name, id_, gap),)
            self._send_on(reader, (*told, encoded[encoding.name]))

    def fail(self, batch: SnapshotBatch, reason: str) -> None:
        """There is no snapshot: those who wait go on live, with their gap."""
        id_ = self._journal.head_id
        for reader, gap in self._settled(batch):
            if not reader.is_open:
                reader.open_at(self._journal.head, Opening(id_, gap=gap, error=reason))
            else:
                self._send_on(reader, () if gap is None else (reader.encoding.gap(self._name, id_, gap),))

    def abandon(self, reason: str) -> None:
        """There will be no snapshot for anybody who waits, in a batch or not."""
        for batch in self._batches:
            self._waiters.update(batch.readers)
        self._batches.clear()
        self.fail(self.take(), reason)

    def _settled(self, batch: SnapshotBatch) -> list[tuple[Subscription, Gap | None]]:
        """The readers of a batch, none of them waiting any more, with what each has missed."""
        if batch not in self._batches:
            return []  # a later incarnation answers these readers
        del self._batches[batch]
        settled = []
        for reader in batch.readers:
            gap = None if reader.after is None else Gap(reader.after, self._journal.head_id)
            reader.waiting = False
            reader.after = None
            settled.append((reader, gap))
        return settled

    def _send_on(self, reader: Subscription, owed: tuple[Any, ...]) -> None:
        reader.owed = (*reader.owed, *owed)
        reader.position, reader.id = self._journal.head, self._journal.head_id
        self._broadcaster.visit((reader,))
