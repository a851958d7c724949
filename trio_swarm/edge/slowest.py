"""The clients that somebody should look at: those that have not read for longest, and those furthest behind."""

import heapq
from typing import Final

import attrs
import trio

from trio_swarm.edge.clients import Client, Clients
from trio_swarm.edge.listeners import join_address

SHOWN: Final = 10  # clients, and streams of one: as many as somebody looks at


@attrs.frozen
class SlowClient:
    """One of them. `behind`: events of its streams after its position, whether it reads their topics or not."""

    client: int
    transport: str
    address: str
    streams: tuple[str, ...]
    blocked_s: float | None
    behind: int


@attrs.frozen
class Slowest:
    """Worst first."""

    blocked: tuple[SlowClient, ...]
    behind: tuple[SlowClient, ...]


def find_slowest(clients: Clients, shown: int = SHOWN) -> Slowest:
    """Look at all clients; takes about half a millisecond a thousand."""
    now = trio.current_time()
    waiting = [(client.transport.blocked_since, client.serial, client) for client in clients]
    stopped = [(since, serial, client) for since, serial, client in waiting if since is not None]
    blocked = heapq.nsmallest(shown, stopped)
    lags = [(_behind(client), serial, client) for _, serial, client in waiting]
    behind = heapq.nlargest(shown, [each for each in lags if each[0]])
    return Slowest(
        tuple(_describe(client, now) for _, _, client in blocked),
        tuple(_describe(client, now) for _, _, client in behind),
    )


def _behind(client: Client) -> int:
    behind = 0
    for reader in client.readers:
        journal = reader.stream.journal
        if reader.started and reader.position != journal.head and journal.has_new(reader.position, reader.topics):
            behind += journal.head - reader.position
    return behind


def _describe(client: Client, now: float) -> SlowClient:
    since = client.transport.blocked_since
    return SlowClient(
        client=client.serial,
        transport=client.kind,
        address="" if client.address is None else join_address(*client.address[:2]),
        streams=tuple(client.streams[:SHOWN]),
        blocked_s=None if since is None else round(now - since, 3),
        behind=_behind(client),
    )
