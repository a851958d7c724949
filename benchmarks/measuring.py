"""One measurement: the service and the floor, side by side.

Both are alive at once and take turns in short segments, so that whatever drifts meanwhile (a neighbour, the clock of
the processor) drifts for both. Each segment begins with bursts that do not count: TCP acknowledges the first 16
segments of a connection, and the first after a pause, at once and in the sender's time. A figure is the median over
the segments.
"""

import contextlib
import json
import statistics
import time
from typing import Any
from urllib.parse import urlsplit

import attrs

from benchmarks.children import Child, ChildError, cores
from benchmarks.payload import SIZE, STREAM, topic_names

SEGMENTS = 10
PASSES = 3  # of the floor, in each segment
WARM = 20

_MANY = 5_000
_START_S = 30.0
_CONNECT_S = 120.0
_IDLE_S = 2.0  # the service is left alone so long before its memory is read
_NAP_S = 0.0001  # saturated clients look at their sockets this often; see README.md
_SETTLE_S = 0.3  # what comes twice comes by then


@attrs.frozen
class Plan:
    """One run; `paced` is bursts a second."""

    transport: str
    clients: int
    bursts: int
    burst: int = 1
    topics: int = 0
    paced: float | None = None
    pin: bool = True
    profile: bool = False
    limit_s: float = 120.0

    @property
    def segments(self) -> int:
        """A paced run is one piece, and so is one that is profiled."""
        if self.paced or self.profile:
            return 1
        # what goes before each segment takes long with many clients
        return min(SEGMENTS if self.clients <= _MANY else SEGMENTS // 2, self.bursts)

    @property
    def bursts_each(self) -> int:
        """Bursts of one segment."""
        return self.bursts // self.segments

    @property
    def nap_s(self) -> float:
        """Paced clients wait in the kernel: their latency is what counts."""
        return 0.0 if self.paced else _NAP_S

    def published(self, events: int) -> list[int]:
        """How many of so many events each topic has had."""
        topics = max(1, self.topics)
        return [events // topics + (index < events % topics) for index in range(topics)]

    def deliveries(self, events: int) -> int:
        """How many deliveries so many events make."""
        topics = max(1, self.topics)
        readers = [self.clients // topics + (index < self.clients % topics) for index in range(topics)]
        return sum(count * read for count, read in zip(self.published(events), readers, strict=True))


class Floor:
    """The bare sender and its clients."""

    def __init__(self, plan: Plan, server: Child, clients: Child) -> None:
        self._plan = plan
        self._server = server
        self._clients = clients
        address = server.hear(_START_S)["address"]
        server.tell(do="accept", clients=plan.clients)
        clients.ask(_CONNECT_S, do="connect", address=address, transport=plan.transport, clients=plan.clients)
        server.hear(_CONNECT_S)

    def passes(self, count: int) -> list[float]:
        """Return the CPU microseconds a send of each of so many passes."""
        figures = []
        for index in range(WARM + count):
            self._server.tell(do="pass", transport=self._plan.transport)
            done = self._server.hear(_START_S)
            heard = self._clients.ask(_START_S, do="expect", events=done["events"], timeout_s=10.0, nap_s=_NAP_S)
            if not heard["complete"]:
                raise ChildError(f"the floor's clients did not get all of a pass of {done['events']} events")
            if index >= WARM:
                figures.append(float(done["us"]))
        return figures


class Service:
    """The real service and its clients."""

    def __init__(self, plan: Plan, server: Child, clients: Child) -> None:
        self._plan = plan
        self._server = server
        self._clients = clients
        self._events = 0
        self.complete = True
        url = urlsplit(server.hear(_START_S)["urls"][0])
        self._run(delivered=False)
        self.empty = server.rss()
        connected = clients.ask(
            _CONNECT_S,
            do="connect",
            address=[url.hostname, url.port],
            transport=plan.transport,
            clients=plan.clients,
            stream=STREAM,
            wants=topic_names(plan.topics) or [None],
        )
        self.connects_per_s = plan.clients / connected["seconds"]
        time.sleep(_IDLE_S)
        self.idle = server.rss()

    def segment(self) -> dict[str, Any]:
        """Run one segment."""
        plan = self._plan
        warmed = self._events + WARM * max(1, plan.topics)
        events = warmed + plan.bursts_each * plan.burst
        expected = plan.deliveries(events) - plan.deliveries(self._events)
        deliveries = plan.deliveries(events) - plan.deliveries(warmed)
        self._events = events
        self._clients.tell(do="expect", events=expected, timeout_s=2 * plan.limit_s, nap_s=plan.nap_s)
        served = self._run(delivered=True)
        heard = self._clients.hear(3 * plan.limit_s)
        self.complete = self.complete and heard["complete"] and not served["stuck"]
        if served["stuck"]:
            raise ChildError(f"the service did not deliver a segment in {plan.limit_s} s: {served}, {heard}")
        return {
            "deliveries": deliveries,
            "us": (served["cpu_s"] - served["alone_cpu_s"]) / deliveries * 1e6,
            "us_with_publishing": served["cpu_s"] / deliveries * 1e6,
            "publishing_us": served["alone_cpu_s"] / (plan.bursts_each * plan.burst) * 1e6,
            "looking_us": served["looking_cpu_s"] / deliveries * 1e6,
            "seconds": max(1, heard["last_ns"] - served["began_ns"]) / 1e9,
            "writes": served["writes"],
            "passes": served["passes"],
            "profile": served["profile"],
        }

    def report(self) -> dict[str, Any]:
        """Return what the clients counted."""
        report = self._clients.ask(_START_S, do="report", settle_s=_SETTLE_S)
        faults = self._clients.ask(_START_S, do="check", due=self._plan.published(self._events))
        return {**report, "faults": {**faults, "closed": report["closed"], "malformed": report["malformed"]}}

    def end(self) -> dict[str, Any]:
        """Close the clients, then the service; return what is left and how long it took."""
        busy = self._server.rss()
        self._clients.end()
        time.sleep(_SETTLE_S)
        return {"busy": busy, "shutdown_s": self._server.end()}

    def _run(self, *, delivered: bool) -> dict[str, Any]:
        plan = self._plan
        return self._server.ask(
            3 * plan.limit_s,
            bursts=plan.bursts_each,
            burst=plan.burst,
            warm=WARM,
            rate=plan.paced,
            timeout_s=plan.limit_s,
            profile=plan.profile,
            delivered=delivered,
        )


def measure(plan: Plan) -> dict[str, Any]:
    """Run a plan.

    Raises:
        ChildError: a process died, or something did not come in time.
    """
    began = time.monotonic()
    server_core, client_core = cores(pin=plan.pin)
    options = json.dumps({"topics": plan.topics, "clients": plan.clients})
    with contextlib.ExitStack() as stack:
        child = stack.enter_context
        service = Service(
            plan, child(Child("service", options, cpu=server_core)), child(Child("clients", cpu=client_core))
        )
        floor = Floor(plan, child(Child("floor", cpu=server_core)), child(Child("clients", cpu=client_core)))
        sends: list[float] = []
        segments: list[dict[str, Any]] = []
        for _ in range(plan.segments):
            segments.append(service.segment())
            sends += floor.passes(PASSES * SEGMENTS // plan.segments)
        heard = service.report()
        ended = service.end()
    result = _result(plan, sends, segments, service, heard, ended)
    return {**result, "took_s": round(time.monotonic() - began, 1)}


def _result(
    plan: Plan,
    sends: list[float],
    segments: list[dict[str, Any]],
    service: Service,
    heard: dict[str, Any],
    ended: dict[str, Any],
) -> dict[str, Any]:
    def middle(name: str) -> float:
        return statistics.median(float(segment[name]) for segment in segments)

    def total(name: str) -> float:
        return sum(float(segment[name]) for segment in segments)

    cost, floor_us = middle("us"), statistics.median(sends)
    deliveries = round(total("deliveries"))
    return {
        "transport": plan.transport,
        "clients": plan.clients,
        "bursts": plan.bursts_each * plan.segments,
        "burst": plan.burst,
        "topics": plan.topics,
        "paced": plan.paced,
        "cpu_us_per_event": round(cost, 4),
        "cpu_us_per_event_range": [round(pick(s["us"] for s in segments), 4) for pick in (min, max)],
        "cpu_us_per_event_with_publishing": round(middle("us_with_publishing"), 4),
        "publishing_us_per_event": round(middle("publishing_us"), 2),
        "floor_us_per_send": round(floor_us, 4),
        "floor_us_range": [round(min(sends), 4), round(max(sends), 4)],
        "floor_passes": len(sends),
        "ratio_to_floor": round(cost / floor_us, 4),
        "deliveries": deliveries,
        "deliveries_per_s": round(deliveries / total("seconds")),
        "latency_ms": heard["latency_ms"],
        **heard["faults"],
        "complete": service.complete,
        "other_messages": heard["others"],
        "memory_kb_per_connection": round((service.idle - service.empty) / plan.clients / 1024, 2),
        "memory_kb_per_connection_after": round((ended["busy"] - service.empty) / plan.clients / 1024, 2),
        "rss_mb": [round(size / 2**20, 1) for size in (service.empty, service.idle, ended["busy"])],
        "payload_bytes": SIZE,
        "wire_bytes_per_event": round(heard["bytes"] / max(1, heard["events"]), 1),
        "writes": round(total("writes")),
        "passes": round(total("passes")),
        "client_reads_per_event": round(heard["reads"] / max(1, heard["events"]), 4),
        "client_cpu_us_per_event": round(heard["cpu_s"] / max(1, heard["events"]) * 1e6, 3),
        "looking_cpu_us_per_event": round(middle("looking_us"), 4),
        "connects_per_s": round(service.connects_per_s),
        "shutdown_s": round(ended["shutdown_s"], 2),
        "pinned": list(cores(pin=plan.pin)),
        "profile": segments[-1]["profile"],
    }
