"""Recording a session with a feed into a capture."""

import os
from collections.abc import Sequence

import trio

from trio_swarm.errors import FeedUnavailable
from trio_swarm.settings import UpstreamSettings
from trio_swarm.upstream.capture import CaptureWriter, Direction, check_new
from trio_swarm.upstream.websocket import Connection, Opener, connect, open_stream


class Recorder:
    """One recording; its figures can be read at every moment.

    Attributes:
        frames: written so far, both ways.
        binary: frames that came and that a capture, being text, cannot hold.
        connected: whether the connection came up; before that there is no file.
        ended: why the feed ended it, if it did.
    """

    def __init__(
        self,
        url: str,
        path: str | os.PathLike[str],
        *,
        name: str,
        send: Sequence[str] = (),
        settings: UpstreamSettings | None = None,
        opener: Opener = open_stream,
    ) -> None:
        self._url = url
        self._path = path
        self._name = name
        self._send = send
        self._settings = settings or UpstreamSettings()
        self._opener = opener
        self.frames = 0
        self.seconds = 0.0
        self.binary = 0
        self.connected = False
        self.ended: str | None = None

    async def run(self, seconds: float | None = None) -> None:
        """Connect, send, and write down what comes, until the feed ends it or `seconds` are over.

        Cancelled, it leaves a complete capture of what came so far.

        Raises:
            FeedUnavailable: the connection did not come up.
            InvalidCapture: the file exists, or cannot be written.
        """
        check_new(self._path)
        async with connect(self._name, self._url, settings=self._settings, opener=self._opener) as connection:
            with CaptureWriter(self._path, name=self._name, url=self._url) as writer, trio.CancelScope() as scope:
                if seconds is not None:
                    scope.deadline = trio.current_time() + seconds
                self.connected = True
                try:
                    await self._write_down(connection, writer)
                except FeedUnavailable as error:
                    self.ended = error.reason

    async def _write_down(self, connection: Connection, writer: CaptureWriter) -> None:
        start = trio.current_time()
        for text in self._send:
            await connection.send(text)
            self._write(writer, trio.current_time() - start, "out", text)
        while True:
            frame = await connection.receive()
            if isinstance(frame, str):
                self._write(writer, trio.current_time() - start, "in", frame)
            else:
                self.binary += 1

    def _write(self, writer: CaptureWriter, t: float, direction: Direction, data: str) -> None:
        writer.write(t, direction, data)
        self.frames = writer.frames
        self.seconds = writer.seconds
