"""What settings must be to make sense: a range for each number, and an order between some of them.

One place for all: `Settings` asks it whenever one is made, in code too, and reading a file or the environment asks it
with the names the operator wrote. Values come by their dotted names, so that nothing here knows a record.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

import attrs

# Every other number is above 0: a limit of nothing serves nothing, and a time of nothing waits for nothing.
MAY_BE_ZERO: Final = frozenset(
    {
        "limits.idle_journal_bytes",  # of an object that stopped nothing is kept
        "liveness.retry_min_s",  # some come back at once
        "alarms.retries",  # the first failure is the last
        "alarms.spread_s",  # all at once
        "objects.crashes",  # the first crash is one too many
        "upstream.quick_restarts",  # the first failure is `down`
    }
)


@attrs.frozen
class _Order:
    """One number is not above another, or is below it."""

    less: str
    more: str
    why: str
    may_be_equal: bool = True


ORDERS: Final = (
    _Order("liveness.retry_min_s", "liveness.retry_max_s", "clients come back at a moment between the two"),
    _Order(
        "liveness.ping_s", "liveness.dead_s", "a client has to be asked before it is taken for dead", may_be_equal=False
    ),
    _Order(
        "upstream.ping_s", "upstream.dead_s", "a feed has to be asked before it is taken for dead", may_be_equal=False
    ),
    _Order("objects.backoff_initial_s", "objects.backoff_max_s", "waits begin with the one and grow up to the other"),
    _Order("upstream.backoff_initial_s", "upstream.backoff_max_s", "waits begin with the one and grow up to the other"),
)


@attrs.frozen
class Fault:
    """What is wrong. `reason` goes behind the name of the only key, and names the keys itself where they are two."""

    keys: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        return f"{self.keys[0]}: {self.reason}" if len(self.keys) == 1 else self.reason


def flatten(record: attrs.AttrsInstance, prefix: str = "") -> dict[str, Any]:
    """All values of a record of records by their dotted names."""
    values: dict[str, Any] = {}
    for field in attrs.fields(type(record)):
        value = getattr(record, field.name)
        if attrs.has(type(value)):
            values |= flatten(value, f"{prefix}{field.name}.")
        else:
            values[f"{prefix}{field.name}"] = value
    return values


def first_fault(values: Mapping[str, Any]) -> Fault | None:
    """The first thing that cannot be, among values by their dotted names; rules about absent ones are left out."""
    for key, value in values.items():
        if reason := _range_fault(key, value):
            return Fault((key,), reason)
    for order in ORDERS:
        if order.less in values and order.more in values:
            less, more = values[order.less], values[order.more]
            if less > more or (less == more and not order.may_be_equal):
                relation = "above" if order.may_be_equal else "not below"
                reason = f"{order.less} ({less:g}) is {relation} {order.more} ({more:g}), and {order.why}"
                return Fault((order.less, order.more), reason)
    names = [feed.name for feed in values.get("feed", ())]
    for name in names:
        if names.count(name) > 1:
            return Fault(("feed",), f"two feeds are called {name!r}")
    return None


def _range_fault(key: str, value: Any) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not math.isfinite(value):
        return f"{value} is not a finite number"
    if key in MAY_BE_ZERO:
        return f"{value} is below 0" if value < 0 else None
    return f"{value} is not above 0" if value <= 0 else None
