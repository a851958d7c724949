"""What the access log costs: `.venv/bin/python benchmarks/access_log.py` prints one JSON object.

Alone: microseconds for a line, from the request's end to the sink's buffer, and the same with the thread that writes
it to /dev/null, in CPU time. In a service: the edge answers `GET /healthz` through ASGI with and without the log, in
turns of a short segment each, so that whatever drifts falls on both; there is no socket and no host below it, so the
ratio is the worst there can be.
"""

import json
import os
import statistics
import time
from functools import partial
from typing import Any

import trio

from trio_swarm.edge.access import AccessLog, Answer
from trio_swarm.edge.app import Edge
from trio_swarm.edge.telling import Telling
from trio_swarm.health.line_sink import LineSink
from trio_swarm.health.logs import Log
from trio_swarm.runtime import open_swarm
from trio_swarm.settings import Settings

LINES = 20_000  # a round of some 60 ms; 3 MB, so the sink's bound is raised for it
REQUESTS = 2_000  # a segment of some 50 ms
ROUNDS = 15
SCOPE: dict[str, Any] = {
    "type": "http",
    "http_version": "1.1",
    "method": "GET",
    "path": "/healthz",
    "raw_path": b"/healthz",
    "root_path": "",
    "query_string": b"",
    "headers": [(b"host", b"localhost")],
    "client": ("127.0.0.1", 54_321),
    "state": {},
}
STREAM_PATH = {**SCOPE, "raw_path": b"/v1/game/arsenal-chelsea/call/goal", "method": "POST"}


async def nowhere(_message: Any) -> None:
    """Send to nobody."""


async def nothing() -> Any:
    """Receive the end of the body."""
    return {"type": "http.request", "body": b"", "more_body": False}


def line_us(form: Any) -> float:
    """CPU microseconds a line, into a list."""
    lines: list[bytes] = []
    log = AccessLog(lines.append, form)
    answer = Answer(nowhere)
    answer.status, answer.sent_bytes = 200, 16
    began = time.thread_time()
    for _ in range(LINES):
        log.note(STREAM_PATH, answer)
    return (time.thread_time() - began) / LINES * 1e6


def written_us() -> float:
    """CPU microseconds a line of this whole process, until it is out."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    sink = LineSink(partial(os.write, descriptor), lambda _: b"", limit_bytes=1 << 30)
    log = AccessLog(sink.write, "json")
    answer = Answer(nowhere)
    answer.status, answer.sent_bytes = 200, 16
    began = time.process_time()
    for _ in range(LINES):
        log.note(STREAM_PATH, answer)
    sink.close()
    taken = (time.process_time() - began) / LINES * 1e6
    os.close(descriptor)
    return taken


async def requests_us(edge: Edge) -> float:
    """CPU microseconds a request of this process, the sink's thread with it."""
    began = time.process_time()
    for _ in range(REQUESTS):
        await edge(SCOPE, nothing, nowhere)
    return (time.process_time() - began) / REQUESTS * 1e6


async def main() -> None:
    """Measure, print."""
    descriptor = os.open(os.devnull, os.O_WRONLY)
    sink = LineSink(partial(os.write, descriptor), lambda _: b"")
    figures: dict[str, list[float]] = {"line_us": [], "line_console_us": [], "written_us": [], "on": [], "off": []}
    async with open_swarm() as swarm, trio.open_nursery() as nursery:
        settings = Settings(access_log=True)
        edge = Edge(swarm.directory, settings)
        Telling(edge, swarm.sources, settings, Log(sink, "json"))
        await nursery.start(edge.run)
        log = edge.answered.log
        for _ in range(ROUNDS):
            figures["line_us"].append(line_us("json"))
            figures["line_console_us"].append(line_us("console"))
            figures["written_us"].append(written_us())
            edge.answered.log = log
            figures["on"].append(await requests_us(edge))
            edge.answered.log = None
            figures["off"].append(await requests_us(edge))
        nursery.cancel_scope.cancel()
    sink.close()
    os.close(descriptor)
    middle = {name: statistics.median(values) for name, values in figures.items()}
    ratios = [on / off for on, off in zip(figures["on"], figures["off"], strict=True)]
    print(
        json.dumps(
            {
                "line_us": round(middle["line_us"], 2),
                "line_console_us": round(middle["line_console_us"], 2),
                "line_us_until_written": round(middle["written_us"], 2),
                "request_us_with": round(middle["on"], 2),
                "request_us_without": round(middle["off"], 2),
                "ratio": round(statistics.median(ratios), 3),
                "dropped": sink.statistics().dropped,
            }
        )
    )


if __name__ == "__main__":
    trio.run(main)
