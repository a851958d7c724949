"""Answers over HTTP, and the one table that says which error is which status, code and sentence.

The same table serves WebSockets. What an author's code raised, and what a store said, stays inside: the client gets a
code and a sentence of ours, the log gets the rest.
"""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from http import HTTPStatus
from math import ceil
from typing import Any

import attrs
import msgspec
import structlog
from starlette.exceptions import HTTPException

from trio_swarm.bounded.allowance import Allowance, Share
from trio_swarm.errors import (
    CallCycle,
    CallerError,
    FeedUnavailable,
    InvalidMessage,
    LimitError,
    NotPublishable,
    ObjectError,
    ObjectFailed,
    Overloaded,
    RequestRefused,
    StorageError,
    SwarmClosed,
    SwarmError,
    TooLarge,
    TooManyObjects,
    TooManyStreams,
    TooManyTopics,
    TurnTimeout,
    UnknownKind,
    UnknownMethod,
    UnknownObject,
)
from trio_swarm.settings import SMALL_ANSWER_BYTES

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Sequence[tuple[bytes, bytes]]

BUSY_RETRY_S = 5  # a hint where nothing better is known
MOST_WORDS = 400  # characters of a sentence: some quote what was sent, such as the name of an argument

_log = structlog.get_logger("trio_swarm.edge")

# The most special class that matches decides.
_STATUS: dict[type[BaseException], int] = {
    CallerError: 400,
    TooLarge: 413,
    UnknownKind: 404,
    UnknownObject: 404,
    UnknownMethod: 404,
    NotPublishable: 403,
    CallCycle: 500,  # the objects' authors made the circle, not the client
    LimitError: 503,
    TooManyTopics: 400,
    TooManyStreams: 400,
    TooManyObjects: 429,
    ObjectError: 503,
    StorageError: 503,
    SwarmClosed: 503,
    FeedUnavailable: 503,
}

_OWN_WORDS: dict[type[BaseException], str] = {
    CallCycle: "the objects behind this wait for each other",
    ObjectFailed: "the object failed and will be tried again",
    TurnTimeout: "the object took too long and was restarted",
    ObjectError: "the object restarted before this was safe; nothing of it is kept",
    StorageError: "the store is not available",
    FeedUnavailable: "the feed is not available",
}


@attrs.frozen
class Trouble:
    """An error as a client sees it."""

    status: int
    code: str
    message: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


def trouble(error: BaseException) -> Trouble:
    """What a client is told about an error; what it is not told is logged."""
    if isinstance(error, RequestRefused):
        return Trouble(error.status, error.named, error.reason, error.headers)
    if isinstance(error, HTTPException):
        phrase = HTTPStatus(error.status_code).phrase
        given = tuple((k.encode(), v.encode()) for k, v in (error.headers or {}).items())
        code = phrase.lower().replace(" ", "_").replace("'", "")
        return Trouble(error.status_code, code, error.detail or phrase, given)
    kind = next((cls for cls in type(error).__mro__ if cls in _STATUS), None)
    if kind is None or not isinstance(error, SwarmError):
        _log.error("unexpected_error", exc_info=error)
        return Trouble(500, "internal", "something went wrong here; it has been logged")
    status = _STATUS[kind]
    hidden = next((_OWN_WORDS[cls] for cls in type(error).__mro__ if cls in _OWN_WORDS), None)
    if hidden is not None:
        _log.warning("request_failed", code=error.code, error=str(error))
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if status in {429, 503}:
        after = getattr(error, "retry_after_s", BUSY_RETRY_S)
        headers = ((b"retry-after", b"%d" % max(1, ceil(after))),)
    code = error.error_code if isinstance(error, InvalidMessage) else error.code
    return Trouble(status, code, (hidden or str(error))[:MOST_WORDS], headers)


async def send_trouble(send: Send, problem: Trouble) -> None:
    """Answer with an error."""
    body = msgspec.json.encode({"error": {"code": problem.code, "message": problem.message}})
    await send_json(send, body, status=problem.status, headers=problem.headers)


def count_shared(share: Share, payload: bytes) -> None:
    """As `count_answer`, of bytes that are the same ones for all who are given them.

    Raises:
        Overloaded: together they hold too much.
    """
    if len(payload) > SMALL_ANSWER_BYTES and not share.hold(payload):
        raise Overloaded(share.limit, what="answers on their way")


def count_answer(share: Share, size: int) -> None:
    """Count an answer among those on their way, unless it is small; whoever holds the share gives it back.

    Raises:
        Overloaded: together they hold too much.
    """
    if size > SMALL_ANSWER_BYTES and not share.take(size):
        raise Overloaded(share.limit, what="answers on their way")


async def send_counted(send: Send, body: bytes, answers: Allowance) -> None:
    """Answer with JSON of whatever size, which is counted until the host has taken it.

    Raises:
        Overloaded: the answers on their way hold too much; nothing has been sent.
    """
    with answers.share() as share:
        count_answer(share, len(body))
        await send_json(send, body)


async def send_json(send: Send, body: bytes, *, status: int = 200, headers: Headers = ()) -> None:
    """Answer with JSON that is encoded already."""
    fixed = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": [*fixed, *headers]})
    await send({"type": "http.response.body", "body": body, "more_body": False})
