"""One running server: what its connections share, how they hear of its end, and what they have come to.

Hypercorn tells an application nothing before it cancels it. Its `terminated` event is set as the serving ends, so
ours stands in its place, and connections between two requests, which nobody waits for, go at once.
"""

import copy
from typing import Any, Protocol

import attrs
from hypercorn.config import Config

from trio_swarm.settings import Settings


class Idler(Protocol):
    """A connection, as the end of the serving sees it."""

    def close_if_idle(self) -> None:
        """Go now, unless a request is being answered."""


@attrs.frozen
class WorkerStatistics:
    """What one connection class holds and has done."""

    connections: int
    refused: int
    aborted: dict[str, int]  # by reason; the reasons are ours, so they are few


class Host:
    """One running server, as its connections share it."""

    def __init__(self, config: Config, settings: Settings) -> None:
        self.config = tighten(config, settings)
        self.live: set[Any] = set()


class Ending:
    """Hypercorn's `terminated`, which tells idle connections too."""

    def __init__(self, event: Any, live: set[Idler]) -> None:
        self._event = event
        self._live = live

    async def set(self) -> None:
        """End the serving."""
        await self._event.set()
        for connection in list(self._live):
            connection.close_if_idle()

    async def clear(self) -> None:
        """Part of the interface; Hypercorn never does it."""
        await self._event.clear()

    async def wait(self) -> None:
        """Wait for the end of the serving."""
        await self._event.wait()

    def is_set(self) -> bool:
        """Has the serving ended?"""
        return bool(self._event.is_set())


def tighten(config: Config, settings: Settings) -> Config:
    """Copy Hypercorn's configuration, with the limits that a hardened connection stands on whoever wrote it."""
    config = copy.copy(config)
    config.websocket_max_message_size = settings.limits.message_bytes
    config.websocket_ping_interval = None  # ours look at the answers
    config.alpn_protocols = ["http/1.1"]
    return config
