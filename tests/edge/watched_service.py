"""The service in a process of its own that tells, when it is asked, everything it holds.

`watched_service.py OPTIONS` (JSON: `foreign`, `plant`, `settings` that differ) prints its port, then answers each line
of standard input with a line of JSON, a census; it ends with standard input. For the line `settled` it first frees
what only waits to be freed: what is past its age, and cyclic garbage.

An object lives for 0.3 s after its last reader and its journal for a second, so that what is still there afterwards
was kept by mistake. Log entries are counted; only errors are written, to standard error, and there must be none.

`plant` (a list) makes the service leak, so that whoever looks at the census can be seen to notice: `memory` keeps a
record of each connection, `task` leaves a task behind for each, `descriptor` keeps one open.
"""

import gc
import json
import os
import sys
import weakref
from collections import Counter
from pathlib import Path

import attrs
import structlog
import trio
from edge_service import KINDS, open_service

from trio_swarm.objects.durable import DurableObject
from trio_swarm.settings import JournalSettings, Limits, LivenessSettings, ObjectSettings, Settings
from trio_swarm.testing import leaks

SETTINGS = attrs.evolve(
    Settings(),
    journal=JournalSettings(events=100, age_s=1.0),
    limits=Limits(journals=200),
    liveness=LivenessSettings(
        ping_s=1.0,  # a foreign host with bytes behind a stream's request sees no client leave: the next writes fail
        keep_alive_s=60.0,  # the publisher is silent while a census settles
    ),
    objects=ObjectSettings(grace_s=0.3),
)
PLANTS = ("memory", "task", "descriptor")
PAINTING = "x" * 300_000  # more than a socket takes at once
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Wall(DurableObject):
    """Its snapshot is on its way for a while."""

    publishable = True

    async def snapshot(self):
        return PAINTING


class EntryCount:
    """A structlog processor: counts entries by level, lets only errors through."""

    def __init__(self):
        self.levels = Counter()

    def __call__(self, logger, method, entry):
        self.levels[method] += 1
        if method in {"debug", "info", "warning"}:
            raise structlog.DropEvent
        return entry


async def settle(service):
    """Free what only waits to be freed."""
    service.swarm.streams.sweep()
    # Trio drops ended scopes from its list of deadlines when there are a thousand of them: end some until it does.
    last = None
    while last is None or last() is not None:
        with trio.CancelScope(deadline=trio.current_time() + 1_000) as scope:
            last = last or weakref.ref(scope)
            await trio.lowlevel.checkpoint()
        del scope
    gc.collect()


def census(service, entries):
    """Everything countable that the service and its process hold."""
    edge, streams = service.edge, service.swarm.streams
    directory, kept = service.swarm.directory, streams.statistics()
    tasks = Counter(task.name for task, _ in leaks._tasks())
    clients = edge.statistics()
    return {
        "tasks": tasks,
        "tasks_living": trio.lowlevel.current_statistics().tasks_living,
        "descriptors": Counter(target.partition(":")[0] for _, target in leaks._descriptors()),
        "connections": service.connection_class.statistics().connections,
        "clients": {"sse": clients.sse, "websocket": clients.websocket},
        "subscriptions": sum(stream.subscribers for stream in kept.streams),
        "objects": len(directory.hosts()),
        "live_streams": kept.live,
        "journals": kept.idle,
        "ranges_bytes": kept.shared_range_bytes,
        "full_sockets": len(edge.writability),
        "publishing": len(directory.publishing),
        "rss": int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES,
        "gc_objects": len(gc.get_objects()),
        "blocks": sys.getallocatedblocks(),
        "aborted": service.connection_class.statistics().aborted,
        "log": entries.levels,
    }


def leaky(plants, nursery):
    """Wrap an application so that it leaks these, for each connection."""
    kept = []

    def wrap(app):
        async def leaking(scope, receive, send):
            if "memory" in plants:
                kept.append(scope)
            if "task" in plants:
                nursery.start_soon(trio.sleep_forever)
            if "descriptor" in plants:
                os.dup(0)
            await app(scope, receive, send)

        return leaking if plants else app

    return wrap


async def main(options):
    """See the module."""
    entries = EntryCount()
    structlog.configure(
        processors=[entries, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    async with trio.open_nursery() as nursery, trio.lowlevel.FdStream(os.dup(0)) as questions:
        wrap = leaky(options.get("plant", ()), nursery)
        settings = SETTINGS
        for group, values in options.get("settings", {}).items():
            settings = attrs.evolve(settings, **{group: attrs.evolve(getattr(settings, group), **values)})
        async with open_service(
            settings, kinds=(*KINDS, Wall), foreign=options.get("foreign", False), wrap=wrap
        ) as service:
            print(service.port, flush=True)
            while question := await questions.receive_some():
                if question == b"settled\n":
                    await settle(service)
                print(json.dumps(census(service, entries)), flush=True)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, json.loads(sys.argv[1]))
