"""Listening sockets that outlive a process: taken from whoever started it, and handed to the next image of it.

One protocol for both, systemd's: descriptors from 3 on, `LISTEN_FDS` says how many, `LISTEN_PID` for whom (a child that
inherits the environment by accident must not take them), `LISTEN_FDNAMES` what they are called. As long as one process
holds such a socket a connect is never refused: it waits in the kernel's backlog until somebody accepts it.
"""

import fcntl
import os
import socket
from collections.abc import MutableMapping, Sequence
from typing import Final

import attrs

from trio_swarm.edge.listeners import join_address
from trio_swarm.errors import SettingsError

OURS: Final = "trio-swarm-reload"  # the name of a socket that the image before this one had opened by itself

_FIRST: Final = 3  # behind the standard streams, as the protocol says
_TCP: Final = (socket.AF_INET, socket.AF_INET6)  # what clients and limits by address are made for
_WHERE: Final = "LISTEN_FDS"
_VARIABLES: Final = ("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


@attrs.frozen
class Inherited:
    """One listening socket that was open before this program began."""

    sock: socket.socket
    name: str

    @property
    def is_ours(self) -> bool:
        """Whether it follows our own settings; else whoever runs this program has said where to listen."""
        return self.name == OURS


def take_inherited(environment: MutableMapping[str, str]) -> list[Inherited]:
    """The sockets that were handed to this process; none where there are none.

    The variables leave the environment and the descriptors are closed in children: nobody takes them twice.

    Raises:
        SettingsError: a descriptor does not listen for TCP.
    """
    count, pid, names = (environment.pop(name, "") for name in _VARIABLES)
    if pid != str(os.getpid()) or not count.isascii() or not count.isdigit():
        return []
    named = names.split(":") if names else []
    found = []
    for index in range(int(count)):
        descriptor = _FIRST + index
        name = named[index] if index < len(named) else "unknown"
        found.append(Inherited(_listening(descriptor), name))
    return found


def hand_over(listeners: Sequence[Inherited], environment: MutableMapping[str, str]) -> None:
    """Put the sockets where the next image of this process looks for them. The caller goes on with `exec`, or ends."""
    first_free = _FIRST + len(listeners)  # none of them may stand where another one is about to be put
    moved = [fcntl.fcntl(each.sock.fileno(), fcntl.F_DUPFD_CLOEXEC, first_free) for each in listeners]
    for target, descriptor in enumerate(moved, _FIRST):
        os.dup2(descriptor, target, inheritable=True)
    values = (str(len(listeners)), str(os.getpid()), ":".join(each.name for each in listeners))
    environment.update(zip(_VARIABLES, values, strict=True))


def describe_address(sock: socket.socket) -> str:
    """Where a socket listens, as `bind` would say it."""
    return join_address(*sock.getsockname()[:2])


def _listening(descriptor: int) -> socket.socket:
    try:
        os.set_inheritable(descriptor, False)
        sock = socket.socket(fileno=descriptor)
        accepts = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise SettingsError(_WHERE, f"descriptor {descriptor} is no socket: {error.strerror}") from error
    if not accepts or sock.type != socket.SOCK_STREAM or sock.family not in _TCP:
        sock.close()
        raise SettingsError(_WHERE, f"descriptor {descriptor} does not listen for TCP")
    return sock
