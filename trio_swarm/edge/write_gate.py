"""Whose turn it is to write to one socket: the host's, or the direct transport's.

Two parties write to the same socket. Hypercorn writes from tasks, may wait, and must not have anything land between
the pieces of what it writes. The direct transport writes from anywhere (the broadcaster, a callback), never waits,
and what the kernel did not take of a frame is still to come, so nothing may land there either. A `trio.Lock` belongs
to a task; this gate belongs to none.

What must hold:
- the host enters only when nothing of a direct frame is outstanding, hosts in the order in which they asked;
- the direct side is not `ready` from the moment a host asks until the last host has left: a host is never overtaken;
- a host that is cancelled while it waits leaves no trace.
"""

from typing import Protocol

import trio


class DirectSide(Protocol):
    """What the gate needs of a direct transport."""

    ready: bool

    @property
    def outstanding(self) -> bool:
        """Is a part of a frame written and the rest not yet?"""

    def gate_opened(self) -> None:
        """The hosts have left; write again."""


class WriteGate:
    """See the module. `direct` is set while a direct transport shares the socket."""

    __slots__ = ("_busy", "_hosts", "direct")

    def __init__(self) -> None:
        self._busy = False
        self._hosts: trio.lowlevel.ParkingLot | None = None  # made when first needed: most connections never wait
        self.direct: DirectSide | None = None

    @property
    def open(self) -> bool:
        """May the direct side begin a frame?"""
        return not self._busy and not self._hosts

    async def enter(self) -> None:
        """Wait for the host's turn; pair with `leave`. Cancelled: the turn was not taken."""
        direct = self.direct
        if direct is not None:
            direct.ready = False
        if not self._busy and not self._hosts and (direct is None or not direct.outstanding):
            self._busy = True
            return
        if self._hosts is None:
            self._hosts = trio.lowlevel.ParkingLot()
        try:
            await self._hosts.park()  # whoever unparks us has made the turn ours
        except trio.Cancelled:
            self._reopen()
            raise

    def leave(self) -> None:
        """End the host's turn: the next host's, or the direct side's."""
        if self._hosts:
            self._hosts.unpark()
            return
        self._busy = False
        self._reopen()

    def settled(self) -> None:
        """The direct side says that its frame is out whole."""
        if self._hosts and not self._busy:
            self._busy = True
            self._hosts.unpark()
            return
        self._reopen()

    def _reopen(self) -> None:
        if self.direct is not None and self.open and not self.direct.outstanding:
            self.direct.gate_opened()
