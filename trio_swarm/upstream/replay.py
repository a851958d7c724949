"""A capture played as a live feed: each connection gets the whole of it, on a clock of its own.

The clock of a connection starts with its first text message, where the recorded client sent something, and stands
then at the time of the first `out` frame; otherwise it starts with the handshake, at 0. `out` frames are not sent,
and what a client subscribes to filters nothing. After the last frame the connection stays open and answers pings.
"""

from functools import partial

import structlog
import trio

from trio_swarm.upstream.capture import Capture, CapturedFrame
from trio_swarm.upstream.serving import ServedConnection, serve_stream

log = structlog.get_logger(__name__)


class Replay:
    """Plays one capture to any number of connections.

    Args:
        capture: what to play.
        speed: seconds of the capture in one second.
        loop: after the last frame, begin again.
        once: after the last frame, close with 1000; `serve` then returns.
    """

    def __init__(self, capture: Capture, *, speed: float = 1.0, loop: bool = False, once: bool = False) -> None:
        if not speed > 0:
            raise ValueError(f"a capture is played at a speed above 0, not {speed}")
        if loop and once:
            raise ValueError("a capture is played in a loop, or once")
        self.capture = capture
        self.connections = 0  # open now
        self.played = 0  # whole plays
        self._frames: list[CapturedFrame] = capture.incoming
        out = capture.outgoing
        self._waits = bool(out)
        self._zero = out[0].t if out else 0.0
        self._speed = speed
        self._loop = loop
        self._once = once

    async def play(self, connection: ServedConnection) -> bool:
        """Play to one connection, until the peer has gone, or with `once` to the end. Was it played to the end?"""
        self.connections += 1
        played = False
        try:
            async with trio.open_nursery() as nursery:
                if self._waits:
                    while not isinstance(await connection.receive(), str):
                        pass
                nursery.start_soon(connection.drain)
                await self._play_frames(connection)
                played = True
                while self._loop:
                    await self._play_frames(connection)
                if self._once:
                    nursery.cancel_scope.cancel()
        except* trio.BrokenResourceError:
            log.info("replay_client_left")
        finally:
            self.connections -= 1
        return played

    async def serve(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled, or with `once` until one connection has had the whole capture.

        Raises:
            OSError: the address cannot be bound.
        """
        listeners = await trio.open_tcp_listeners(port, host=host)
        async with trio.open_nursery() as nursery:
            handler = partial(self._serve_one, nursery.cancel_scope)
            await nursery.start(partial(trio.serve_listeners, handler, listeners))
            bound = listeners[0].socket.getsockname()
            name = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
            task_status.started(f"ws://{name}:{bound[1]}")

    async def _serve_one(self, server: trio.CancelScope, stream: trio.SocketStream) -> None:
        played = False

        async def play(connection: ServedConnection) -> None:
            nonlocal played
            played = await self.play(connection)

        await serve_stream(stream, play)
        if self._once and played:
            server.cancel()

    async def _play_frames(self, connection: ServedConnection) -> None:
        start = trio.current_time()
        for frame in self._frames:
            due = start + max(0.0, frame.t - self._zero) / self._speed
            if due > trio.current_time():
                await trio.sleep_until(due)
            await connection.send(frame.data)
        if not self._frames:
            await trio.sleep(1.0)  # a loop over nothing must not spin
        self.played += 1
