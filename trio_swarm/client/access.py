"""How a client reaches a service: what it says of itself, how it opens a byte stream, how long it is patient."""

import socket
import ssl

import attrs
import trio

from trio_swarm.errors import ServiceRefused, ServiceUnavailable
from trio_swarm.settings import MIB, UpstreamSettings
from trio_swarm.upstream.unreachable import causes, why_unreachable
from trio_swarm.upstream.websocket import Opener, open_stream, parse_url

EVENT_BYTES = 16 * MIB  # four times the largest event that a feed brings in: snapshots are larger than events

# A server that is not ours may be silent for hours. Whether it is there, the kernel finds out: after 30 s of silence it
# asks, three times, 10 s apart. Where a system calls these otherwise, its own numbers hold.
_KEEPALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))


@attrs.frozen
class Access:
    """The same for every connection of a client.

    Attributes:
        headers: sent with every request: a proxy's token, a cookie.
        opener: gives the byte stream to a `ws:` or `wss:` URL's host; a test gives its own, and runs in virtual time.
        settings: the deadlines and the backoff: towards a service, a client is what a feed is towards its upstream.
    """

    headers: tuple[tuple[str, str], ...] = ()
    opener: Opener = open_stream
    settings: UpstreamSettings = attrs.Factory(UpstreamSettings)

    async def open(self, url: str) -> trio.abc.Stream:
        """Open the byte stream to the host of an `http:`, `https:`, `ws:` or `wss:` URL.

        Raises:
            ServiceUnavailable: nobody is there.
            ServiceRefused: its certificate is not to be trusted.
        """
        if url.startswith("http"):
            url = "ws" + url.removeprefix("http")
        try:
            stream = await self.opener(url)
        except (OSError, UnicodeError, trio.BrokenResourceError) as error:
            raise _told(parse_url(url).header, error) from error
        _keep_alive(stream)
        return stream


def _keep_alive(stream: trio.abc.Stream) -> None:
    if isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if isinstance(stream, trio.SocketStream):
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            if hasattr(socket, name):
                stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _told(host: str, error: BaseException) -> ServiceUnavailable | ServiceRefused:
    for each in causes(error):
        if isinstance(each, ssl.SSLCertVerificationError):
            return ServiceRefused(f"the certificate of {host} cannot be trusted: {each.verify_message}")
    return ServiceUnavailable(f"cannot connect to {host}: {why_unreachable(error)}", uncertain=False)
