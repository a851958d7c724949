"""What a metric is here: a name, a sentence, labels, and where its values stand in the service's statistics.

Names follow Prometheus: `trio_swarm_` in front, base units (seconds, bytes), `_total` for what only grows. A label's
values are few and known beforehand: kinds, states, reasons, transports, the settings' feeds. An id is never one.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import attrs

from trio_swarm.health.statistics import ServiceStatistics
from trio_swarm.settings import Settings

Values = Iterable[tuple[tuple[str, ...], float]]


@attrs.frozen
class Moment:
    """What metrics are read from. A part that this service has not is None."""

    statistics: ServiceStatistics
    settings: Settings
    now: float  # on the clock of the statistics

    def part(self, name: str) -> Any:
        """One part's record."""
        return self.statistics.parts.get(name)


@attrs.frozen
class Metric:
    """See the module. `read` gives label values and a number; nothing where the service has no such part."""

    name: str
    type: Literal["gauge", "counter"]
    help: str
    read: Callable[[Moment], Values]
    labels: tuple[str, ...] = ()


def one(part: str, field: Callable[[Any], float | None]) -> Callable[[Moment], Values]:
    """Read one number of a part."""

    def read(moment: Moment) -> Iterator[tuple[tuple[str, ...], float]]:
        record = moment.part(part)
        value = None if record is None else field(record)
        if value is not None:
            yield (), value

    return read


def limit(part: str, number: Callable[[Settings], float]) -> Callable[[Moment], Values]:
    """Read a setting, where there is the part that it limits."""

    def read(moment: Moment) -> Iterator[tuple[tuple[str, ...], float]]:
        if moment.part(part) is not None:
            yield (), number(moment.settings)

    return read


def table(part: str, mapping: Callable[[Any], Mapping[str, float]]) -> Callable[[Moment], Values]:
    """Read a mapping of a part by its keys."""

    def read(moment: Moment) -> Iterator[tuple[tuple[str, ...], float]]:
        record = moment.part(part)
        if record is not None:
            for name, value in sorted(mapping(record).items()):
                yield (name,), value

    return read


def each(part: str, values: Callable[[Any], Values]) -> Callable[[Moment], Values]:
    """Read the records of a part that is a tuple of them."""

    def read(moment: Moment) -> Iterator[tuple[tuple[str, ...], float]]:
        for record in moment.part(part) or ():
            yield from values(record)

    return read
