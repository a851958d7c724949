"""All statistics of a service, gathered in one place and by name.

Whoever has something to tell gives a callable: the runtime its streams, objects and store, the application its
clients and connections. What they return are frozen attrs records. Who reads (the control socket, metrics) depends on
the names below and on those records' fields, and on nothing of the layers that made them.

    streams       fanout.streams.StreamsStatistics, with the broadcaster's counters
    directory     objects.directory.DirectoryStatistics, with every feed
    kinds         a tuple of objects.kind_statistics.KindStatistics: sums that never fall
    alarms        objects.alarms.AlarmStatistics
    objects       a tuple of objects.host.ObjectStatistics
    storage       the store's own, where it has any
    clients       edge.clients.ClientStatistics: streams and WebSockets
    connections   edge.serving.WorkerStatistics: sockets, where the host runs our connection class
    requests      bounded.allowance.AllowanceStatistics: bytes that requests under way hold
    answers       bounded.allowance.AllowanceStatistics: bytes of large answers that clients have not taken
    slowest       edge.slowest.Slowest: the clients that somebody should look at
    answered      edge.access.AnsweredStatistics: requests by what was asked and status
    loop          health.loop_delay.LoopStatistics: how late Trio's loop is
    log           health.line_sink.SinkStatistics: lines, and those that nobody took
    process       health.process.ProcessStatistics
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import attrs
import msgspec

from trio_swarm.health.process import ProcessStatistics, look_at_process

Source = Callable[[], Any]


@attrs.frozen
class ServiceStatistics:
    """A moment of everything. `parts` holds a record for each source that there was."""

    uptime_s: float
    process: ProcessStatistics
    parts: Mapping[str, Any]

    def plain(self) -> dict[str, Any]:
        """As plain data, ready for JSON."""
        told = {"uptime_s": round(self.uptime_s, 3), "process": self.process, **self.parts}
        return {name: _named(part) for name, part in msgspec.to_builtins(told).items()}


def _named(part: Any) -> Any:
    """With keys of several parts as one text, which is all that JSON has."""
    if isinstance(part, dict):
        return {
            " ".join(map(str, key)) if isinstance(key, tuple) else key: _named(value) for key, value in part.items()
        }
    return part


class Sources:
    """Where the parts of one service say how they are asked; see the module.

    Args:
        now: a clock in seconds.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._began = now()
        self._sources: dict[str, Source] = {}

    def add(self, name: str, source: Source) -> None:
        """Ask this one too; a name that is known gets a new source."""
        self._sources[name] = source

    def gather(self, names: Collection[str] | None = None) -> ServiceStatistics:
        """Ask those of these names, or all. What one raises comes out: they are ours, and never wait."""
        parts = {name: source() for name, source in self._sources.items() if names is None or name in names}
        return ServiceStatistics(self._now() - self._began, look_at_process(), parts)
