"""A recorded session of a real feed, at twenty times its speed, to four hundred clients: who got what, byte for byte.

    .venv/bin/python benchmarks/capture.py [--speed 20] [--clients 200] [--file ../shared/captures/coinbase.jsonl]

The capture goes through `trio-swarm replay` and `trio-swarm serve --feed`, each a process of its own, to as many SSE
as WebSocket clients, half of them on all topics and half on one. What each should have is read from the capture here,
with nothing of trio_swarm in between; a client's events are compared by the hash of their bytes in order. Prints one
JSON object.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import attrs

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.children import ROOT, Child, ChildError, Command, cores

_STREAM = "hub/coinbase"
_NO_EVENTS = {"subscriptions", "heartbeat", "status", "error"}
_CONNECT_S = 60.0
_PATIENCE_S = 60.0  # beyond the capture's own length
_SETTLE_S = 0.5


@attrs.define
class Expected:
    """What a client of some topic, or of all, has at the end."""

    events: int = 0
    digest: Any = attrs.field(factory=lambda: hashlib.blake2b(digest_size=16))

    def add(self, data: bytes) -> None:
        """Add an event."""
        self.events += 1
        self.digest.update(data + b"\n")


def read_capture(path: Path) -> tuple[float, dict[str | None, Expected]]:
    """Return the capture's length in seconds, and what is due by topic; None stands for all."""
    due: dict[str | None, Expected] = {None: Expected()}
    with path.open("rb") as lines:
        head = json.loads(next(lines))
        for line in lines:
            frame = json.loads(line)
            if frame["dir"] != "in":
                continue
            message = json.loads(frame["data"])
            if message["type"] in _NO_EVENTS:
                continue
            data = frame["data"].encode()
            due[None].add(data)
            due.setdefault(message["product_id"], Expected()).add(data)
    return head["seconds"], due


def measure(path: Path, speed: float, clients: int, *, pin: bool) -> dict[str, Any]:
    """Run it once; `clients` of each transport."""
    seconds, due = read_capture(path)
    topics = sorted(topic for topic in due if topic is not None)
    server_core, client_core = cores(pin=pin)
    half = clients // 2
    with (
        Command("replay", str(path), "--bind", "127.0.0.1:0", "--speed", str(speed), cpu=client_core) as replay,
        Command(
            "serve",
            "--bind",
            "127.0.0.1:0",
            "--store",
            "memory:",
            "--feed",
            f"coinbase=coinbase:{replay.url.geturl()}",
            cpu=server_core,
        ) as server,
        Child("clients", cpu=client_core) as child,
    ):
        address = [server.url.hostname, server.url.port]
        wanted: list[str | None] = []
        # The upstream is opened for the first client that names a topic: those on all topics come before.
        everything: list[str | None] = [None]
        for wants, transport in ((everything, "sse"), (everything, "ws"), ([*topics], "sse"), ([*topics], "ws")):
            child.ask(
                _CONNECT_S,
                do="connect",
                address=address,
                transport=transport,
                clients=half,
                stream=_STREAM,
                wants=wants,
                since="0-0",
                numbered=False,
            )
            wanted += [wants[index % len(wants)] for index in range(half)]
        total = sum(due[topic].events for topic in wanted)
        began = time.monotonic()
        patience = seconds / speed + _PATIENCE_S
        heard = child.ask(patience + 10.0, do="expect", events=total, timeout_s=patience)
        took = time.monotonic() - began
        report = child.ask(30.0, do="report", settle_s=_SETTLE_S)
        digests = child.ask(30.0, do="digests")["digests"]
        cpu = {"serve": server.cpu_s(), "replay": replay.cpu_s()}
    got = [statistics for _, statistics in digests]
    exact = sum(
        s["events"] == due[topic].events and s["digest"] == due[topic].digest.hexdigest()
        for topic, s in zip(wanted, got, strict=True)
    )
    return {
        "capture": path.name,
        "speed": speed,
        "clients": len(wanted),
        "events": due[None].events,
        "topics": len(topics),
        "deliveries": report["events"],
        "deliveries_due": total,
        "exact_clients": exact,
        "lost": sum(max(0, due[topic].events - s["events"]) for topic, s in zip(wanted, got, strict=True)),
        "repeated": sum(s["repeated"] for s in got),
        "disordered": sum(s["disordered"] for s in got),
        "closed": report["closed"],
        "malformed": report["malformed"],
        "other_messages": report["others"],
        "complete": heard["complete"],
        "seconds_after_connecting": round(took, 2),
        "serve_cpu_s": round(cpu["serve"], 2),
        "serve_cpu_us_per_delivery": round(cpu["serve"] / max(1, report["events"]) * 1e6, 3),
        "replay_cpu_s": round(cpu["replay"], 2),
        "client_cpu_s": round(report["cpu_s"], 2),
        "reads": report["reads"],
        "pinned": [server_core, client_core],
    }


def main() -> None:
    """Read the command line, run, print; exit code 1 where a client did not have exactly its events."""
    shared = Path(os.environ.get("TRIO_SWARM_SHARED", ROOT.parent / "shared"))
    parser = argparse.ArgumentParser(description="A capture through replay and serve, checked by hash.")
    parser.add_argument("--file", type=Path, default=shared / "captures" / "coinbase.jsonl")
    parser.add_argument("--speed", type=float, default=20.0)
    parser.add_argument("--clients", type=int, default=200, help="of each transport")
    parser.add_argument("--no-pin", action="store_true", help="let the system choose the cores")
    given = parser.parse_args()
    if not 2 <= given.clients <= 4_000:
        parser.error("--clients lies between 2 and 4000")
    try:
        result = measure(given.file, given.speed, given.clients, pin=not given.no_pin)
    except (ChildError, OSError) as error:
        sys.exit(f"capture: {error}")
    print(json.dumps(result))
    sys.exit(result["exact_clients"] != result["clients"])


if __name__ == "__main__":
    main()
