"""The two ways out to a client: straight to the socket (direct.py), or through ASGI `send`.

Both are fan-out's `Sink`: one payload at a time, `write` never waits, `ready` says whether the next may come,
`on_ready` that it may again. Beside that the edge has words of its own for the client (answers, a greeting): `send`
waits for its turn. Turns are given in order, those who wait in `send` before the broadcaster, so that a flood of
events cannot keep an answer back for ever.

States of a transport:
    ready              takes a payload now
    not ready, open    a payload's rest is on its way (`blocked_since`), or the host writes (see write_gate.py)
    closed             takes nothing ever again: detached (the host goes on with the socket), aborted, or the peer is
                       gone. The rest of a payload begun before `detach` still goes out: the host's next byte must not
                       land inside it.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final, Literal, Protocol

import structlog
import trio

from trio_swarm.edge.headway import Writes
from trio_swarm.edge.reasons import GONE, STALLED
from trio_swarm.edge.write_gate import WriteGate

KEY: Final = "trio_swarm.connection"  # where an application finds its connection in its scope's `state`
DETACHED: Final = "detached"  # why a transport is closed that was given up here, with the client still there

log = structlog.get_logger()


class Connection(Protocol):
    """What a transport needs of the connection below it; `edge/connection.py` has the real one."""

    gate: WriteGate
    writes: Writes  # the host's, which may wait behind ours
    last_byte_at: float | None
    send_now: Callable[[bytes | memoryview], int]  # like `socket.send`: without waiting; BlockingIOError, OSError

    def fileno(self) -> int:
        """The socket's number now; -1 when it is closed."""

    def abort(self, reason: str) -> None:
        """Close the socket by force and end all that belongs to it; calls `DirectTransport.lost`."""


class _Turn:
    """Somebody waiting in `send` or `drained` (which has no payload)."""

    __slots__ = ("payload", "task")

    def __init__(self, payload: Any) -> None:
        self.payload = payload
        self.task = trio.lowlevel.current_task()


class Transport(ABC):
    """What both ways share; see the module."""

    __slots__ = ("_began", "_ended", "_size", "_turns", "blocked_since", "closed", "closed_by", "on_ready", "ready")

    def __init__(self) -> None:
        self.ready = True
        self.on_ready: Callable[[], None] | None = None
        self.closed = False
        self.closed_by = ""
        self.blocked_since: float | None = None  # trio time of the last headway of a payload that is not out yet
        self._began = 0.0  # trio time at which that payload was written, and
        self._size = 0  # what was owed then; on a host that shows no headway, the bytes of the message under way
        self._turns: deque[_Turn] | None = None  # both made when first needed: an idle client has neither
        self._ended: trio.Event | None = None

    @property
    @abstractmethod
    def last_byte_at(self) -> float | None:
        """Trio time of the last byte received from the peer, None where the host does not tell."""

    @abstractmethod
    def fault(self, now: float, stall_s: float, bytes_per_s: float) -> str:
        """Judge a client that is owed bytes: why it is to be cut off (see headway.py); empty while it is not."""

    @abstractmethod
    def write(self, payload: Any) -> None:
        """Take one payload, without waiting; only while `ready`. Never raises; does nothing once closed."""

    @abstractmethod
    def abort(self, reason: str) -> None:
        """End this client at once and for good. Idempotent, never raises."""

    @abstractmethod
    def detach(self) -> None:
        """Take no payload ever again, and leave the connection alone. Idempotent."""

    async def send(self, payload: Any) -> None:
        """Wait for a turn, then write `payload` whole (what the kernel does not take at once follows by itself).

        Cancelled: nothing of it was written.

        Raises:
            trio.BrokenResourceError: the transport is closed, or closed while this waited.
        """
        await trio.lowlevel.checkpoint()
        self._require_open()
        if self.ready:
            self.write(payload)
        else:
            await self._wait_turn(_Turn(payload))
        self._require_open()

    async def drained(self) -> None:
        """Wait until everything written before is out of our hands.

        Raises:
            trio.BrokenResourceError: the transport is closed, or closed while this waited.
        """
        await trio.lowlevel.checkpoint()
        self._require_open()
        if not self.ready:
            await self._wait_turn(_Turn(None))
            self._require_open()

    async def wait_closed(self) -> None:
        """Wait until the transport is closed, however that comes about."""
        if self.closed:
            await trio.lowlevel.checkpoint()
            return
        if self._ended is None:
            self._ended = trio.Event()
        await self._ended.wait()

    def _require_open(self) -> None:
        if self.closed:
            raise trio.BrokenResourceError(f"the client's transport is closed: {self.closed_by}")

    async def _wait_turn(self, turn: _Turn) -> None:
        if self._turns is None:
            self._turns = deque()
        self._turns.append(turn)
        await trio.lowlevel.wait_task_rescheduled(lambda _: self._forgo(turn))

    def _forgo(self, turn: _Turn) -> trio.lowlevel.Abort:
        """Take a turn back the moment its task is cancelled. Not called once it was given: then it has happened."""
        if self._turns is not None:
            self._turns.remove(turn)
        return trio.lowlevel.Abort.SUCCEEDED

    def _give_turns(self) -> None:
        """Become ready: first those who wait in `send`, then the broadcaster."""
        self.ready = True
        self.blocked_since = None
        while self._turns and self.ready:
            turn = self._turns.popleft()
            trio.lowlevel.reschedule(turn.task)  # before the write, which may abort, and so cancel this very task
            if turn.payload is not None:
                self.write(turn.payload)
        if self.ready and self.on_ready is not None:
            self.on_ready()

    def _end(self, reason: str) -> None:
        """Become closed and wake everyone who waits."""
        if self.closed:
            return
        self.ready = False
        self.closed = True
        self.closed_by = reason
        if self._ended is not None:
            self._ended.set()
        turns, self._turns = self._turns, None
        for turn in turns or ():
            trio.lowlevel.reschedule(turn.task)

    def _misused(self) -> None:
        """Handle a `write` while not ready: the payload is lost, so the client has to come back and resume."""
        if not self.closed:
            log.error("payload_lost")
            self.abort("lost a payload")


