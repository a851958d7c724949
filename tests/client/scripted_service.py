"""A service that does what a script says, one act a connection, over memory streams or on a real socket.

It shares no code with the client: requests are read by h11, WebSockets spoken by trio-websocket's server side.
"""

import json
import socket
import ssl
import struct
from collections import deque
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import h11
import trio
import trio.testing

from trio_swarm.client.access import Access
from trio_swarm.settings import UpstreamSettings
from trio_swarm.upstream.serving import serve_stream

CERTIFICATE = str(Path(__file__).parents[1] / "edge" / "localhost.pem")
SSE = {"content-type": "text/event-stream"}


@attrs.define
class Peer:
    """One connection, whose request has been read."""

    stream: trio.abc.Stream
    method: str
    target: str
    headers: dict
    body: bytes

    async def send(self, text):
        await self.stream.send_all(text.encode() if isinstance(text, str) else text)

    async def answer(self, status, headers=None, body=""):
        head = f"HTTP/1.1 {status} Said\r\n" + "".join(f"{k}: {v}\r\n" for k, v in (headers or {}).items())
        await self.send(f"{head}content-length: {len(body.encode())}\r\n\r\n{body}")

    async def begin(self, headers=SSE):
        """The head of a stream; its body ends with the connection."""
        await self.send("HTTP/1.1 200 OK\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n")

    async def until_gone(self):
        try:
            while await self.stream.receive_some(65536):
                pass
        except trio.BrokenResourceError:
            pass

    async def reset(self):
        """End it so that the other side is told of an error."""
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(self.stream)


# -- acts


def stream(*pieces, hold=False, headers=SSE, pause=0.0):
    """Server-sent events, in these pieces; then the end, or silence."""

    async def act(peer):
        await peer.begin(headers)
        for piece in pieces:
            await peer.send(piece)
            await trio.sleep(pause)
        if hold:
            await peer.until_gone()

    return act


def answers(status, headers=None, body=""):
    async def act(peer):
        await peer.answer(status, headers, body)

    return act


def trouble(status, code, message, **headers):
    body = json.dumps({"error": {"code": code, "message": message}})
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return answers(status, {"content-type": "application/json", **fields}, body)


def published(id="1-1", count=1):
    return answers(200, {"content-type": "application/json"}, json.dumps({"id": id, "count": count}))


async def never_answers(peer):
    await peer.until_gone()


async def half_a_head(peer):
    await peer.send("HTTP/1.1 200 OK\r\ncontent-ty")
    await peer.until_gone()


async def hangs_up(_peer):
    pass


class Refuses:
    """Nobody listens; memory streams only."""


class WebSocket:
    """An act on a WebSocket: `await talk(connection)`, or the handshake refused with `status`."""

    def __init__(self, talk=None, status=None):
        self.talk = talk
        self.status = status


def hello(position, *more):
    """What a service of ours says first."""
    line = "" if any(piece.startswith("event: gap") for piece in more) else f"id: {position}\n"
    return f'{line}event: hello\ndata: {{"client":"x-1"}}\n\n' + "".join(more)


def gap(after, before):
    return f'event: gap\nid: {before}\ndata: {{"after":"{after}","before":"{before}"}}\n\n'


def event(id, data, type=None):
    return f"id: {id}\n" + (f"event: {type}\n" if type else "") + f"data: {data}\n\n"


# -- the service


class ScriptedService:
    """Attributes: `peers` are the requests so far, `times` when their connections were tried."""

    def __init__(self, *script, then=None):
        self.script = deque(script)
        self.then = then
        self.peers = []
        self.times = []
        self.url = "http://service.test/v1/channel/a/events"
        self.open_streams = 0
        self._nursery = None

    @property
    def last_ids(self):
        return [peer.headers.get("last-event-id") for peer in self.peers]

    def access(self, **limits):
        """For memory streams."""
        return Access(opener=self._open, settings=UpstreamSettings(**limits))

    async def _open(self, url):
        assert url.startswith("ws"), url
        await trio.lowlevel.checkpoint()
        act = self._next()
        if act is Refuses:
            raise ConnectionRefusedError(111, "Connection refused")
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._serve, act, theirs)
        return ours

    def _next(self):
        self.times.append(trio.current_time())
        act = self.script.popleft() if self.script else self.then
        assert act is not None, "more connections than the script has acts"
        return act

    async def _accept(self, stream):
        await self._serve(self._next(), stream)

    async def _serve(self, act, stream):
        self.open_streams += 1
        try:
            if isinstance(act, WebSocket):
                await serve_stream(stream, act.talk, refuse=act.status)
            else:
                peer = await read_request(stream)
                if peer is not None:
                    self.peers.append(peer)
                    await act(peer)
        except (trio.BrokenResourceError, trio.ClosedResourceError, h11.RemoteProtocolError):
            pass  # the client went first, or speaks something else
        finally:
            self.open_streams -= 1
            await trio.aclose_forcefully(stream)

    async def all_closed(self, seconds=5):
        """Wait until the client has closed every connection."""
        with trio.fail_after(seconds):
            while True:
                if not self.open_streams:
                    return
                await trio.sleep(0.01)

    @asynccontextmanager
    async def running(self, *, tls=False, real=False):
        """Be there for the time of a block."""
        async with trio.open_nursery() as self._nursery:
            if real:
                (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
                host = f"127.0.0.1:{listener.socket.getsockname()[1]}"
                self.url = f"http{'s' if tls else ''}://{host}/v1/channel/a/events"
                if tls:
                    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
                    context.load_cert_chain(CERTIFICATE)
                    listener = trio.SSLListener(listener, context, https_compatible=True)
                await self._nursery.start(trio.serve_listeners, self._accept, [listener])
            yield self
            self._nursery.cancel_scope.cancel()


async def read_request(stream):
    connection = h11.Connection(h11.SERVER)
    request, body = None, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(65536))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            headers = {name.decode(): value.decode() for name, value in request.headers}
            return Peer(stream, request.method.decode(), request.target.decode(), headers, body)
        else:
            return None
