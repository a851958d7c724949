"""A stream of events that outlives its connections.

One task reads connection after connection and hands over what happens, one thing at a time: a reader that is slow holds
the service back, down to TCP, and nothing is kept for it here. The task lives in the nursery of the `async with`, and
ends with it.

After a connection was lost the next attempt waits for what the service asked, and a draw of the backoff on top. The
backoff begins anew when something came, or the connection stood for a while: a service that greets and hangs up is
left alone longer and longer.
"""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Self, final

import trio

from trio_swarm.client.access import Access
from trio_swarm.client.happenings import Connected, Event, Happening, Lost
from trio_swarm.client.sse import SseWay
from trio_swarm.client.way import Way
from trio_swarm.client.websocket import WebSocketWay
from trio_swarm.errors import ServiceRefused, ServiceUnavailable
from trio_swarm.settings import UpstreamSettings
from trio_swarm.supervise.backoff import Backoff
from trio_swarm.wire.messages import Subscription

STEADY_S: Final = 10.0  # a connection that stood this long was a good one


@final
class EventSource:
    """What `open_events` and `open_streams` give: an async iterator of what happens (source: ManagedEventSource).

    It ends when the service says that there is no more. Cancelled while it waits, it has taken nothing.

    Raises:
        ServiceRefused: the service said no; from `__anext__`, after what came before it.
        trio.ClosedResourceError: the block of the `async with` ends, by a defect of ours or otherwise.
    """

    def __init__(self, received: trio.MemoryReceiveChannel[Happening], reader: "_Reader") -> None:
        self._received = received
        self._reader = reader

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Happening:
        try:
            return await self._received.receive()
        except trio.EndOfChannel:
            if self._reader.refused is not None:
                raise self._reader.refused from None
            if not self._reader.done:  # whoever reads is about to be cancelled, and must not take it for the end
                raise trio.ClosedResourceError from None
            raise StopAsyncIteration from None


def open_events(
    url: str,
    *,
    access: Access | None = None,
    since: str | None = None,
    stream: str | None = None,
    envelope: bool = False,
    rng: random.Random | None = None,
) -> AbstractAsyncContextManager[EventSource]:
    """Read server-sent events for the time of an `async with`.

    Args:
        url: the events' own, of any server.
        access: how the service is reached, where the usual way will not do.
        since: the id to begin after.
        stream: what events are said to be of, where the server does not say.
        envelope: the URL asks a service of ours for `format=envelope`, by which events carry their topic.
        rng: draws the jitter.
    """
    access = access or Access()
    way = SseWay(url, access=access, since=since, stream=stream, envelope=envelope)
    return open_source(way, access.settings, rng=rng)


def open_streams(
    url: str,
    subscriptions: Sequence[Subscription],
    *,
    access: Access | None = None,
    rng: random.Random | None = None,
) -> AbstractAsyncContextManager[EventSource]:
    """Read streams over one WebSocket for the time of an `async with`.

    Args:
        url: the service's `/v1/ws`.
        subscriptions: each stream once, with its topics and the id to begin after.
        access: how the service is reached, where the usual way will not do.
        rng: draws the jitter.
    """
    access = access or Access()
    return open_source(WebSocketWay(url, subscriptions, access=access), access.settings, rng=rng)


@asynccontextmanager
async def open_source(
    way: Way, settings: UpstreamSettings, *, rng: random.Random | None = None
) -> AsyncIterator[EventSource]:
    """Read in a way, for the time of the block; what the block raises comes out as it is."""
    backoff = Backoff(
        settings.backoff_initial_s,
        settings.backoff_max_s,
        rng or random.Random(),  # noqa: S311 - jitter is no secret
    )
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        to_source, received = trio.open_memory_channel[Happening](0)
        reader = _Reader(way, backoff, to_source)
        nursery.start_soon(reader.run)
        try:
            yield EventSource(received, reader)
        except Exception as error:  # noqa: BLE001 - raised again below, outside of the nursery that would wrap it
            failure = error
        finally:
            nursery.cancel_scope.cancel()
    received.close()
    try:
        if failure is not None:
            raise failure
    finally:
        del failure  # it holds this frame by its traceback: a cycle


class _Reader:
    """The task behind an `EventSource`."""

    def __init__(self, way: Way, backoff: Backoff, to_source: trio.MemorySendChannel[Happening]) -> None:
        self._way = way
        self._backoff = backoff
        self._to_source = to_source
        self._connected_at: float | None = None
        self.refused: ServiceRefused | None = None
        self.done = False  # the service said that there is no more

    async def run(self) -> None:
        """Read connection after connection, until the service says that it is enough."""
        with self._to_source:
            while True:
                try:
                    await self._way.read(self._tell)
                except ServiceRefused as error:
                    self.refused = error
                    return
                except ServiceUnavailable as error:
                    await self._wait_after(error)
                else:
                    self.done = True
                    return

    async def _tell(self, happening: Happening) -> None:
        if isinstance(happening, Connected):
            self._connected_at = trio.current_time()
        elif isinstance(happening, Event):
            self._backoff.reset()
        await self._to_source.send(happening)

    async def _wait_after(self, error: ServiceUnavailable) -> None:
        if self._connected_at is not None and trio.current_time() - self._connected_at >= STEADY_S:
            self._backoff.reset()
        self._connected_at = None
        asked = self._way.retry_s if error.after_s is None else error.after_s
        seconds = (asked or 0.0) + self._backoff.next()
        await self._to_source.send(Lost(error.reason, seconds))
        await trio.sleep(seconds)
