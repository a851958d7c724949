"""HTTP/1.1 as far as a client of streams needs it: one request at a time, and a body that comes in pieces.

It stands on h11 and not on a whole HTTP client, because a stream is left in the middle, and that is where those leak
under Trio: nested async generators that nobody finishes, and the socket of a TLS handshake that was cancelled.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit

import attrs
import h11
import trio

from trio_swarm.client.access import Access
from trio_swarm.client.coming_back import after_status, read_headers
from trio_swarm.errors import ServiceRefused, ServiceUnavailable
from trio_swarm.settings import KIB
from trio_swarm.upstream.websocket import parse_url

_READ_BYTES = 64 * KIB
_HEAD_BYTES = 64 * KIB  # as much as servers and proxies let through
_ERROR_BYTES = 64 * KIB  # of an answer that is read for its sentence only
_ERROR_S = 5.0
_NO_ANSWER = "the service hung up before it answered"
_MAYBE_TLS = "; if it speaks TLS, the URL begins with https:"  # a TLS server hangs up so


@attrs.frozen
class Head:
    """A response has begun. `headers` have lower-case names; of several of one name the last is here."""

    status: int
    headers: dict[str, str]

    @property
    def media(self) -> str:
        """The body's type, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class HttpConnection:
    """An open connection. Whoever opens it closes it."""

    def __init__(self, url: str, stream: trio.abc.Stream, headers: Sequence[tuple[str, str]]) -> None:
        self._stream = stream
        self._host = parse_url("ws" + url.removeprefix("http")).header
        self._headers = headers
        self._begun = False  # a response has
        self._mute = url.startswith("http:")  # not a byte came, and it is not TLS that was spoken
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=_HEAD_BYTES)

    @classmethod
    async def open(cls, url: str, access: Access) -> Self:
        """Connect to a URL's host. Cancelled, it leaves nothing.

        Raises:
            ServiceUnavailable, ServiceRefused: as `Access.open`.
        """
        return cls(url, await access.open(url), access.headers)

    async def ask(
        self, method: str, url: str, headers: Sequence[tuple[str, str | bytes]] = (), body: bytes = b""
    ) -> Head:
        """Send a request, and wait until its response begins. Cancelled, the connection is of no further use.

        Raises:
            ServiceUnavailable: it broke off, or what came is not HTTP.
        """
        parts = urlsplit(url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        fields: list[tuple[str, str | bytes]] = [("host", self._host), *self._headers, *headers]
        if body:
            fields.append(("content-length", str(len(body))))
        data = self._h11.send(h11.Request(method=method, target=target, headers=_encoded(fields))) or b""
        if body:
            data += self._h11.send(h11.Data(data=body)) or b""
        data += self._h11.send(h11.EndOfMessage()) or b""
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            raise ServiceUnavailable("the service hung up") from None
        while isinstance(event := await self._next(), h11.InformationalResponse):
            pass
        if not isinstance(event, h11.Response):
            raise ServiceUnavailable(self._no_answer())
        return Head(event.status_code, read_headers(event.headers))

    async def next_piece(self) -> bytes:
        """The next piece of the body as it arrives; empty at its end. Cancelled, nothing is lost.

        Raises:
            ServiceUnavailable: it broke off.
        """
        event = await self._next()
        return bytes(event.data) if isinstance(event, h11.Data) else b""

    async def read_body(self, most: int) -> bytes:
        """The body, or its beginning if it is longer than `most`.

        Raises:
            ServiceUnavailable: it broke off.
        """
        body = b""
        while len(body) < most and (piece := await self.next_piece()):
            body += piece
        return body[:most]

    async def refusal(self, head: Head) -> ServiceUnavailable | ServiceRefused:
        """What a response means that is not the one hoped for."""
        body = b""
        with trio.move_on_after(_ERROR_S), suppress(ServiceUnavailable):  # the status is here, and says enough
            body = await self.read_body(_ERROR_BYTES)
        return after_status(head.status, head.headers, body)

    def again(self) -> bool:
        """Make ready for another request, if the service lets it."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        self._begun = False
        return True

    async def aclose(self) -> None:
        """Close, without a goodbye."""
        await trio.aclose_forcefully(self._stream)

    async def _next(self) -> object:
        ended = False
        try:
            while (event := self._h11.next_event()) is h11.NEED_DATA:
                data = await self._stream.receive_some(_READ_BYTES)
                ended = not data
                self._mute = self._mute and ended
                self._h11.receive_data(bytes(data))
        except trio.BrokenResourceError:
            raise ServiceUnavailable(self._no_answer() if self._mute else "the connection broke off") from None
        except h11.RemoteProtocolError as error:
            if not ended:
                raise ServiceUnavailable(f"the service does not speak HTTP as it should: {error}") from error
            raise ServiceUnavailable("the connection broke off" if self._begun else self._no_answer()) from None
        self._begun = True
        return event

    def _no_answer(self) -> str:
        return _NO_ANSWER + (_MAYBE_TLS if self._mute else "")


def _encoded(fields: Sequence[tuple[str, str | bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode() if isinstance(value, str) else value) for name, value in fields]
