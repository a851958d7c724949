"""What a supervisor (systemd, or what speaks as it does) is told: ready, reloading, stopping, alive.

The protocol is one datagram of `NAME=value` lines to the socket that `NOTIFY_SOCKET` names. Where nobody asked, nothing
is said; where nobody listens any more, neither: a service does not end because its supervisor is gone.
"""

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

import trio

_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
PATIENCE_S: Final = 1.0  # with a supervisor whose queue is full: a state that it misses it waits for in vain
_A_WATCHDOG_LIMIT: Final = 3  # signs of life in the time after which the supervisor acts: two may be late


class Supervision:
    """The way to the supervisor. Its variables leave the environment, so that children do not speak in our name."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        self._variables = {name: environment.pop(name) for name in _VARIABLES if name in environment}

    def ready(self) -> None:
        """The service can be used, also after a reload, done or refused."""
        self._tell(f"READY=1\nMAINPID={os.getpid()}")

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        self._tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end begins."""
        self._tell("STOPPING=1")

    async def watch(self) -> None:
        """Show until cancelled that Trio's loop turns, where the supervisor watches this process."""
        seconds = self._watchdog_s()
        while seconds is not None:
            self._tell("WATCHDOG=1", patience_s=0.0)
            await trio.sleep(seconds / _A_WATCHDOG_LIMIT)

    def hand_over(self, environment: MutableMapping[str, str]) -> None:
        """Give the variables back, for the next image of this process."""
        environment.update(self._variables)

    def _watchdog_s(self) -> float | None:
        microseconds = self._variables.get("WATCHDOG_USEC", "")
        if self._variables.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            return None
        if not microseconds.isascii() or not microseconds.isdigit() or int(microseconds) == 0:
            return None
        return int(microseconds) / 1e6

    def _tell(self, message: str, patience_s: float = PATIENCE_S) -> None:
        address = self._variables.get("NOTIFY_SOCKET", "")
        if address.startswith("@"):  # Linux's abstract names
            address = f"\0{address[1:]}"
        if not address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.settimeout(patience_s)
            sock.sendto(message.encode(), address)