class AsgiTransport(Transport):
    """Through ASGI `send`, on any host. One payload is held; `run()` is the one task that writes it.

    A payload is bytes for `sse` (a piece of the body), a tuple of texts for `websocket` (a message each). `connection`
    is ours where the host runs our class (TLS): then `abort` is as hard as a direct one's, and `last_byte_at` known.
    """

    __slots__ = ("_connection", "_held", "_kind", "_scope", "_send", "_wake")

    def __init__(
        self,
        send: Callable[[Any], Awaitable[None]],
        kind: Literal["sse", "websocket"],
        connection: Connection | None = None,
    ) -> None:
        super().__init__()
        self._send = send
        self._kind = kind
        self._connection = connection
        self._held: Any = None
        self._scope = trio.CancelScope()
        self._wake = trio.lowlevel.ParkingLot()

    @property
    def last_byte_at(self) -> float | None:
        """Trio time of the last byte received from the peer, None on a foreign host."""
        return None if self._connection is None else self._connection.last_byte_at

    def fault(self, now: float, stall_s: float, bytes_per_s: float) -> str:
        """See `Transport.fault`.

        Where the connection is ours, it judges. Another host shows no headway inside a message, which has a time as a
        whole then.
        """
        if self._connection is not None:
            return ""
        since = self.blocked_since
        if since is not None and now - since > max(stall_s, self._size / bytes_per_s):
            return STALLED
        return ""

    def write(self, payload: bytes | tuple[str, ...]) -> None:
        """See `Transport.write`."""
        if not self.ready:
            self._misused()
            return
        self.ready = False
        self.blocked_since = trio.current_time()
        self._held = payload
        self._wake.unpark()

    def abort(self, reason: str) -> None:
        """See `Transport.abort`. On a foreign host this ends `run()` and all who wait; the app then ends the rest."""
        if self.closed:
            return
        self._end(reason)
        self._held = None
        self._scope.cancel()
        if self._connection is not None:
            self._connection.abort(reason)

    def detach(self) -> None:
        """See `Transport.detach`. A payload that is held still goes out; then `run()` returns."""
        self._end(DETACHED)
        self._wake.unpark()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Write what is held, until the transport closes or the host says that the client is gone."""
        task_status.started()
        try:
            with self._scope:
                while self._held is not None or not self.closed:
                    if self._held is None:
                        await self._wake.park()
                    else:
                        await self._write_held()
        except Exception as error:  # noqa: BLE001 - hosts raise what they like for a client that is gone
            log.debug("host_send_failed", error=repr(error))
        finally:
            self._held = None
            self._end(GONE)

    async def _write_held(self) -> None:
        for size, message in self._messages(self._held):
            self._size = size
            await self._send(message)
            self.blocked_since = trio.current_time()
        self._held = None
        self.blocked_since = None
        if not self.closed:
            self._give_turns()

    def _messages(self, payload: Any) -> Iterable[tuple[int, dict[str, Any]]]:
        if self._kind == "sse":
            return ((len(payload), {"type": "http.response.body", "body": payload, "more_body": True}),)
        return ((len(text), {"type": "websocket.send", "text": text}) for text in payload)
