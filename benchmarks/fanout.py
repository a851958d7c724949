"""What a delivered event costs, beside what the kernel asks for it anyway.

    .venv/bin/python benchmarks/fanout.py --transport sse --clients 1000 --bursts 300 --burst 1
    .venv/bin/python benchmarks/fanout.py --all

The service, the floor and the clients are processes of their own. One run prints one JSON object; `--all` prints one
JSON object a line and then the whole table. README.md says what the figures mean.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.children import ChildError
from benchmarks.measuring import Plan, measure

_DELIVERIES_MOST = 100_000_000
_FAULTS = ("lost", "repeated", "disordered", "closed", "malformed")


def main() -> None:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description="What a delivered event costs, beside the floor of this machine.")
    option = parser.add_argument
    option("--transport", choices=["sse", "ws"], default="sse")
    option("--clients", type=int, default=1_000)
    option("--bursts", type=int, default=400, help="turns that publish")
    option("--burst", type=int, default=1, help="events published in one turn")
    option("--topics", type=int, default=0, help="each event goes to one of so many topics; a client reads one")
    option("--paced", type=float, metavar="RATE", help="bursts a second; without it, as fast as they go")
    option("--no-pin", action="store_true", help="let the system choose the cores")
    option("--profile", action="store_true", help="profile the service to stderr (its figures then mean little)")
    option("--limit-s", type=float, default=120.0, help="seconds that a measured part may take")
    option("--all", action="store_true", help="the whole table: a few minutes")
    given = parser.parse_args()
    if not 0 < given.clients * given.bursts * given.burst <= _DELIVERIES_MOST * max(1, given.topics):
        parser.error(f"there would be no delivery, or more than {_DELIVERIES_MOST}")
    try:
        if given.all:
            table(pin=not given.no_pin)
            return
        plan = Plan(
            transport=given.transport,
            clients=given.clients,
            bursts=given.bursts,
            burst=given.burst,
            topics=given.topics,
            paced=given.paced,
            pin=not given.no_pin,
            profile=given.profile,
            limit_s=given.limit_s,
        )
        result = measure(plan)
    except ChildError as error:
        sys.exit(f"fanout: {error}")
    profile = result.pop("profile")
    print(json.dumps(result))
    if profile:
        print(profile, file=sys.stderr)


def _plans(*, pin: bool) -> Iterator[tuple[str, Plan]]:
    for transport in ("sse", "ws"):
        yield "burst 1", Plan(transport, 1_000, 400, pin=pin)
        yield "burst 10", Plan(transport, 1_000, 200, 10, pin=pin)
        yield "burst 100", Plan(transport, 1_000, 100, 100, pin=pin)
        yield "small", Plan(transport, 100, 4_000, pin=pin)
        yield "large", Plan(transport, 10_000, 40, pin=pin)
        yield "paced", Plan(transport, 1_000, 100, paced=20.0, pin=pin)
        yield "two alone", Plan(transport, 2, 10_000, topics=1, pin=pin)
        yield "two of 2,000", Plan(transport, 2_000, 10_000, topics=1_000, pin=pin)


def table(*, pin: bool) -> None:
    """Run everything; print JSON lines as they come, then the table, then the targets."""
    results: dict[tuple[str, str], dict[str, Any]] = {}
    for name, plan in _plans(pin=pin):
        result = measure(plan)
        del result["profile"]
        results[plan.transport, name] = result
        print(json.dumps({"name": name, **result}), flush=True)
    print()
    print(
        f"{'':4} {'run':13} {'cpu us':>8} {'floor us':>9} {'ratio':>7} {'events/s':>9} "
        f"{'p50 ms':>8} {'p95 ms':>8} {'p99 ms':>8} {'KB':>6} {'faults':>6}"
    )
    for (transport, name), result in results.items():
        latency = result["latency_ms"]
        print(
            f"{transport:4} {name:13} {result['cpu_us_per_event']:8.3f} {result['floor_us_per_send']:9.3f} "
            f"{result['ratio_to_floor']:7.3f} {result['deliveries_per_s']:9} {latency['p50']:8.2f} "
            f"{latency['p95']:8.2f} {latency['p99']:8.2f} {result['memory_kb_per_connection']:6.1f} {_faults(result):6}"
        )
    print()
    for transport in ("sse", "ws"):
        for claim, value, most in _claims({name: r for (t, name), r in results.items() if t == transport}, transport):
            print(f"{transport:4} {claim:50} {value:8.3f}  at most {most:<6} {'met' if value <= most else 'MISSED'}")


def _faults(result: dict[str, Any]) -> int:
    return sum(int(result[name]) for name in _FAULTS) + (not result["complete"])


def _claims(results: dict[str, dict[str, Any]], transport: str) -> Iterator[tuple[str, float, float]]:
    """Yield what is wanted, what is, and the most it may be."""
    ratio = {name: result["ratio_to_floor"] for name, result in results.items()}
    sizes = [ratio["small"], ratio["burst 1"], ratio["large"]]
    pair = results["two of 2,000"]["cpu_us_per_event"] / results["two alone"]["cpu_us_per_event"]
    yield "1,000 clients, burst 1: to the floor", ratio["burst 1"], 1.6
    yield "1,000 clients, burst 10: to the floor", ratio["burst 10"], 0.25
    yield "1,000 clients, burst 100: to the floor", ratio["burst 100"], 0.05
    yield "100 to 10,000 clients: largest ratio by smallest", max(sizes) / min(sizes), 1.3
    yield "two of 2,000 subscribers by two alone", pair, 2.0
    yield "KB a connection, idle", results["burst 1"]["memory_kb_per_connection"], 24 if transport == "sse" else 28
    yield "faults in all runs", float(sum(_faults(result) for result in results.values())), 0


if __name__ == "__main__":
    main()
