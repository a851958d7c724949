"""One connection of the WebSocket protocol, with all its streams.

All are asked for in one message, and whether they come is one answer. Each stream has its own position, which lives on
when the connection does not.
"""

import contextlib
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import trio
import trio_websocket

from trio_swarm.client.access import EVENT_BYTES, Access
from trio_swarm.client.coming_back import after_close, after_error, after_status, read_headers
from trio_swarm.client.happenings import Connected, Event, Gap, Problem, Snapshot, Status
from trio_swarm.client.way import Tell
from trio_swarm.errors import FeedUnavailable, InvalidPosition, ServiceRefused, ServiceUnavailable
from trio_swarm.journal.event import EventId
from trio_swarm.upstream.websocket import Connection, connect
from trio_swarm.wire.messages import Subscription

_ABNORMAL = 1006  # nobody said goodbye
_PONG = '{"type":"pong"}'

T = TypeVar("T")


class _Range(msgspec.Struct):
    after: str
    before: str


class _Opening(msgspec.Struct):
    """The data of `subscribed`."""

    stream: str
    id: str
    gap: _Range | None = None
    snapshot: msgspec.Raw = msgspec.Raw()


class _Said(msgspec.Struct):
    """Whatever the service says; fields that its type does not have keep their defaults."""

    type: str
    message_id: str | None = msgspec.field(name="messageId", default=None)
    stream: str | None = None
    topic: str = ""
    event: str = "message"
    id: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")
    code: str = ""
    message: str = ""


class _Results(msgspec.Struct):
    results: list[_Said]


_decode = msgspec.json.Decoder(_Said).decode


class WebSocketWay:
    """Reads some streams of a service, over one connection at a time, and remembers each one's position between them.

    Args:
        url: the service's WebSocket.
        subscriptions: the streams, each with its topics and where it begins.
        access: how the service is reached.
    """

    retry_s: float | None = None  # said with each close, and for that one only

    def __init__(self, url: str, subscriptions: Sequence[Subscription], *, access: Access) -> None:
        self._url = url
        self._wanted = {each.stream: each for each in subscriptions}
        self._access = access

    async def read(self, tell: Tell) -> None:
        """See `Way.read`."""
        try:
            async with connect(
                "service",
                self._url,
                settings=self._access.settings,
                opener=self._access.open,
                frame_bytes=EVENT_BYTES,
                headers=self._access.headers,
                peer="the service",
            ) as connection:
                await self._subscribe(connection, tell)
                while True:
                    await self._take(connection, await connection.receive(), tell)
        except FeedUnavailable as error:
            raise _judged(error) from error

    async def _subscribe(self, connection: Connection, tell: Tell) -> None:
        wanted = [_plain(each) for each in self._wanted.values()]
        request = {"type": "batch_subscribe", "messageId": "1", "data": {"subscriptions": wanted}}
        answer: _Said | None = None
        with trio.move_on_after(self._access.settings.connect_s):
            await connection.send(msgspec.json.encode(request).decode())
            answer = await self._answer(connection)
        if answer is None:
            raise ServiceUnavailable(f"no answer within {self._access.settings.connect_s:g} s")
        openings = [_opened(each) for each in _parsed(answer.data, _Results).results]
        if sorted(opening.stream for opening in openings) != sorted(self._wanted):
            raise ServiceRefused("this is no service of ours: it answers for other streams than were asked for")
        await tell(Connected())
        for opening in openings:
            if opening.gap is not None:
                await tell(Gap(opening.stream, opening.gap.after, opening.gap.before))
            if bytes(opening.snapshot):
                await tell(Snapshot(opening.stream, opening.id, bytes(opening.snapshot).decode()))
            self._move(opening.stream, opening.id)

    async def _answer(self, connection: Connection) -> _Said:
        while True:
            said = _read(await connection.receive())
            if said.type == "error":
                raise after_error(said.code, said.message)
            if said.type == "batch_subscribed":
                return said
            if said.type != "ping":
                raise ServiceRefused(f"this is no service of ours: it says {said.type[:40]!r}")
            await _pong(connection)

    async def _take(self, connection: Connection, frame: str | bytes, tell: Tell) -> None:
        said = _read(frame)
        stream = said.stream
        match said.type:
            case "event" if stream in self._wanted:
                if self._is_new(stream, said.id):
                    await tell(Event(stream, said.id, said.topic, said.event, bytes(said.data).decode()))
                    self._move(stream, said.id)
            case "gap" if stream in self._wanted:
                missing = _parsed(said.data, _Range)
                await tell(Gap(stream, missing.after, missing.before))
                self._move(stream, said.id)
            case "snapshot" if stream in self._wanted:
                await tell(Snapshot(stream, said.id, bytes(said.data).decode()))
                self._move(stream, said.id)
            case "status":
                await tell(Status(stream, bytes(said.data).decode()))
            case "error":
                await tell(Problem(stream, said.code, said.message))
            case "ping":
                await _pong(connection)
            case _:
                pass  # newer services may say more

    def _is_new(self, stream: str, id: str) -> bool:
        since = self._wanted[stream].since
        try:
            return since is None or EventId.parse(id) > EventId.parse(since)
        except InvalidPosition as error:
            raise ServiceRefused(f"this is no service of ours: {error}") from error

    def _move(self, stream: str, id: str) -> None:
        self._wanted[stream] = msgspec.structs.replace(self._wanted[stream], since=id)


async def _pong(connection: Connection) -> None:
    with contextlib.suppress(FeedUnavailable):  # what came before the end is read first, and then the end
        await connection.send(_PONG)


def _plain(subscription: Subscription) -> dict[str, Any]:
    """As a message has it: what is None is not said."""
    fields = {"stream": subscription.stream, "topics": subscription.topics, "since": subscription.since}
    return {name: value for name, value in fields.items() if value is not None}


def _read(frame: str | bytes) -> _Said:
    try:
        return _decode(frame)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ServiceRefused(f"this is no service of ours: {error}") from error


def _parsed(data: msgspec.Raw, type_: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=type_)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise ServiceRefused(f"this is no service of ours: {error}") from error


def _opened(answer: _Said) -> _Opening:
    """The opening of one stream; that of one is that of all."""
    if answer.type == "error":
        raise after_error(answer.code, answer.message)
    return _parsed(answer.data, _Opening)


def _judged(error: FeedUnavailable) -> ServiceUnavailable | ServiceRefused:
    """What the end of the connection means for coming back."""
    match error.__cause__:
        case trio_websocket.ConnectionRejected() as rejected:
            return after_status(rejected.status_code, read_headers(rejected.headers), rejected.body or b"")
        case trio_websocket.ConnectionClosed(reason=reason) if reason is not None and reason.code != _ABNORMAL:
            return after_close(reason.code, reason.reason or "")
    return ServiceUnavailable(error.reason)
