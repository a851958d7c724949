"""Prometheus metrics, written from the statistics of one moment.

The statistics are gathered on Trio's thread, frozen, and written in another: a thousand series take 10 ms, which no
client should feel. A page is kept for a second, and at most one is being written: however many ask, and however often,
that is all it costs.
"""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from itertools import accumulate
from typing import Final

import trio
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, exposition
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from trio_swarm.health.loop_delay import BUCKETS_S, LoopStatistics
from trio_swarm.health.metric import Moment
from trio_swarm.health.metric_table import LOOP_DELAY, METRICS
from trio_swarm.health.statistics import ServiceStatistics
from trio_swarm.settings import Settings

FRESH_S: Final = 1.0  # nobody scrapes more often, and who does gets the same page again
PARTS: Final = frozenset(
    {
        "streams", "directory", "kinds", "alarms", "storage", "clients", "connections", "requests", "answers",
        "answered", "loop", "log",
    }
)  # fmt: skip  # those that are read here: the others tell of every object

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_WRITERS: Final[dict[str, Callable[[Collector], bytes]]] = {
    TEXT: exposition.generate_latest,
    OPENMETRICS: openmetrics.generate_latest,
}


class _Swarm(Collector):
    """One moment as prometheus_client's families."""

    def __init__(self, moment: Moment) -> None:
        self._moment = moment

    def collect(self) -> Iterator[Family]:
        for metric in METRICS:
            make = CounterMetricFamily if metric.type == "counter" else GaugeMetricFamily
            family = make(metric.name, metric.help, labels=metric.labels)
            for labels, value in metric.read(self._moment):
                family.add_metric(labels, value)
            if family.samples:
                yield family
        loop: LoopStatistics | None = self._moment.part("loop")
        if loop is not None:
            bounds = [*map(str, BUCKETS_S), "+Inf"]
            buckets = list(zip(bounds, accumulate(loop.buckets), strict=True))
            yield HistogramMetricFamily(*LOOP_DELAY, buckets=buckets, sum_value=loop.delay_s)


def write_metrics(moment: Moment, form: str) -> bytes:
    """Write all metrics of a moment, this process's and Python's own with them. Takes milliseconds; any thread may.

    Args:
        moment: what is to be told.
        form: `TEXT` or `OPENMETRICS`.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Swarm(moment))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return _WRITERS[form](registry)


def form_for(accept: str) -> str:
    """The form for an Accept header: OpenMetrics for whoever names it, else the text that everybody reads."""
    for part in accept.split(","):
        name, *parameters = (word.strip().lower() for word in part.split(";"))
        if name == "application/openmetrics-text" and "q=0" not in parameters:
            return OPENMETRICS
    return TEXT


class MetricsPage:
    """The page in both forms; see the module.

    Args:
        gather: the service's statistics, of the parts named.
        settings: for the limits beside the figures.
        fresh_s: how long a page is given again.
    """

    def __init__(
        self,
        gather: Callable[[Collection[str]], ServiceStatistics],
        settings: Settings,
        *,
        fresh_s: float = FRESH_S,
    ) -> None:
        self._gather = gather
        self._settings = settings
        self._fresh_s = fresh_s
        self._lock = trio.Lock()
        self._pages: dict[str, tuple[float, bytes]] = {}  # with the moment it is of
        self.written = 0

    async def page(self, form: str) -> bytes:
        """The page: of this moment, or of one at most `fresh_s` ago or while this waited."""
        asked_at = trio.current_time()
        async with self._lock:
            of, page = self._pages.get(form, (-self._fresh_s, b""))
            if not page or (of < asked_at and trio.current_time() - of >= self._fresh_s):
                of = trio.current_time()
                moment = Moment(self._gather(PARTS), self._settings, of)
                page = await trio.to_thread.run_sync(partial(write_metrics, moment, form))
                self._pages[form] = of, page
                self.written += 1
            return page
