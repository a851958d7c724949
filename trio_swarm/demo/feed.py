"""The simulated board as a WebSocket feed of its own.

A client says `{"subscribe": ["*"]}` or names matches, and is answered `{"subscribed": [...]}`, the matches as they
stand, and then a frame whenever one of them changes; `{"unsubscribe": [...]}` ends it. Anything else is answered
`{"error": "..."}`.

What is waiting for a client is the newest frame of each match, never a queue: a frame is the whole match, so one that
was not sent yet is replaced by its successor. A slow client thus costs as many frames as there are matches, and holds
up nobody.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NoReturn

import attrs
import msgspec
import trio

from trio_swarm.demo.football import Frame
from trio_swarm.demo.simulation import Simulation
from trio_swarm.upstream.serving import ServedConnection, serve_stream

TICK_S = 0.25  # real seconds between two looks at the board
LONGEST_STEP_S = 1.0  # a machine that slept does not play a day at once
EVERY = "*"
CLIENTS = 100  # it is a feed for one hub, and for the curious beside it
WAITING = 200  # frames kept for one client; older matches go first, and there are never that many on the board
NAMED = 1_000  # matches that one client may name


class _Message(msgspec.Struct, forbid_unknown_fields=True):
    subscribe: list[str] = []
    unsubscribe: list[str] = []


@attrs.define(eq=False)
class _Client:
    """One connection: what it asked for, and what is on its way to it."""

    topics: set[str] = attrs.field(factory=set)
    frames: dict[str, bytes] = attrs.field(factory=dict)
    wake: trio.Event = attrs.field(factory=trio.Event)

    def offer(self, match: str, data: bytes) -> None:
        if match in self.topics or EVERY in self.topics:
            self.frames[match] = data
            if len(self.frames) > WAITING:
                del self.frames[next(iter(self.frames))]
            self.wake.set()

    def take(self) -> list[bytes]:
        waiting = list(self.frames.values())
        self.frames.clear()
        self.wake = trio.Event()
        return waiting


@attrs.define(eq=False)
class FeedServer:
    """The board and whoever reads it; `serve_feed` gives it a port."""

    simulation: Simulation
    now_ms: Callable[[], int]
    clients: set[_Client] = attrs.field(factory=set)

    async def tick(self) -> NoReturn:
        """Move the board on, for ever. A late tick is made up for."""
        last = trio.current_time()
        while True:
            await trio.sleep(TICK_S)
            now = trio.current_time()
            frames = self.simulation.step(
                min(now - last, LONGEST_STEP_S)
            )  # a machine that slept does not play a day at once
            last = now
            self.offer(frames, self.clients)

    def offer(self, frames: Iterable[Frame], clients: Iterable[_Client]) -> None:
        """Give these clients what they want of these frames."""
        at = self.now_ms()
        for frame in frames:
            data = msgspec.json.encode({**msgspec.to_builtins(frame), "at": at})
            for client in clients:
                client.offer(frame.match, data)

    async def serve(self, stream: trio.SocketStream) -> None:
        """One connection from its handshake to its end."""
        await serve_stream(stream, self.converse, refuse=503 if len(self.clients) >= CLIENTS else None)

    async def converse(self, connection: ServedConnection) -> None:
        """Hear and speak at the same time, until the peer has gone."""
        client = _Client()
        self.clients.add(client)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_speak, client, connection)
                while True:
                    answer = self.hear(client, await connection.receive())
                    await connection.send(msgspec.json.encode(answer).decode())
        except* trio.BrokenResourceError:
            pass  # the peer has gone
        finally:
            self.clients.remove(client)

    def hear(self, client: _Client, text: str | bytes) -> dict[str, object]:
        """Do what a client asks; the answer, which for a message that is none is the reason."""
        try:
            message = msgspec.json.decode(text, type=_Message)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return {"error": str(error)}
        if len(client.topics.union(message.subscribe)) > NAMED:
            return {"error": f"no more than {NAMED} matches may be named"}
        client.topics.difference_update(message.unsubscribe)
        client.topics.update(message.subscribe)
        wanted = set(message.subscribe)
        self.offer((frame for frame in self.simulation.board() if wanted & {frame.match, EVERY}), [client])
        return {"unsubscribed": message.unsubscribe} if message.unsubscribe else {"subscribed": message.subscribe}


async def _speak(client: _Client, connection: ServedConnection) -> NoReturn:
    while True:
        await client.wake.wait()
        for data in client.take():
            await connection.send(data.decode())


async def serve_feed(
    simulation: Simulation,
    now_ms: Callable[[], int],
    *,
    port: int = 0,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Serve the board on loopback until cancelled; reports the feed's URL.

    Args:
        simulation: the board; it moves only while it is served.
        now_ms: the wall clock; each frame carries what it said in `at`, by which a page can tell how long the way was.
        port: 0 for any that is free.
        task_status: is given the URL.
    """
    server = FeedServer(simulation, now_ms)
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_listeners, server.serve, listeners))
        task_status.started(f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/")
        await server.tick()
