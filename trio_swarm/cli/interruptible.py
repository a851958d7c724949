"""Ctrl-C and SIGTERM as a cancellation: what runs has its orderly end, and the command its exit code."""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable

import trio


async def until_signal(body: Callable[[], Awaitable[None]]) -> None:
    """Run `body` until it ends, or cancel it at the first SIGINT or SIGTERM. What it raises comes out as it is."""
    failure: Exception | None = None
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on, signals, nursery.cancel_scope)
            try:
                await body()
            except Exception as error:  # noqa: BLE001 - raised again below: the nursery would wrap it
                failure = error
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _cancel_on(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()
