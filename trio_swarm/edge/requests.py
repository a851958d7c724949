"""Requests that are answered once: publish, call, history, health.

Each reads all it needs, asks the object, and answers. A client that goes away while its object works cancels what has
not begun.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from trio_swarm.edge.answers import Receive, Scope, Send, send_counted, send_json
from trio_swarm.edge.bodies import media_type, read_body, while_there
from trio_swarm.edge.paths import Target
from trio_swarm.edge.publishing import JSON, read_publications
from trio_swarm.edge.queries import header, read_wanted
from trio_swarm.errors import InvalidArguments, InvalidMessage, InvalidName, Overloaded, RequestRefused, SwarmError
from trio_swarm.journal.event import Event
from trio_swarm.wire.messages import parse_arguments
from trio_swarm.wire.names import check_message_id

if TYPE_CHECKING:
    from trio_swarm.edge.app import Edge

BODY_SHARE = 0.8  # of `body_s`: the connection ends itself at the whole of it, and an answer comes before that
NOT_GIVEN = "this was done, but too many answers are on their way: its own is not given"
_log = structlog.get_logger("trio_swarm.edge")
_encode = msgspec.json.encode


async def publish(edge: "Edge", scope: Scope, receive: Receive, send: Send, target: Target) -> None:
    """`POST /v1/{kind}/{id}/publish`: one request, one turn, all or nothing."""
    reference = edge.directory.get(target.kind, target.id)
    limits = edge.settings.limits
    seconds = edge.settings.liveness.body_s * BODY_SHARE
    with edge.requests.share() as share:
        body = await read_body(scope, receive, share, limit=limits.body_bytes, seconds=seconds)
        if body is None:
            return
        drafts, message_id = read_publications(body, media_type(scope), limits.event_bytes)
        message_id = _idempotency_key(scope) or message_id

        async def work() -> bytes:
            published = await reference.publish(drafts, message_id=message_id)
            return _encode({"id": str(published.id), "count": published.count})

        answer = await while_there(receive, work)
        if answer is not None:
            await send_json(send, answer)


async def call(edge: "Edge", scope: Scope, receive: Receive, send: Send, target: Target) -> None:
    """`POST /v1/{kind}/{id}/call/{method}`: an array is positional, an object keywords, nothing is no arguments."""
    reference = edge.directory.get(target.kind, target.id)
    seconds = edge.settings.liveness.body_s * BODY_SHARE
    with edge.requests.share() as share:
        body = await read_body(scope, receive, share, limit=edge.settings.limits.body_bytes, seconds=seconds)
        if body is None:
            return
        if body and media_type(scope) != JSON:
            raise RequestRefused(415, "unsupported_media_type", f"arguments are {JSON}")
        given = _read_json(body, target) if body else None

        async def work() -> bytes:
            return _encode({"result": await ask(reference, target.method, given)})

        answer = await while_there(receive, work)
        if answer is None:
            return
        try:
            await send_counted(send, answer, edge.answers)
        except Overloaded:
            raise RequestRefused(500, "already_done", NOT_GIVEN) from None  # `busy` would have it done again


async def ask(reference: Any, method: str, given: Any) -> Any:
    """Call a method from outside; what the author's code raises is logged and stays here.

    Gives the answer's JSON, which was encoded in the turn, as `msgspec.Raw`.

    Raises:
        SwarmError: what the runtime says. RequestRefused with 500: the author's code raised.
    """
    args, kwargs = _arguments(reference.kind, method, given)
    try:
        return await reference.call(method, args, kwargs, outside=True)
    except SwarmError:
        raise
    except Exception as error:
        _log.exception("call_failed", object=reference.stream_name, method=method)
        raise RequestRefused(500, "object_error", "the object's code failed; it has been logged") from error


async def history(edge: "Edge", scope: Scope, _receive: Receive, send: Send, target: Target) -> None:
    """`GET /v1/{kind}/{id}/history`: what the journal holds, ascending."""
    wanted = read_wanted(scope, edge.settings.limits.topics_per_subscription)
    reference = edge.directory.get(target.kind, target.id)
    answer = _tell(*await reference.history(wanted.topics, wanted.since, wanted.limit))
    await send_counted(send, answer, edge.answers)


async def healthz(_edge: "Edge", _scope: Scope, _receive: Receive, send: Send, _target: Target) -> None:
    """The process turns its loop."""
    await send_json(send, b'{"status":"ok"}')


async def readyz(edge: "Edge", _scope: Scope, _receive: Receive, send: Send, _target: Target) -> None:
    """It takes new clients, and what their requests change is kept."""
    if not edge.accepting:
        answer = b'{"status":"not ready","reason":"shutting_down"}'
    elif edge.directory.storage.trouble is not None:
        answer = b'{"status":"not ready","reason":"storage_error"}'
    else:
        await send_json(send, b'{"status":"ready"}')
        return
    await send_json(send, answer, status=503, headers=((b"retry-after", b"1"),))


def _tell(events: Sequence[Event], gap: bool) -> bytes:  # noqa: FBT001 - as `history` gives them
    """Encode a history. No frame that waits holds the events: the journal may forget them meanwhile."""
    return _encode({"events": [_plain(event) for event in events], "gap": gap})


def _plain(event: Event) -> dict[str, Any]:
    return {
        "id": str(event.id),
        "topic": event.topic,
        "event": event.type,
        "offset": event.offset,
        "data": msgspec.Raw(event.data),
    }


def _arguments(kind: str, method: str, given: Any) -> tuple[list[Any], dict[str, Any]]:
    if given is None:
        return [], {}
    if isinstance(given, list):
        return given, {}
    if isinstance(given, dict):
        return [], given
    raise InvalidArguments(kind, method, "give an array for positional arguments, or an object for keywords")


def _read_json(body: bytes, target: Target) -> Any:
    try:
        return parse_arguments(body)
    except InvalidMessage as error:
        raise InvalidArguments(target.kind, target.method, str(error)) from None


def _idempotency_key(scope: Scope) -> str | None:
    raw = header(scope, b"idempotency-key")
    if raw is None:
        return None
    try:
        return check_message_id(raw.decode())
    except UnicodeDecodeError:
        raise InvalidName("Idempotency-Key", raw.decode("latin-1"), "it is not UTF-8") from None
