"""What a running edge tells those who look after the service: statistics, the metrics page, and lines in the log.

Clients are refused and cut off by the thousand when something is wrong. A line for each would fill the disk just then,
so they are counted where it happens, and once a second there is one line for each reason with the number of those
since the last one. No path of a client's touches the log for it.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
import trio

from trio_swarm.edge.access import AccessLog
from trio_swarm.edge.app import Edge
from trio_swarm.edge.reasons import GONE, IDLE
from trio_swarm.edge.slowest import find_slowest
from trio_swarm.health.logs import Log
from trio_swarm.health.loop_delay import LoopDelay
from trio_swarm.health.metrics import MetricsPage
from trio_swarm.health.statistics import Sources
from trio_swarm.settings import Settings

EVERY_S: Final = 1.0
_ORDINARY: Final = {GONE, IDLE}  # how most connections end; metrics count them

_log = structlog.get_logger("trio_swarm.edge")


class Telling:
    """See the module; `run` must be running.

    Args:
        edge: it gets its metrics page, and its access log.
        sources: where the edge's statistics are added.
        settings: whether there are `metrics` and an `access_log`.
        log: where the access log goes; None: there is none.
    """

    def __init__(self, edge: Edge, sources: Sources, settings: Settings, log: Log | None = None) -> None:
        self._edge = edge
        self._sources = sources
        self._limit = settings.limits.connections
        self._loop = LoopDelay()
        self._connections: Callable[[], Any] | None = None
        self._refused = 0
        self._ended: Counter[str] = Counter()
        self._connections_refused = 0
        self._aborted: Counter[str] = Counter()
        sources.add("clients", edge.statistics)
        sources.add("requests", edge.requests.statistics)
        sources.add("answers", edge.answers.statistics)
        sources.add("slowest", lambda: find_slowest(edge.clients))
        sources.add("answered", edge.answered.statistics)
        sources.add("loop", self._loop.statistics)
        if log is not None:
            sources.add("log", log.sink.statistics)
            if settings.access_log:
                edge.answered.log = AccessLog(log.sink.write, log.form)
        if settings.metrics:
            edge.metrics = MetricsPage(sources.gather, settings)

    def on_connections(self, statistics: Callable[[], Any]) -> None:
        """The host runs our connections, which have statistics of their own."""
        self._connections = statistics
        self._sources.add("connections", statistics)

    async def run(self) -> None:
        """Tell until cancelled, and once more then."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._loop.run)
            try:
                while True:
                    await trio.sleep(EVERY_S)
                    self.tell()
            finally:
                self.tell()

    def tell(self) -> None:
        """Write what has happened to clients since the last time."""
        refused, ended = self._edge.clients.turned_away()
        if refused != self._refused:
            _log.warning("clients_refused", count=refused - self._refused, limit=self._limit)
            self._refused = refused
        new_ended = _since(self._ended, ended)
        for reason, count in new_ended.items():
            _log.info("clients_ended", reason=reason, count=count)
        if self._connections is not None:
            connections = self._connections()
            if connections.refused != self._connections_refused:
                _log.warning("connections_refused", count=connections.refused - self._connections_refused)
                self._connections_refused = connections.refused
            for reason, count in _since(self._aborted, connections.aborted).items():
                others = count - new_ended.get(reason, 0)  # whoever ended a client has ended its connection for it
                if others > 0 and reason not in _ORDINARY:
                    _log.info("connections_aborted", reason=reason, count=others)


def _since(known: Counter[str], now: Mapping[str, int]) -> dict[str, int]:
    """What has come since `known`, which then knows it."""
    new = {reason: count - known[reason] for reason, count in now.items() if count != known[reason]}
    known.update(new)
    return new
