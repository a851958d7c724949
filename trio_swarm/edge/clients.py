"""The stream clients of this process: who they are, how many they may be, and how each is ended.

A client is one task of the ASGI host, waiting in `receive`; everything else about it is this record, so it is kept
small: ten thousand of them are ordinary. It leaves the registry when its task ends, whatever ended it.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal, Protocol

import attrs
import structlog
import trio

from trio_swarm.edge.answers import Scope, Send
from trio_swarm.edge.direct import DirectTransport
from trio_swarm.edge.listeners import join_address
from trio_swarm.edge.polite import PoliteAsgi, PoliteDirect, find_connection, make_transport
from trio_swarm.edge.transport import DETACHED, AsgiTransport
from trio_swarm.edge.writability import Writability
from trio_swarm.errors import TooManyConnections
from trio_swarm.fanout.sink import LAGGED
from trio_swarm.fanout.subscription import Subscription

LAGGED_CODE = 4002

_log = structlog.get_logger("trio_swarm.edge")


class House(Protocol):
    """What a client needs of the edge that it belongs to."""

    writability: Writability

    def next_serial(self) -> int:
        """A number that no other client of this process has."""

    def dismiss(self, client: "Client", code: int, reason: str) -> None:
        """End a client politely. Never waits."""


class Client(ABC):
    """One stream's client; see the module.

    Attributes:
        serial: unique in this process.
        send: the host's ASGI `send`, for what begins and ends the stream.
        connection: the host's connection, where the host is ours.
        transport: the way of everything else.
    """

    __slots__ = ("_gone", "_house", "_scope", "address", "connection", "send", "serial", "since", "transport", "why")
    kind: ClassVar[Literal["sse", "websocket"]]

    def __init__(self, scope: Scope, send: Send, house: House) -> None:
        self.serial = house.next_serial()
        self._house = house
        self.send = send
        self.since = trio.current_time()
        self.address: tuple[str, int] | None = scope.get("client")
        self.connection = find_connection(scope)
        self.transport: PoliteDirect | PoliteAsgi = make_transport(scope, send, self.kind, house.writability)
        self.transport.on_lagged = self._lagged
        self.why = ""  # it is ended from here, once it is
        self._gone: trio.Event | None = None
        self._scope: trio.CancelScope | None = None  # of its task, on a host whose connections cannot be aborted

    @property
    def is_direct(self) -> bool:
        """Whether bytes go to the socket without the host."""
        return isinstance(self.transport, DirectTransport)

    def go_through_host(self) -> None:
        """Give up the direct way, before anything was written: something between us and the host must see it all."""
        self.transport.detach()
        self.transport = PoliteAsgi(self.send, self.kind, self.connection)
        self.transport.on_lagged = self._lagged

    @property
    @abstractmethod
    def streams(self) -> list[str]:
        """The names of the streams it reads."""

    @property
    @abstractmethod
    def readers(self) -> Iterable[Subscription]:
        """Its subscriptions."""

    @abstractmethod
    def beat(self, now: float) -> None:
        """Show the client, and whatever stands between, that the stream lives. Never waits."""

    @abstractmethod
    def is_silent(self, now: float, seconds: float) -> bool:
        """Whether the client should have been heard in this time, and was not."""

    @abstractmethod
    async def say_goodbye(self, code: int, reason: str, retry_ms: int) -> None:
        """End the stream in the protocol's words. May wait for the socket; the caller sets a limit by `abort`."""

    @abstractmethod
    def close_subscriptions(self) -> None:
        """Leave all streams. Idempotent."""

    def _lagged(self) -> None:
        """Come to terms with a journal that has gone on without this client."""
        self._house.dismiss(self, LAGGED_CODE, LAGGED)

    def abort(self, reason: str) -> None:
        """End it at once and for good. Idempotent, never raises."""
        self.why = self.why or reason
        self.close_subscriptions()
        self.transport.abort(reason)
        if self.connection is not None:
            self.connection.abort(reason)  # the transport may be detached already
        if self._scope is not None:
            self._scope.cancel()

    def leave(self) -> None:
        """Its task ends: give back what it held. Idempotent."""
        self.close_subscriptions()
        self.transport.detach()
        self.transport.on_lagged = None
        if self._gone is not None:
            self._gone.set()

    async def wait_gone(self) -> None:
        """Wait until its task has ended; of a client that is in the registry."""
        if self._gone is None:
            self._gone = trio.Event()
        await self._gone.wait()

    async def beside_writer(self, talk: Callable[[], Awaitable[None]]) -> None:
        """Run the client's task on a host that is written to through `send`: its writer runs beside it."""
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            nursery.start_soon(self._write)
            await talk()
            nursery.cancel_scope.cancel()

    async def _write(self) -> None:
        if isinstance(self.transport, AsgiTransport) and self._scope is not None:
            await self.transport.run()
            if self.transport.closed_by != DETACHED:
                self._scope.cancel()

    def describe(self, now: float) -> dict[str, Any]:
        """As plain data, for the tree."""
        blocked = self.transport.blocked_since
        return {
            "client": self.serial,
            "transport": self.kind,
            "direct": self.is_direct,
            "address": None if self.address is None else join_address(*self.address[:2]),
            "age_s": round(now - self.since, 3),
            "blocked_s": None if blocked is None else round(now - blocked, 3),
            "streams": self.streams,
        }


