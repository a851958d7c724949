"""What slow peers cost honest clients: latency and CPU with hundreds of each kind, and without, in one run.

    .venv/bin/python benchmarks/hostile.py --each 300

Phases alternate, so that whatever else the machine does falls on both. README.md says what the figures mean.
"""

import argparse
import contextlib
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.children import Child, ChildError, cores
from benchmarks.payload import STREAM

LIMITS_S = {  # of each kind, with the service's ordinary settings (docs/deadlines.md); those that live longest first
    "black hole": 45.0, "stopped stream": 30.0, "stopped websocket": 30.0, "dripping stream": 30.0, "pong": 30.0,
    "frame": 20.0, "message": 20.0, "body": 16.0, "idle": 15.0, "silence": 10.0, "head": 10.0, "close": 2.0,
    "goodbye": 2.0,
}  # fmt: skip
KINDS = list(LIMITS_S)
ATTACKED = "bench/quiet"  # the same events, on an object that no honest client reads
_PATIENCE_S = 160.0
_SETTLE_S = 1.0


class Hostile:
    """The processes, and the phases."""

    def __init__(self, server: Child, clients: Child, attackers: Child, given: argparse.Namespace) -> None:
        self._server = server
        self._clients = clients
        self._attackers = attackers
        self._given = given
        url = urlsplit(server.hear(_PATIENCE_S)["urls"][0])
        self._address = [url.hostname, url.port]
        self.published = 0
        for transport in ("sse", "ws"):
            half = given.clients // 2
            clients.ask(
                _PATIENCE_S, do="connect", address=self._address, transport=transport, clients=half, stream=STREAM
            )

    def phase(self, *, hostile: bool) -> dict[str, Any]:
        """Publish for a while, with attackers or without."""
        given = self._given
        if hostile:
            plan = {"address": self._address, "stream": ATTACKED, "kinds": KINDS, "each": given.each}
            self._attackers.ask(_PATIENCE_S, **plan)
        bursts = round(given.seconds * given.rate)
        self._clients.ask(_PATIENCE_S, do="forget")
        clients = given.clients // 2 * 2
        self._clients.tell(do="expect", events=bursts * clients, timeout_s=_PATIENCE_S)
        served = self._server.ask(
            _PATIENCE_S,
            bursts=bursts,
            burst=1,
            warm=0,
            rate=given.rate,
            timeout_s=_PATIENCE_S,
            profile=False,
            delivered=True,
        )
        heard = self._clients.hear(_PATIENCE_S)
        self.published += bursts
        lived_s = self._attackers.ask(_PATIENCE_S, end=True)["lived_s"] if hostile else {}
        report = self._clients.ask(_PATIENCE_S, do="report", settle_s=_SETTLE_S)
        if served["stuck"] or not heard["complete"]:
            raise ChildError(f"a phase was not delivered: {served}, {heard}")
        return {
            "p50_ms": report["latency_ms"]["p50"],
            "p99_ms": report["latency_ms"]["p99"],
            "cpu_us": served["cpu_s"] / (bursts * clients) * 1e6,
            "lived_s": lived_s,
        }

    def faults(self) -> dict[str, Any]:
        """What the honest have lost; nothing, or this benchmark has failed."""
        return self._clients.ask(_PATIENCE_S, do="check", due=[self.published])


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description="What slow peers cost honest clients.")
    option = parser.add_argument
    option("--each", type=int, default=300, help="attackers of each kind")
    option("--clients", type=int, default=50, help="honest clients, half of them over SSE, half over WebSocket")
    option("--rate", type=float, default=20.0, help="events a second")
    option("--seconds", type=float, default=5.0, help="of a phase, once for publishing alone and once with readers")
    option("--rounds", type=int, default=4, help="phases without attackers, and as many with")
    option("--no-pin", action="store_true", help="let the system choose the cores")
    given = parser.parse_args()
    try:
        print(json.dumps(measure(given)))
    except ChildError as error:
        sys.exit(f"hostile: {error}")


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Run all phases.

    Raises:
        ChildError: a process died, something did not come in time, or an honest client missed something.
    """
    began = time.monotonic()
    server_core, client_core = cores(pin=not given.no_pin)
    options = json.dumps({"topics": 0, "clients": given.clients // 2 * 2})
    phases: dict[bool, list[dict[str, Any]]] = {False: [], True: []}
    with contextlib.ExitStack() as stack:
        child = stack.enter_context
        run = Hostile(
            child(Child("service", options, cpu=server_core)),
            child(Child("clients", cpu=client_core)),
            child(Child("attackers", cpu=client_core)),
            given,
        )
        for _ in range(given.rounds):
            for hostile in (False, True):
                phases[hostile].append(run.phase(hostile=hostile))
        faults = run.faults()
    if any(faults.values()):
        raise ChildError(f"honest clients missed something: {faults}")

    def middle(name: str, *, hostile: bool) -> float:
        return statistics.median(float(phase[name]) for phase in phases[hostile])

    result: dict[str, Any] = {"clients": given.clients, "attackers": given.each * len(KINDS), "rounds": given.rounds}
    for name in ("p50_ms", "p99_ms", "cpu_us"):
        without, with_them = middle(name, hostile=False), middle(name, hostile=True)
        result[name] = {
            "without": round(without, 3),
            "with": round(with_them, 3),
            "ratio": round(with_them / without, 2),
            "each": [[round(phase[name], 2) for phase in phases[hostile]] for hostile in (False, True)],
        }
    result["cut"] = sum(len(lived) for phase in phases[True] for lived in phase["lived_s"].values())
    result["lived_s"] = _lives(phases[True])
    return {**result, **faults, "took_s": round(time.monotonic() - began, 1)}


def _lives(phases: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Say how long attackers lived, from being slow to their end, beside their limit: of each kind that was cut off.

    Those that nothing tells of their end (`STAYING`) are not seen here, nor whom a phase was too short for.
    """
    lives: dict[str, dict[str, float]] = {}
    for kind, limit in LIMITS_S.items():
        lived = [each for phase in phases for each in phase["lived_s"].get(kind, [])]
        if lived:
            lives[kind] = {
                "limit": limit,
                "median": round(statistics.median(lived), 2),
                "largest": round(max(lived), 2),
                "cut": len(lived),
            }
    return lives


if __name__ == "__main__":
    main()
