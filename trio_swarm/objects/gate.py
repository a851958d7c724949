"""The gate of one incarnation: nothing leaves before the commits in front of it are safe.

Turns end in order and each leaves through the gate: its events enter the stream, its caller gets the answer, a
snapshot or a feed's status goes to readers. A turn that stored something waits for its commit, and everything behind
it waits too. The next turn may begin meanwhile, up to a number of turns waiting here.

When a commit fails, that turn failed and so did all behind it, for they were built on it. The gate is then broken for
good: nothing more passes, and the object starts again from storage.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import trio

from trio_swarm.errors import StorageError
from trio_swarm.journal.event import Draft, EventId
from trio_swarm.storage import Commit, Storage

if TYPE_CHECKING:
    from trio_swarm.fanout.stream import Stream
    from trio_swarm.objects.mailbox import Item

Stamped = Sequence[tuple[EventId, Draft]]


class Departure:
    """What one turn lets out: its events, then its outcome."""

    __slots__ = ("error", "item", "ready", "stamped", "value")

    def __init__(
        self,
        item: "Item",
        value: Any = None,
        stamped: Stamped = (),
        *,
        error: Exception | None = None,
    ) -> None:
        self.item = item
        self.value = value
        self.error = error
        self.stamped = stamped
        self.ready = True


class Gate:
    """See the module.

    Args:
        stream: where events go.
        storage: where commits go.
        limit: departures that may wait before no further turn begins.
        on_broken: told once, with the reason, when nothing more will pass.
        lost: makes the error for those whose turn was built on one that failed.
    """

    __slots__ = ("_departures", "_limit", "_on_broken", "_room", "_storage", "_stream", "broken", "lost")

    def __init__(
        self,
        stream: "Stream",
        storage: Storage,
        limit: int,
        on_broken: Callable[[Exception], None],
        lost: Callable[[str], Exception],
    ) -> None:
        self._stream = stream
        self._storage = storage
        self._limit = limit
        self._on_broken = on_broken
        self.lost = lost
        self._departures: deque[Departure] = deque()
        self._room: trio.Event | None = None
        self.broken: Exception | None = None

    def __len__(self) -> int:
        return len(self._departures)

    @property
    def full(self) -> bool:
        """Whether no further turn should begin."""
        return len(self._departures) >= self._limit

    def leave(self, departure: Departure) -> None:
        """Let out now, or behind those that wait."""
        if self.broken is not None:
            self._turn_back(departure)
        else:
            self._departures.append(departure)
            self._flush()

    def leave_after(self, departure: Departure, commit: Commit, committed: Callable[[], None]) -> None:
        """Let out when the commit is safe; `committed` is called first."""
        if self.broken is not None:
            self._turn_back(departure)
            return
        departure.ready = False
        self._departures.append(departure)

        def done(error: StorageError | None) -> None:
            if self.broken is not None:
                return
            if error is not None:
                self.break_(error)
                return
            committed()
            departure.ready = True
            self._flush()

        try:
            self._storage.submit(commit, done)
        except StorageError as error:
            self.break_(error)

    def break_(self, error: Exception) -> None:
        """Nothing more passes. The first that waits has failed with `error`, all behind it were built on it."""
        if self.broken is not None:
            return
        self.broken = error
        departures, self._departures = self._departures, deque()
        if departures:
            departures.popleft().item.settle(None, error)
        for departure in departures:
            self._turn_back(departure)
        self._stir()
        self._on_broken(error)

    def waiting(self) -> Iterator[tuple[EventId, Draft]]:
        """All events that have not left, in order."""
        for departure in self._departures:
            yield from departure.stamped

    def drop(self, departure: Departure) -> None:
        """Take back something that has not left, if it still waits."""
        if departure in self._departures:
            self._departures.remove(departure)
            self._flush()

    def close(self, error: Exception) -> None:
        """Nobody waits here any more: what is still not safe gets `error`, and late outcomes are ignored."""
        self.broken = self.broken or error
        departures, self._departures = self._departures, deque()
        for departure in departures:
            departure.item.settle(None, error)

    async def wait_room(self) -> None:
        """Wait until another turn may begin, or the gate is broken."""
        while self.full:
            await self._wait()

    async def wait_empty(self) -> None:
        """Wait until everything is out, or the gate is broken."""
        while self._departures:
            await self._wait()

    def _flush(self) -> None:
        while self._departures and self._departures[0].ready:
            departure = self._departures[0]
            if departure.stamped:
                try:
                    self._stream.publish(departure.stamped)
                except Exception as error:  # noqa: BLE001 - an event that the journal refuses
                    self.break_(error)
                    return
            self._departures.popleft()
            departure.item.settle(departure.value, departure.error)
        self._stir()

    def _turn_back(self, departure: Departure) -> None:
        departure.item.settle(None, self.lost(type(self.broken).__name__))

    async def _wait(self) -> None:
        self._room = trio.Event()
        await self._room.wait()

    def _stir(self) -> None:
        if self._room is not None:
            room, self._room = self._room, None
            room.set()
