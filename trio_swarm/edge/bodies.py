"""The body of a request: whole, within its limit, in time, or not at all."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from trio_swarm.bounded.allowance import Share
from trio_swarm.edge.answers import Receive, Scope, trouble
from trio_swarm.edge.queries import header
from trio_swarm.errors import Overloaded, RequestRefused, SwarmError, TooLarge

VALUE_BYTES: Final = 110  # of a decoded value beside its text: an empty list 72, a line's draft 140

T = TypeVar("T")


def weight(text: bytes | str) -> int:
    """What a request costs in memory while it is under way, about, in bytes.

    Its text, what is made of it, and an object for each value: `[[],[],…]` is 25 times as large when it is decoded.
    """
    if isinstance(text, bytes):
        return 2 * len(text) + VALUE_BYTES * (text.count(b",") + text.count(b"\n"))
    return 2 * len(text) + VALUE_BYTES * text.count(",")


async def read_body(scope: Scope, receive: Receive, share: Share, *, limit: int, seconds: float) -> bytes | None:
    """Read a request's body; None when the client went away.

    Args:
        scope: whose head may tell how long it is.
        receive: gives the parts.
        share: of what all requests under way may hold: what this one weighs, until the caller gives it back.
        limit: bytes.
        seconds: until it has to be whole.

    Raises:
        RequestRefused: it has more than `limit` bytes (said before they are read, where its head tells), or was not
            whole after `seconds`.
        Overloaded: all requests under way hold too much.
    """
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and (len(declared) > 18 or int(declared) > limit):
        raise _given_up(scope, TooLarge("a body", limit))
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
                raise _given_up(scope, TooLarge("a body", limit))
            if not share.take(len(part)):
                raise _given_up(scope, Overloaded(share.limit))
            parts.append(part)
            if not message.get("more_body", False):
                body = b"".join(parts)
                if not share.take(weight(body) - size):
                    raise Overloaded(share.limit)
                return body
    raise _given_up(scope, RequestRefused(408, "too_slow", f"the body was not whole after {seconds:g} s"))


def _given_up(scope: Scope, error: SwarmError) -> RequestRefused:
    """An answer that comes before the rest of its request, so that the connection ends with it: it says so."""
    told = trouble(error)
    last = ((b"connection", b"close"),) if scope["http_version"] == "1.1" else ()
    return RequestRefused(told.status, told.code, told.message, (*told.headers, *last))


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
    try:
        if failure is not None:
            raise failure
    finally:
        del failure  # it holds this frame by its traceback: a cycle, and in it the connection
    return answer


def media_type(scope: Scope) -> str:
    """The request's media type without its parameters, in lower case; empty where it gives none."""
    value = header(scope, b"content-type") or b""
    return value.decode("latin-1").partition(";")[0].strip().lower()
