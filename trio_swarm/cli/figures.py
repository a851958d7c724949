"""What `top` shows, worked out from two looks at a service: rates are what happened between them."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs

SHOWN: Final = 5  # of a list in which the worst stand first

Told = Mapping[str, Any]


@attrs.frozen
class Look:
    """A line of the control socket."""

    told: Told

    @property
    def statistics(self) -> Told:
        """All of them."""
        part: Told = self.told["statistics"]
        return part

    def number(self, *path: str) -> float:
        """A figure by its place in the statistics; 0 where there is none."""
        part: Any = self.statistics
        for name in path:
            part = part.get(name) if isinstance(part, Mapping) else None
        return part if isinstance(part, int | float) else 0

    def parts(self, *path: str) -> Sequence[Told]:
        """A list by its place in the statistics; empty where there is none."""
        part: Any = self.statistics
        for name in path:
            part = part.get(name) if isinstance(part, Mapping) else None
        return part if isinstance(part, list) else []

    @property
    def streaming(self) -> float:
        """Clients with streams."""
        return self.number("clients", "sse") + self.number("clients", "websocket")


@attrs.frozen
class BusyObject:
    """A live object, and what share of the time it spent in turns."""

    name: str
    state: str
    busy: float
    turns_s: float
    waiting: int
    longest_s: float


@attrs.frozen
class FeedRate:
    """A feed, and how many events it brought a second."""

    name: str
    object: str
    state: str
    events_s: float
    failures: int
    reason: str


@attrs.frozen
class Rates:
    """What happened a second."""

    published: float
    deliveries: float
    delivered_bytes: float
    opened: float
    ended: float
    turns: float
    cpu: float  # 1 is a core

    @classmethod
    def between(cls, before: Look, now: Look) -> "Rates":
        """Of these two looks; all 0 where there was no time between them, or another service."""
        seconds = seconds_between(before, now)

        def rate(*path: str) -> float:
            return max(0.0, now.number(*path) - before.number(*path)) / seconds if seconds else 0.0

        opened = rate("clients", "opened")
        more = (now.streaming - before.streaming) / seconds if seconds else 0.0
        return cls(
            published=rate("streams", "broadcaster", "published"),
            deliveries=rate("streams", "broadcaster", "deliveries"),
            delivered_bytes=rate("streams", "broadcaster", "delivered_bytes"),
            opened=opened,
            ended=max(0.0, opened - more),
            turns=rate("directory", "turns"),
            cpu=rate("process", "cpu_s"),
        )


def seconds_between(before: Look, now: Look) -> float:
    """How long the service lived between two looks; 0 where it began anew."""
    return max(0.0, now.number("uptime_s") - before.number("uptime_s"))


def busiest(before: Look, now: Look) -> list[BusyObject]:
    """The objects that spent the most time in turns, or have the most waiting."""
    seconds = seconds_between(before, now)
    earlier = {(each["kind"], each["id"]): each for each in before.parts("objects")}
    found = []
    for each in now.parts("objects"):
        past = earlier.get((each["kind"], each["id"]), {"busy_s": 0.0, "turns": 0})
        busy = max(0.0, each["busy_s"] - past["busy_s"])
        turns = max(0, each["turns"] - past["turns"])
        found.append(
            BusyObject(
                name=f"{each['kind']}/{each['id']}",
                state=each["state"],
                busy=busy / seconds if seconds else 0.0,
                turns_s=turns / seconds if seconds else 0.0,
                waiting=sum(each["mailbox"].values()),
                longest_s=each["longest_s"],
            )
        )
    found.sort(key=lambda each: (each.busy, each.waiting, each.longest_s), reverse=True)
    return found[:SHOWN]


def feeds(before: Look, now: Look) -> list[FeedRate]:
    """All feeds of live objects."""
    seconds = seconds_between(before, now)
    earlier = {(each["object"], each["name"]): each["statistics"] or {} for each in before.parts("directory", "feeds")}
    found = []
    for each in now.parts("directory", "feeds"):
        told = each["statistics"] or {}
        more = told.get("events", 0) - earlier.get((each["object"], each["name"]), {}).get("events", 0)
        found.append(
            FeedRate(
                name=each["name"],
                object=each["object"],
                state=each["state"],
                events_s=max(0.0, more) / seconds if seconds else 0.0,
                failures=told.get("failures", 0),
                reason=told.get("reason") or "",
            )
        )
    return found


def summary(before: Look, now: Look) -> dict[str, Any]:
    """All of the above as plain data, with what the service told."""
    return {
        "rates": attrs.asdict(Rates.between(before, now)),
        "busiest": [attrs.asdict(each) for each in busiest(before, now)],
        "feeds": [attrs.asdict(each) for each in feeds(before, now)],
        **now.told,
    }
