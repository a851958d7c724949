"""One task wakes the connections from which something can be read, so many at a time.

Trio wakes all of them in one pass of its loop. With thousands that drip, each byte to be read and handled, such a pass
takes a quarter of a second, and a stream that is to be written to waits for its end. Here the connections stand in one
epoll object of ours, as full sockets do in writability.py, and a pass takes no more of them than MOST_A_PASS. The
kernel gives them in turn: who was woken comes after all others that are ready.

What must hold: a task that waits is woken once, by its own socket and not by one that took over the number of a closed
one. `wake` before closing lets the one that waits see that it is closed.

Where the kernel has no epoll, or nobody runs this, connections wait in Trio as ever.
"""

import errno
import select
from typing import Any, Final

import trio

from trio_swarm.edge.writability import arm

MOST_A_PASS: Final = 64  # of about 0.1 ms each: 6 ms before everything else has its turn


class Readability:
    """Tells when there is something to read; `run()` must be running for that."""

    __slots__ = ("_epoll", "_waiting")

    def __init__(self) -> None:
        self._epoll: Any = None
        self._waiting: dict[int, trio.lowlevel.Task] = {}

    def __len__(self) -> int:
        """How many tasks wait."""
        return len(self._waiting)

    async def wait(self, sock: trio.socket.SocketType) -> None:
        """Wait until the socket has bytes, or its end, or an error; or until `wake`. It may be for nothing.

        Cancelled, it is as if nobody had waited. At most one task may wait for a socket.

        Raises:
            OSError, ValueError: it is not an open socket.
        """
        fd = sock.fileno()
        if fd < 0:
            raise OSError(errno.EBADF, "the socket is closed")  # Trio would take -1 for a number like any other
        if self._epoll is None:
            await trio.lowlevel.wait_readable(sock)
            return
        arm(self._epoll, fd, select.EPOLLIN)
        task = self._waiting[fd] = trio.lowlevel.current_task()

        def leave(_: Any) -> trio.lowlevel.Abort:
            if self._waiting.get(fd) is task:  # else the number is another socket's already
                del self._waiting[fd]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)

    def wake(self, fd: int) -> None:
        """Wake the task that waits for a socket which is about to be closed. Never raises."""
        task = self._waiting.pop(fd, None)
        if task is not None:
            trio.lowlevel.reschedule(task)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; those that wait then are woken, and wait in Trio from there on."""
        if not hasattr(select, "epoll"):
            task_status.started()
            return
        with select.epoll() as epoll:
            self._epoll = epoll
            task_status.started()
            try:
                while True:
                    await trio.lowlevel.wait_readable(epoll.fileno())
                    for fd, _ in epoll.poll(0, MOST_A_PASS):
                        self.wake(fd)
            finally:
                self._epoll = None
                for fd in tuple(self._waiting):
                    self.wake(fd)
