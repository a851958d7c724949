"""Listening sockets, and what is set on a socket so that the kernel helps.

- `TCP_NODELAY`: an event leaves when it is written, not 40 ms later.
- `TCP_USER_TIMEOUT`: the kernel ends a connection whose bytes nobody acknowledges, so that a peer that lost its power
  is noticed without a byte of ours being refused.
- `TCP_NOTSENT_LOWAT`: a socket counts as full once this much waits unsent, so that what a slow client has not got
  stays in the shared journal and not in a buffer of its own.

Accepted sockets inherit all three on Linux. `tune` sets them again where the listening socket was made by somebody
else.
"""

import contextlib
import ipaddress
import socket
from typing import Protocol

from trio_swarm.errors import SettingsError
from trio_swarm.settings import RANGE_BYTES

BACKLOG = 4096  # a whole service's clients come back at once after a restart
KERNEL_SHARE = 1.5  # of the stall limit: ours first, which can say why
NOTSENT_BYTES = 2 * RANGE_BYTES  # one range on its way and one behind it


class _Tunable(Protocol):
    def getsockopt(self, level: int, option: int, /) -> int: ...

    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...


def tune(sock: _Tunable, stall_s: float) -> None:
    """Set the options above on one TCP socket; left out where the kernel, or the kind of socket, does not have them."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_BYTES)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(stall_s * KERNEL_SHARE * 1000)))


def tuned(sock: _Tunable) -> bool:
    """Did the socket inherit the options? One question for all; true where there is nothing to ask about."""
    try:
        return not hasattr(socket, "TCP_USER_TIMEOUT") or bool(
            sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        )
    except OSError:
        return True


def parse_bind(bind: str) -> tuple[str, int]:
    """Split `host:port` or `[v6]:port`.

    Raises:
        SettingsError: it is neither.
    """
    host, colon, port = bind.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise SettingsError("bind", f"{bind!r} is not HOST:PORT, such as 127.0.0.1:8000 or [::1]:8000")
    if ":" in host and not bracketed:
        raise SettingsError("bind", f"write {bind!r} as [{host}]:{port}")
    return (host[1:-1] if bracketed else host), int(port)


def join_address(host: str, port: int) -> str:
    """The other way round: `host:port`, or `[v6]:port`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(bind: str) -> bool:
    """Is every address that `bind` can mean one of this machine's own?"""
    host, _ = parse_bind(bind)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def addresses(bind: str) -> list[tuple[str, int]]:
    """Every address that `bind` means at this moment, with its port.

    Raises:
        SettingsError: it is malformed.
        OSError: the name is unknown.
    """
    host, port = parse_bind(bind)
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((str(address[0]), port) for *_, address in found))


def open_listeners(bind: str, *, stall_s: float = 30.0) -> list[socket.socket]:
    """Open a listening, non-blocking socket for every address of `bind`; with port 0 all get the same free port.

    Raises:
        SettingsError: the address is malformed, unknown or taken; nothing stays open.
    """
    host, port = parse_bind(bind)
    opened: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            opened.append(sock)
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            tune(sock, stall_s)
            sock.bind((address[0], port, *address[2:]))
            port = sock.getsockname()[1]
            sock.listen(BACKLOG)
    except OSError as error:
        for sock in opened:
            sock.close()
        raise SettingsError("bind", f"cannot listen on {bind}: {error.strerror or error}") from error
    return opened
