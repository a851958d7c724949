"""An upstream that does what a script says: the other end of a feed, for tests.

    upstream = ScriptedUpstream([Refuse(), Hang(), Good(seconds=3), Silence()])
    async with trio.open_nursery() as nursery:
        await nursery.start(upstream.run)
        feed = WebSocketFeed(upstream.settings(topics=("a",)), opener=upstream.open)

Each connection gets the next behaviour of the script, and `then` when it has run out. A well-behaved connection
**sends only what was subscribed** on it. It runs over memory streams (`run` and `open`, under a mock clock) or on
real sockets (`serve`, `url`).

Its language is `jsonfeed`: `{"op":"subscribe","topics":[…]}` and `{"op":"unsubscribe",…}`, each answered with an
`ack`; events are `{"topic","sequence","value"}`, numbered by topic on each connection from 1.
"""

from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, NoReturn

import attrs
import msgspec
import trio
import trio.testing

from trio_swarm.settings import FeedSettings
from trio_swarm.upstream.serving import ServedConnection, serve_stream

UNDECODABLE_FRAMES: tuple[str | bytes, ...] = ("not JSON", '{"topic":', "[1,]", b"\xff\xfe", '{"topic":"a,b"}')


@attrs.frozen
class Refuse:
    """Nobody listens (on a real socket: hangs up at once)."""


@attrs.frozen
class Reject:
    """Answers the handshake with an HTTP status."""

    status: int = 503


@attrs.frozen
class Hang:
    """Takes the connection, and never answers the handshake."""


@attrs.frozen
class HangUp:
    """Takes the connection, and closes it in the middle of the handshake."""


@attrs.frozen
class Answer:
    """Answers the handshake with these bytes, and nothing else."""

    data: bytes = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


@attrs.frozen
class Good:
    """Behaves; after `seconds`, if given, closes with `code`."""

    seconds: float | None = None
    code: int = 1001


@attrs.frozen
class Vanish:
    """Behaves for `seconds`; then the byte stream ends without a goodbye."""

    seconds: float = 0.0


@attrs.frozen
class Silence:
    """Behaves for `seconds`; then neither reads nor writes, and keeps the connection."""

    seconds: float = 0.0


@attrs.frozen
class Corrupt:
    """Shakes hands, waits for a message, then sends bytes that are no frame."""

    data: bytes = b"\xff\xff\xff\xff"


@attrs.frozen
class Garbage:
    """Sends frames that are no JSON of a feed; then behaves like `Good`."""

    frames: tuple[str | bytes, ...] = UNDECODABLE_FRAMES
    seconds: float | None = None


@attrs.frozen
class Flood:
    """Sends `frames` events of the topic `flood`, subscribed or not, at once; then behaves like `Good`."""

    frames: int = 1_000
    seconds: float | None = None


Behaviour = Refuse | Reject | Hang | HangUp | Answer | Good | Vanish | Silence | Corrupt | Garbage | Flood


@attrs.define(eq=False)
class UpstreamConnection:
    """One connection, as the upstream sees it.

    Attributes:
        behaviour: what it was told to do.
        at: when it came, on Trio's clock.
        topics: subscribed now.
        received: every text that came, in order.
        open: whether it is still there.
    """

    behaviour: Behaviour
    at: float
    topics: set[str] = attrs.field(factory=set)
    received: list[str] = attrs.field(factory=list)
    open: bool = True
    _sequences: Counter[str] = attrs.field(factory=Counter)
    _outbox: deque[str] = attrs.field(factory=deque)
    _filled: trio.Event = attrs.field(factory=trio.Event)

    def offer(self, topic: str, value: Any) -> None:
        """Send an event, if this connection subscribed to its topic."""
        if self.open and topic in self.topics:
            self.push(topic, value)

    def push(self, topic: str, value: Any) -> None:
        """Send an event, subscribed or not."""
        self._sequences[topic] += 1
        self._put({"topic": topic, "sequence": self._sequences[topic], "value": value})

    def hear(self, text: str) -> None:
        """Take a message of the client's."""
        self.received.append(text)
        message = msgspec.json.decode(text)
        topics = set(message["topics"])
        if message["op"] == "subscribe":
            self.topics |= topics
        else:
            self.topics -= topics
        self._put({"ack": message["op"], "topics": message["topics"]})

    async def write(self, connection: ServedConnection) -> NoReturn:
        """Send what was put, for ever."""
        while True:
            while self._outbox:
                await connection.send(self._outbox.popleft())
            self._filled = trio.Event()
            await self._filled.wait()

    def _put(self, message: dict[str, Any]) -> None:
        self._outbox.append(msgspec.json.encode(message).decode())
        self._filled.set()


