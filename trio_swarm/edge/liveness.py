"""Liveness: one task that looks at every client.

It sends what shows a quiet stream to be alive, notices who has stopped reading or reads too slowly (headway.py; no
close can reach it, its connection is aborted) and who has fallen silent (a WebSocket that answers no ping: closed
with 4001). Ten thousand clients are looked at in slices, so that a round never holds the loop.
"""

from collections.abc import Callable

import structlog
import trio

from trio_swarm.edge.clients import Client, Clients
from trio_swarm.edge.headway import LOOKS
from trio_swarm.edge.reasons import SILENT
from trio_swarm.settings import Settings

SLICE = 256  # clients between two checkpoints: under a millisecond

_log = structlog.get_logger("trio_swarm.edge")


class Liveness:
    """See the module.

    Args:
        clients: the registry.
        settings: `stall`, `liveness.ping_s`, `liveness.dead_s`.
        dismiss: ends a silent client politely, without waiting.
    """

    def __init__(self, clients: Clients, settings: Settings, dismiss: Callable[[Client, int, str], None]) -> None:
        self._clients = clients
        self._stall = settings.stall
        self._dead_s = settings.liveness.dead_s
        self._ping_s = settings.liveness.ping_s
        self._dismiss = dismiss

    async def run(self) -> None:
        """Look until cancelled."""
        pause = min(self._stall.seconds, self._dead_s) / LOOKS
        next_beat = trio.current_time() + self._ping_s
        while True:
            await trio.sleep_until(min(trio.current_time() + pause, next_beat))
            now = trio.current_time()
            beat = now >= next_beat
            if beat:
                next_beat = now + self._ping_s
            await self._look(now, beat=beat)

    async def _look(self, now: float, *, beat: bool) -> None:
        for count, client in enumerate(self._clients, 1):
            try:
                self._look_at(client, now, beat=beat)
            except Exception:  # noqa: BLE001 - one client's trouble is no other's
                _log.exception("client_failed", client=client.serial)
                self._clients.abort(client, "internal error")
            if count % SLICE == 0:
                await trio.lowlevel.checkpoint()

    def _look_at(self, client: Client, now: float, *, beat: bool) -> None:
        if fault := client.transport.fault(now, self._stall.seconds, self._stall.bytes_per_s):
            self._clients.abort(client, fault)
        elif client.is_silent(now, self._dead_s):
            self._dismiss(client, 4001, SILENT)
        elif beat:
            client.beat(now)
