"""`GET /v1/ws`: one WebSocket, many streams.

The client's task reads every message as soon as it comes, because a host whose application does not read passes on
neither pongs nor closes. A message that needs no waiting is dealt with at once. One that does (an object has to
answer) opens a nursery for as long as it takes: a second task goes on reading, and what it reads waits in line, in
order, up to a limit in number and bytes. When the line is empty the nursery is gone again, so that an idle client
costs one task.

Whatever is written goes through the transport, which gives turns: an answer never lands inside an event, and a client
that does not read is stalled, not queued for.
"""

from collections import deque
from typing import Any

import attrs
import trio

from trio_swarm.bounded.allowance import Allowance, Share
from trio_swarm.bounded.window import Window
from trio_swarm.edge.answers import Message, Scope, Send
from trio_swarm.edge.bodies import weight
from trio_swarm.edge.clients import Client, House
from trio_swarm.errors import InvalidMessage, Overloaded
from trio_swarm.fanout.encoding import WS_FRAMES, WS_TEXTS, Encoding
from trio_swarm.fanout.subscription import Subscription
from trio_swarm.settings import Limits
from trio_swarm.wire import messages
from trio_swarm.wire.frames import ping_frame, text_frame

BAD_MESSAGES = 9  # in a minute are answered; the tenth ends the connection: a client in a loop
BAD_MESSAGES_S = 60.0
MOST_WAITING = 1_000  # requests behind the one under way, and `body_bytes` of them: more is a flood
BUSY_ANSWERS = 16  # in line, while all requests under way hold too much: who goes on asking is closed

_PING = ping_frame()
_JSON_PING = ('{"type":"ping"}',)


@attrs.frozen
class Close:
    """The connection is to be closed."""

    code: int
    reason: str


@attrs.frozen
class Gone:
    """The client has closed, or is gone."""


Request = (
    messages.Subscribe
    | messages.Unsubscribe
    | messages.BatchSubscribe
    | messages.BatchUnsubscribe
    | messages.Publish
    | messages.Call
    | messages.Ping
)
Work = Request | bytes  # bytes: an answer that only has to be written
Item = Work | Close | Gone


