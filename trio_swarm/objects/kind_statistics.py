"""What there is of each kind of objects, added up, and what has been since the beginning.

Objects come and go; what they counted must not go with them. Each leaves its counters to its kind (`Past`), and so
does a feed that ends, so that a sum over the kind never falls. Feeds that the settings name are told apart; an
author's own are not, for their names may be ids, and there may be any number of those.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

if TYPE_CHECKING:
    from trio_swarm.objects.directory import Kind
    from trio_swarm.objects.host import Host

FEED_COUNTERS: Final = (
    "attempts", "connects", "failures", "frames", "events", "undecodable", "missing", "repeats", "received_bytes",
)  # fmt: skip
CLOSED: Final = "closed"  # the state of a feed that nobody wants now
_HUB: Final = "hub"
_EMPTY: Final = [0, 0, 0]


@attrs.frozen
class NamedFeedStatistics:
    """One feed that the settings name, over all the times that it was opened."""

    name: str
    state: str
    topics: int
    last_byte_at: float | None
    counts: Mapping[str, int]  # by FEED_COUNTERS


@attrs.frozen
class KindStatistics:
    """A moment of one kind. `started`, `failures`, `turns` and `turn_s` count from the beginning."""

    kind: str
    limit: int
    states: Mapping[str, int]
    started: int  # lives: an object that is started again counts again
    failures: int  # lives that ended in an error
    turns: int
    turn_s: float
    longest_turn_s: float  # of the objects there are now
    waiting: tuple[int, int, int]  # for a turn, by lane: control, call, feed
    deepest: tuple[int, int, int]  # the same of the object where most wait
    most_at_gate: int  # turns of one object whose outcome waits for a commit
    most_tasks: int  # timers, feeds and background tasks of one object
    readers: int
    journal_events: int
    journal_bytes: int
    feed_states: Mapping[str, int]
    named_feeds: tuple[NamedFeedStatistics, ...]


class Past:
    """What the objects of one kind that are gone have left.

    Args:
        feeds: the names of feeds that are told apart.
    """

    def __init__(self, feeds: frozenset[str]) -> None:
        self.feeds: dict[str, Counter[str]] = {name: Counter() for name in sorted(feeds)}
        self.started = 0
        self.failures = 0
        self.turns = 0
        self.turn_s = 0.0

    def bury(self, host: "Host") -> None:
        """Keep what an object has counted; it is gone."""
        self.started += host.lives
        self.failures += host.failures
        self.turns += host.turns
        self.turn_s += host.busy_s

    def feed_ended(self, name: str, statistics: Callable[[], Any] | None) -> None:
        """Keep what a feed has counted, if it is one that is told apart."""
        if name in self.feeds and statistics is not None:
            self.feeds[name].update(_counts(statistics()))


def feeds_told_apart(kind: str, configured: frozenset[str]) -> frozenset[str]:
    """The feeds of a kind whose names are the settings'."""
    return configured if kind == _HUB else frozenset()


def look_at_kind(kind: "Kind") -> KindStatistics:
    """A moment of one kind; about 5 µs an object."""
    past = kind.past
    states: Counter[str] = Counter()
    feed_states: Counter[str] = Counter()
    live: dict[str, Any] = {}
    waiting, deepest = [0, 0, 0], [0, 0, 0]
    started, failures, turns, turn_s, longest_s = past.started, past.failures, past.turns, past.turn_s, 0.0
    at_gate = tasks = readers = journal_events = journal_bytes = 0
    for host in kind.hosts.values():
        states[host.state] += 1
        started += host.lives
        failures += host.failures
        turns += host.turns
        turn_s += host.busy_s
        longest_s = max(longest_s, host.longest_s)
        if host.mailbox.counts != _EMPTY:  # nobody waits for room where nothing waits
            for lane, depth in enumerate(host.mailbox.depths()):
                waiting[lane] += depth
                deepest[lane] = max(deepest[lane], depth)
        readers += host.stream.subscribers
        journal_events += len(host.stream.journal)
        journal_bytes += host.stream.journal.bytes
        life = host.life
        if life is not None:
            at_gate = max(at_gate, len(life.gate))
            if not life.tasks:
                continue
            tasks = max(tasks, len(life.tasks))
            for task in life.tasks:
                if task.kind == "feed":
                    feed_states[task.state or "connecting"] += 1
                    if task.name in past.feeds and task.statistics is not None:
                        live[task.name] = task.statistics()
    return KindStatistics(
        kind=kind.name,
        limit=kind.limit,
        states=dict(states),
        started=started,
        failures=failures,
        turns=turns,
        turn_s=turn_s,
        longest_turn_s=longest_s,
        waiting=(waiting[0], waiting[1], waiting[2]),
        deepest=(deepest[0], deepest[1], deepest[2]),
        most_at_gate=at_gate,
        most_tasks=tasks,
        readers=readers,
        journal_events=journal_events,
        journal_bytes=journal_bytes,
        feed_states=dict(feed_states),
        named_feeds=tuple(_named(name, counts, live.get(name)) for name, counts in past.feeds.items()),
    )


def _named(name: str, past: Counter[str], live: Any) -> NamedFeedStatistics:
    if live is None:
        return NamedFeedStatistics(name, CLOSED, 0, None, dict(past))
    now = _counts(live)
    return NamedFeedStatistics(
        name, live.state, live.topics, live.last_byte_at, {key: past[key] + now[key] for key in FEED_COUNTERS}
    )


def _counts(statistics: Any) -> dict[str, int]:
    return {key: getattr(statistics, key, 0) for key in FEED_COUNTERS}
