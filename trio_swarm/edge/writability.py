"""One task waits for every socket that was full.

A client that reads slower than it is written to costs an entry in a table here, not a task. All such sockets stand in
one epoll object of ours, each registered for one report only (EPOLLONESHOT), and epoll objects are themselves
readable when something inside them is ready: so the one task waits, through Trio, for the epoll object. Trio's own
table never sees the sockets, hence Hypercorn may wait to write to the same socket at the same time.

What must hold: a callback runs at most once for each `watch`, never after `forget`, and never for a socket that took
over the number of a closed one. The kernel drops a closed socket from an epoll object by itself; `forget` before
closing drops our entry. An exception out of one callback ends nothing but that callback.

Where the kernel has no epoll, each full socket costs a task for as long as it is full.
"""

import select
from collections.abc import Callable

import structlog
import trio

log = structlog.get_logger()

MOST_AT_ONCE = 256  # callbacks between two checkpoints; each writes at most one payload's rest


def arm(epoll: "select.epoll", fd: int, event: int) -> None:
    """Have `epoll` report this event of `fd` once.

    Raises:
        OSError, ValueError: `fd` is not open, or `epoll` is closed.
    """
    try:
        # A number once registered stays so, disarmed, until its socket closes: arming again is the usual case.
        epoll.modify(fd, event | select.EPOLLONESHOT)
    except FileNotFoundError:
        epoll.register(fd, event | select.EPOLLONESHOT)


class Writability:
    """Tells when full sockets take bytes again; `run()` must be running for that."""

    __slots__ = ("_callbacks", "_epoll", "_nursery", "_waiting")

    def __init__(self) -> None:
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._epoll = select.epoll() if hasattr(select, "epoll") else None
        self._nursery: trio.Nursery | None = None
        self._waiting: dict[int, trio.CancelScope] = {}

    def __len__(self) -> int:
        """How many sockets are full now."""
        return len(self._callbacks)

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """Call `callback` once, as soon as `fd` takes bytes or has failed.

        Raises:
            OSError, ValueError: `fd` is not an open socket, or this object is closed.
        """
        if self._epoll is None:
            self._watch_by_task(fd, callback)
            return
        arm(self._epoll, fd, select.EPOLLOUT)
        self._callbacks[fd] = callback

    def forget(self, fd: int) -> None:
        """Never call back for `fd`; to be called before the socket closes. Idempotent, never raises."""
        if self._callbacks.pop(fd, None) is None:
            return
        if self._epoll is None:
            self._waiting.pop(fd).cancel()
            return
        try:
            self._epoll.unregister(fd)
        except (OSError, ValueError):
            log.debug("socket_closed_before_forgotten", fd=fd)

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; closes the epoll object at its end, after which `watch` raises ValueError."""
        if self._epoll is None:
            await self._run_tasks(task_status.started)
            return
        task_status.started()
        try:
            while True:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                for fd, _ in self._epoll.poll(0, MOST_AT_ONCE):
                    self._call(fd)
        finally:
            self._callbacks.clear()
            self._epoll.close()

    def _call(self, fd: int) -> None:
        callback = self._callbacks.pop(fd, None)
        if callback is None:
            return
        try:
            callback()
        except Exception:
            log.exception("socket_callback_failed")

    async def _run_tasks(self, started: Callable[[], None]) -> None:
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            self._callbacks.clear()
            self._waiting.clear()

    def _watch_by_task(self, fd: int, callback: Callable[[], None]) -> None:
        if self._nursery is None:
            raise ValueError("run() is not running")
        scope = trio.CancelScope()
        self._callbacks[fd] = callback
        self._waiting[fd] = scope
        self._nursery.start_soon(self._wait_one, fd, scope)

    async def _wait_one(self, fd: int, scope: trio.CancelScope) -> None:
        with scope:
            try:
                await trio.lowlevel.wait_writable(fd)
            except (OSError, trio.ClosedResourceError):
                log.debug("full_socket_failed", fd=fd)
        if self._waiting.get(fd) is scope:
            del self._waiting[fd]
            self._call(fd)