class WebSocketClient(Client):
    """One WebSocket; see the module. What is asked for is done by `edge/conversation.py`."""

    __slots__ = ("_bad", "_limits", "closing", "encoding", "heard_at", "subscriptions")
    kind = "websocket"

    def __init__(self, scope: Scope, send: Send, house: House, limits: Limits) -> None:
        super().__init__(scope, send, house)
        self._limits = limits
        self._bad: Window | None = None  # made at the first bad message
        self.closing = False
        self.encoding: Encoding = WS_FRAMES if self.is_direct else WS_TEXTS
        self.heard_at = self.since
        self.subscriptions: dict[str, Subscription] = {}

    @property
    def streams(self) -> list[str]:
        """See `Client.streams`."""
        return list(self.subscriptions)

    @property
    def readers(self) -> list[Subscription]:
        """See `Client.readers`."""
        return list(self.subscriptions.values())

    def pack(self, message: bytes) -> Any:
        """One JSON message as the transport takes it."""
        return text_frame(message) if self.is_direct else (message.decode(),)

    def weigh(self, answer: bytes) -> int:
        """What an answer costs until the client has taken it: itself, and what `pack` and the host make of it."""
        if self.is_direct:
            return 2 * len(answer)
        return len(answer) * (3 if answer.isascii() else 6)

    def go_through_host(self) -> None:
        """See `Client.go_through_host`."""
        super().go_through_host()
        self.encoding = WS_TEXTS

    def count_reading(self, requests: Allowance) -> None:
        """Count messages that are not whole yet among all that requests hold, where the connection is ours."""
        if self.connection is not None:
            self.connection.reading = requests.share()

    def beat(self, now: float) -> None:  # noqa: ARG002
        """A ping; a client that has a payload on its way gets none."""
        if self.transport.ready and not self.closing:
            ping: Any = _PING if self.is_direct else _JSON_PING
            self.transport.write(ping)

    def is_silent(self, now: float, seconds: float) -> bool:
        """Whether not a byte has come: pings are answered by every WebSocket client that lives."""
        if self.closing:
            return False  # whoever closes it has a limit of their own
        return now - max(self.heard_at, self.transport.last_byte_at or 0.0) > seconds

    def close_subscriptions(self) -> None:
        """See `Client.close_subscriptions`."""
        while self.subscriptions:
            self.subscriptions.popitem()[1].close()

    async def say_goodbye(self, code: int, reason: str, retry_ms: int) -> None:
        """Close with a code; while shutting down the reason says when to come back."""
        if self.closing:
            return
        self.closing = True
        self.why = self.why or reason
        self.close_subscriptions()
        try:
            await self.transport.drained()
        except trio.BrokenResourceError:
            return
        self.transport.detach()
        words = f"{reason}; retry_ms={retry_ms}" if retry_ms else reason
        await self.send({"type": "websocket.close", "code": code, "reason": words})

    async def wait_ready(self) -> None:
        """Wait until the transport takes a payload, which the caller then writes before anything else can.

        Raises:
            trio.BrokenResourceError: it is closed.
        """
        while not self.transport.ready:
            await self.transport.drained()

    # Reading

    def take(self, message: Message) -> Item | None:
        """Look at what the host received; None when there is nothing left to do about it."""
        if message["type"] == "websocket.disconnect":
            return Gone()
        if message["type"] != "websocket.receive" or self.closing:
            return None
        self.heard_at = trio.current_time()
        text = message.get("text")
        if text is None:
            return Close(1003, "messages are text")
        limit = self._limits.message_bytes
        if len(text) > limit or (len(text) * 4 > limit and len(text.encode(errors="replace")) > limit):
            return Close(1009, f"a message has at most {limit} bytes")
        return self._read(text)

    def _read(self, text: str) -> Item | None:
        try:
            parsed = messages.parse(text)
        except InvalidMessage as error:
            if self._bad is None:
                self._bad = Window(BAD_MESSAGES, BAD_MESSAGES_S)
            if self._bad.hit(self.heard_at):
                return Close(4500, "too many messages that cannot be read")
            return messages.error(error.message_id, error.error_code, str(error))
        if isinstance(parsed, messages.Pong):
            return None
        if isinstance(parsed, messages.Ping):
            return self.write_now(messages.pong(parsed.message_id))
        return parsed

    def write_now(self, answer: bytes) -> bytes | None:
        """Write an answer if that needs no waiting; else give it back."""
        if not self.transport.ready:
            return answer
        self.transport.write(self.pack(answer))
        return None


class Line:
    """What waits behind the request under way: bounded in number and bytes."""

    __slots__ = ("_bytes", "_items", "_most_bytes", "_share", "_under_way", "end")

    def __init__(self, most_bytes: int, share: Share) -> None:
        self.end: Close | Gone | None = None  # what the conversation ends with
        self._share = share  # of what all requests under way may hold
        self._items: deque[tuple[Work, int, int]] = deque()  # with the text's size, and its weight
        self._bytes = 0
        self._most_bytes = most_bytes
        self._under_way = 0

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Work, text: str) -> bool:
        """Add at the end what this text was; False when there is no room.

        Raises:
            Overloaded: there is none in the whole service.
        """
        size = len(text)
        if len(self._items) >= MOST_WAITING or self._bytes + size > self._most_bytes:
            return False
        heavy = weight(text)
        if not self._share.take(heavy):
            if len(self._items) >= BUSY_ANSWERS:
                return False
            raise Overloaded(self._share.limit)
        self._items.append((item, size, heavy))
        self._bytes += size
        return True

    def put_answer(self, answer: bytes) -> None:
        """Add an answer in place of what there was no room for."""
        self._items.append((answer, 0, 0))

    def next(self) -> Work:
        """Take the first."""
        self._share.give(self._under_way)
        item, size, self._under_way = self._items.popleft()
        self._bytes -= size
        return item

    def clear(self) -> None:
        """Nobody waits for the rest."""
        self._items.clear()
        self._bytes = 0
