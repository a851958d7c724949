"""The body of a request: whole, within its limit, in time, or not at all."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from trio_swarm.edge.answers import Receive, Scope
from trio_swarm.edge.queries import header
from trio_swarm.errors import RequestRefused, TooLarge

T = TypeVar("T")


async def read_body(scope: Scope, receive: Receive, *, limit: int, seconds: float) -> bytes | None:
    """Read a request's body; None when the client went away.

    Raises:
        TooLarge: it has more than `limit` bytes (said before they are read, where its head tells).
        RequestRefused: it was not whole after `seconds`.
    """
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
        raise TooLarge("a body", limit)
    parts: list[bytes] = []
    size = 0
    # The deadline stands around `receive` alone: cancelling a `send` can lose what the host has to say.
    with trio.move_on_after(seconds):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            size += len(part)
            if size > limit:
                raise TooLarge("a body", limit)
            parts.append(part)
            if not message.get("more_body", False):
                return b"".join(parts)
    raise RequestRefused(408, "too_slow", f"the body was not whole after {seconds:g} s")


async def while_there(receive: Receive, work: Callable[[], Awaitable[T]]) -> T | None:
    """Await `work()`, cancelled when the client goes away: nobody is left to answer. None then.

    The whole request has been read before, so whatever `receive` still says is that it is over.
    """
    answer: T | None = None
    failure: Exception | None = None

    async def watch(scope: trio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch, nursery.cancel_scope)
        try:
            answer = await work()
        except Exception as error:  # noqa: BLE001 - raised again below, outside the nursery, which would wrap it
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return answer


def media_type(scope: Scope) -> str:
    """The request's media type without its parameters, in lower case; empty where it gives none."""
    value = header(scope, b"content-type") or b""
    return value.decode("latin-1").partition(";")[0].strip().lower()