class ScriptedUpstream:
    """See the module.

    Args:
        script: what the connections do, in the order in which they come.
        then: what all later ones do.
        lockstep: memory streams that take nothing before it is read, for tests of backpressure.
    """

    def __init__(
        self, script: Iterable[Behaviour] = (), *, then: Behaviour | None = None, lockstep: bool = False
    ) -> None:
        self.url = "ws://upstream.test/feed"
        self.connections: list[UpstreamConnection] = []
        self.open_streams = 0  # byte streams that the other side has not closed
        self._script = deque(script)
        self._then = Good() if then is None else then
        self._lockstep = lockstep
        self._nursery: trio.Nursery | None = None
        self._changed = trio.Event()

    @property
    def attempts(self) -> list[float]:
        """When each connection was tried."""
        return [connection.at for connection in self.connections]

    @property
    def topics(self) -> set[str]:
        """What is subscribed on any open connection."""
        return set[str]().union(*(connection.topics for connection in self.connections if connection.open))

    def settings(self, name: str = "scripted", **more: Any) -> FeedSettings:
        """A feed's settings that fit this upstream."""
        return FeedSettings(
            name=name,
            url=self.url,
            subscribe='{"op":"subscribe","topics":{topics}}',
            unsubscribe='{"op":"unsubscribe","topics":{topics}}',
            topic_path="topic",
            sequence_path="sequence",
            skip=("ack",),
            **more,
        )

    def publish(self, topic: str, value: Any = None) -> None:
        """Send an event on every connection that subscribed to its topic."""
        for connection in self.connections:
            connection.offer(topic, value)

    async def wait_until(self, condition: Callable[["ScriptedUpstream"], bool]) -> None:
        """Wait until something holds of this upstream; looked at when connections, messages or subscriptions change."""
        while not condition(self):
            await self._changed.wait()

    async def wait_topics(self, *topics: str) -> None:
        """Wait until exactly these are subscribed."""
        await self.wait_until(lambda upstream: upstream.topics == set(topics))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """Be there, until cancelled."""
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            await trio.sleep_forever()

    async def serve(self, *, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> NoReturn:
        """Be there on a real socket of the loopback; reports the URL."""
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(trio.serve_listeners, self._serve_socket, listeners))
            self.url = f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/feed"
            task_status.started(self.url)
            await trio.sleep_forever()

    async def open(self, url: str) -> trio.abc.Stream:
        """An opener for feeds: one end of a pair of memory streams.

        Raises:
            OSError: the script says so.
        """
        if url != self.url or self._nursery is None:
            raise OSError(f"nobody listens at {url}")
        await trio.lowlevel.checkpoint()
        connection = self._next()
        if isinstance(connection.behaviour, Refuse):
            connection.open = False
            raise ConnectionRefusedError("connection refused")
        pair = trio.testing.lockstep_stream_pair() if self._lockstep else trio.testing.memory_stream_pair()
        self.open_streams += 1
        self._nursery.start_soon(self._serve, connection, pair[1])
        return _Counted(pair[0], self)

    def _next(self) -> UpstreamConnection:
        behaviour = self._script.popleft() if self._script else self._then
        connection = UpstreamConnection(behaviour, trio.current_time())
        self.connections.append(connection)
        self._change()
        return connection

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _serve_socket(self, stream: trio.SocketStream) -> None:
        await self._serve(self._next(), stream)

    async def _serve(self, connection: UpstreamConnection, stream: trio.abc.Stream) -> None:
        muted = _Mutable(stream)
        behaviour = connection.behaviour
        try:
            match behaviour:
                case Refuse():
                    pass
                case Hang():
                    await _until_gone(stream)
                case HangUp() | Answer():
                    await stream.receive_some()
                    if isinstance(behaviour, Answer):
                        await stream.send_all(behaviour.data)
                        await _until_gone(stream)
                case Reject(status):
                    await serve_stream(stream, ServedConnection.drain, refuse=status)
                case _:
                    await serve_stream(muted, partial(self._behave, connection, muted))
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the other side went first
        finally:
            connection.open = False
            await trio.aclose_forcefully(stream)
            self._change()

    async def _behave(self, connection: UpstreamConnection, stream: "_Mutable", served: ServedConnection) -> None:
        behaviour = connection.behaviour
        match behaviour:
            case Good(seconds, code):
                await self._talk(connection, served, seconds)
                await served.close(code, "as the script says")
            case Vanish(seconds):
                await self._talk(connection, served, seconds)
                await trio.aclose_forcefully(stream)
            case Silence(seconds):
                await self._talk(connection, served, seconds)
                stream.mute()
                await served.drain()
            case Corrupt(data):
                await served.receive()
                await stream.send_all(data)
                await served.drain()
            case Garbage(frames, seconds):
                for frame in frames:
                    await served.send(frame)
                await self._talk(connection, served, seconds)
            case Flood(frames, seconds):
                for number in range(frames):
                    connection.push("flood", number)
                await self._talk(connection, served, seconds)

    async def _talk(self, connection: UpstreamConnection, served: ServedConnection, seconds: float | None) -> None:
        with trio.CancelScope() as scope:
            if seconds is not None:
                scope.deadline = trio.current_time() + seconds
            broken = False
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_broken, partial(connection.write, served), nursery.cancel_scope)
                try:
                    while True:
                        connection.hear(str(await served.receive()))
                        self._change()
                except trio.BrokenResourceError:
                    broken = True
                    nursery.cancel_scope.cancel()
            if broken:
                raise trio.BrokenResourceError


async def _until_gone(stream: trio.abc.Stream) -> None:
    while await stream.receive_some():
        pass


async def _until_broken(send: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
    try:
        await send()
    except trio.BrokenResourceError:
        scope.cancel()


class _Wrapped(trio.abc.Stream):
    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await self._stream.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        return await self._stream.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Counted(_Wrapped):
    """The feed's end: an upstream knows how many were never closed."""

    def __init__(self, stream: trio.abc.Stream, upstream: ScriptedUpstream) -> None:
        super().__init__(stream)
        self._upstream: ScriptedUpstream | None = upstream

    async def aclose(self) -> None:
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.open_streams -= 1
        await super().aclose()


class _Mutable(_Wrapped):
    """The upstream's end: from `mute` on nothing passes, although nothing is closed."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        super().__init__(stream)
        self._muted = False

    def mute(self) -> None:
        self._muted = True

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        if self._muted:
            await trio.sleep_forever()
        await super().send_all(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        data = await super().receive_some(max_bytes)
        while self._muted and data:  # what came is lost; an end is noticed, so that nothing is left behind
            data = await super().receive_some(max_bytes)
        return data