@attrs.frozen
class ClientStatistics:
    """A moment of all clients. `ended` counts, since the beginning, those that were ended from here, by reason."""

    sse: int
    websocket: int
    blocked: int
    opened: int
    opened_by_transport: Mapping[str, int]
    refused: int
    ended: Mapping[str, int]


class Clients:
    """The registry."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._clients: dict[Client, None] = {}
        self._opened: Counter[str] = Counter(sse=0, websocket=0)
        self._refused = 0
        self._ended: Counter[str] = Counter()
        self._empty: trio.Event | None = None

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[Client]:
        """Those of this moment, whoever leaves meanwhile."""
        return iter(tuple(self._clients))

    def __contains__(self, client: Client) -> bool:
        return client in self._clients

    def enter(self, client: Client) -> None:
        """Take a client in.

        Raises:
            TooManyConnections: there are as many as there may be.
        """
        if len(self._clients) >= self._limit:
            self._refused += 1
            raise TooManyConnections(self._limit)
        self._opened[client.kind] += 1
        self._clients[client] = None

    def leave(self, client: Client) -> None:
        """Forget a client whose task ends. Idempotent; a step that fails does not stop the rest."""
        self._clients.pop(client, None)
        try:
            client.leave()
        except Exception:  # noqa: BLE001 - logged, and the other clients go on
            _log.exception("client_cleanup_failed", client=client.serial)
        if not self._clients and self._empty is not None:
            self._empty.set()

    def abort(self, client: Client, reason: str) -> None:
        """End a client by force, and count it."""
        self._ended[reason] += 1
        client.abort(reason)

    def count(self, reason: str) -> None:
        """Count a client that was ended in the protocol's words."""
        self._ended[reason] += 1

    def turned_away(self) -> tuple[int, Mapping[str, int]]:
        """How many were refused so far, and how many were ended from here, by reason."""
        return self._refused, self._ended

    async def wait_empty(self) -> None:
        """Wait until nobody is left."""
        while self._clients:
            if self._empty is None or self._empty.is_set():
                self._empty = trio.Event()
            await self._empty.wait()

    def statistics(self) -> ClientStatistics:
        """A moment of all clients."""
        kinds = Counter(client.kind for client in self._clients)
        blocked = sum(1 for client in self._clients if client.transport.blocked_since is not None)
        return ClientStatistics(
            sse=kinds["sse"],
            websocket=kinds["websocket"],
            blocked=blocked,
            opened=self._opened.total(),
            opened_by_transport=dict(self._opened),
            refused=self._refused,
            ended=dict(self._ended),
        )

    def tree(self) -> list[dict[str, Any]]:
        """All clients as plain data."""
        now = trio.current_time()
        return [client.describe(now) for client in self]
