"""A reader in this process: a position like any other, with no queue of its own.

It is its own sink: it holds at most one range, and is ready again when the program has taken that range's last event.
"""

from types import TracebackType
from typing import Any, Self

import trio

from trio_swarm.errors import ReaderLagged
from trio_swarm.fanout.encoding import EVENTS, GapNotice
from trio_swarm.fanout.stream import Stream
from trio_swarm.fanout.subscription import Opening, Subscription
from trio_swarm.fanout.view import Topics
from trio_swarm.journal.event import Event, EventId


class Reader:
    """`async for event in reader`: each event once, in order.

    A reader that is too slow for the journal gets `ReaderLagged` once, where events are missing; iterating again goes
    on after the gap. Use it as an async context manager: leaving it leaves the stream.
    """

    def __init__(self, stream: Stream, topics: Topics = None, since: EventId | None = None) -> None:
        self.ready = True
        self.opening: Opening | None = None
        self._held: tuple[Any, ...] = ()
        self._next = 0
        self._gap: GapNotice | None = None
        self._arrived = trio.Event()
        self._ended: str | None = None
        self._subscription: Subscription = stream.subscribe(
            self, encoding=EVENTS, topics=topics, since=since, policy="skip"
        )

    on_ready: Any = None

    async def __aenter__(self) -> Self:
        try:
            self.opening = await self._subscription.opened()
        except BaseException:
            self.close()
            raise
        if self.opening.gap is not None:
            self._gap = GapNotice(self.opening.id, self.opening.gap)
        self._subscription.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The next event. Cancelling it loses nothing.

        Raises:
            ReaderLagged: events between the last one and the next are gone.
            StopAsyncIteration: the reader was closed.
        """
        await trio.lowlevel.checkpoint()
        while True:
            if self._gap is not None:
                gap, self._gap = self._gap.gap, None
                raise ReaderLagged(str(gap.after), str(gap.before))
            if self._next < len(self._held):
                item = self._held[self._next]
                self._next += 1
                if isinstance(item, Event):
                    return item
                if isinstance(item, GapNotice):
                    self._gap = item
                continue
            if self._ended is not None:
                raise StopAsyncIteration
            self._held, self._next = (), 0
            self._arrived = trio.Event()
            self.ready = True
            if self.on_ready is not None:
                self.on_ready()
            await self._arrived.wait()

    def write(self, payload: Any) -> None:
        """Take one range (see `Sink`)."""
        self._held = (*self._held[self._next :], *payload)
        self._next = 0
        self.ready = False
        self._arrived.set()

    def abort(self, reason: str) -> None:
        """End the iteration (see `Sink`)."""
        self._ended = reason
        self.ready = False
        self._arrived.set()

    def close(self) -> None:
        """Leave the stream. Idempotent; who iterates comes to the end."""
        self._subscription.close()
        self.abort("closed")
