"""What ends a command from outside, as a cancellation: it has its orderly end, and its exit code."""

import signal
from collections.abc import Awaitable, Callable

import trio


async def until_signal(body: Callable[[], Awaitable[None]]) -> None:
    """Run `body` until it ends, or cancel it at the first SIGINT or SIGTERM. What it raises comes out as it is."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        await unless(signals.__anext__, body)


async def unless(watch: Callable[[], Awaitable[object]], body: Callable[[], Awaitable[None]]) -> None:
    """Run `body` until it ends, or cancel it when `watch` returns. What it raises comes out as it is."""
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_cancel_after, watch, nursery.cancel_scope)
        try:
            await body()
        except Exception as error:  # noqa: BLE001 - raised again below: the nursery would wrap it
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _cancel_after(watch: Callable[[], Awaitable[object]], scope: trio.CancelScope) -> None:
    await watch()
    scope.cancel()
