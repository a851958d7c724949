"""A service in a process of its own, with settings so small that all of them can be filled, which says what it costs.

Commands come as lines of JSON on standard input, each answered by one: `measure`, or something to be done inside.
"""

import ctypes
import gc
import json
import os
import sys
from pathlib import Path

import trio

from trio_swarm.asgi import create_app
from trio_swarm.edge import conversation
from trio_swarm.edge.worker import serve
from trio_swarm.journal.event import Draft
from trio_swarm.objects import directory
from trio_swarm.objects.durable import DurableObject, exposed
from trio_swarm.settings import (
    KIB,
    MIB,
    FeedSettings,
    JournalSettings,
    Limits,
    LivenessSettings,
    ObjectSettings,
    Settings,
    StallSettings,
)
from trio_swarm.upstream.feed import WebSocketFeed


def small_settings(feed_url="ws://127.0.0.1:9/"):
    """Every part some megabytes, so that measuring errors are small beside it."""
    patience_s = 600.0
    return Settings(
        bind="127.0.0.1:0",
        limits=Limits(
            connections=400,
            objects_per_kind=300,
            journals=1_000,
            live_journal_bytes=24 * MIB,
            idle_journal_bytes=12 * MIB,
            subscribed_topics=24_000,
            bodies_bytes=16 * MIB,
            answers_bytes=16 * MIB,
            memory_store_bytes=12 * MIB,
            shared_range_bytes=8 * MIB,
            upstream_frame_bytes=1 * MIB,
        ),
        journal=JournalSettings(bytes=12 * MIB, age_s=patience_s),
        stall=StallSettings(seconds=patience_s),
        liveness=LivenessSettings(ping_s=patience_s, dead_s=2 * patience_s, body_s=patience_s),
        objects=ObjectSettings(turn_s=patience_s, grace_s=1.0, feed_lane=32),
        feed=(FeedSettings("one", feed_url),),
    )


class Room(DurableObject):
    """Holds what it is told to hold. The one called `feed` reads a feed, and never ends its first message."""

    publishable = True
    settings: Settings

    async def start(self):
        if self.id == "feed":
            self.feed(WebSocketFeed(self.settings.feed[0], limits=self.settings.limits))

    async def on_message(self, feed, message):
        await trio.sleep_forever()

    @exposed
    async def hold(self, *what, **more):
        await trio.sleep_forever()

    @exposed
    async def echo(self, text: str):
        return text

    async def keep(self, count: int, size: int):
        for number in range(count):
            self.storage.put(f"key {number:012}", os.urandom(size // 2).hex())


def private_bytes():
    """Memory that is this process's alone, after what is garbage has gone back to the system."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    rollup = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in rollup if line.startswith("Private_Dirty:")) * KIB


async def publish(swarm, *, stream, topics, size, count=1):
    """So many events into each of these topics."""
    kind, _, id_ = stream.partition("/")
    await swarm.get(kind, id_).publish(
        [Draft(os.urandom(size // 2).hex().encode(), topic) for topic in topics for _ in range(count)]
    )


async def repeat(swarm, *, stream, count):
    kind, _, id_ = stream.partition("/")
    for number in range(count):
        await swarm.get(kind, id_).publish([Draft(b"1")], message_id=f"{number:0200}")


async def keep(swarm, *, id, count, size):
    await swarm.get("room", id).keep(count, size)


async def wake(swarm, *, streams):
    """Have these objects live; they stay so, for each has a reader."""
    for stream in streams:
        kind, _, id_ = stream.partition("/")
        swarm.holds.append(swarm.get(kind, id_).watch())
        await swarm.holds[-1].__aenter__()


async def main(answers):
    conversation.REPEAT_S = directory.REPEAT_S = 600.0  # filling takes longer than the usual 5 s on a busy machine
    Room.settings = settings = small_settings(sys.argv[1])
    app = create_app([Room], settings=settings)
    async with trio.open_nursery() as nursery:
        urls = await nursery.start(lambda task_status: serve(app, settings, task_status=task_status))
        app.swarm.holds = []
        print(urls[0].rpartition(":")[2], file=answers)
        stdin = trio.lowlevel.FdStream(os.dup(0))
        rest = b""
        async for received in stdin:
            *lines, rest = (rest + received).split(b"\n")
            for line in lines:
                command = json.loads(line)
                what = command.pop("do")
                answer = {}
                if what == "measure":
                    answer = {"bytes": private_bytes(), "statistics": app.swarm.gather().plain()}
                else:
                    await {"publish": publish, "repeat": repeat, "keep": keep, "wake": wake}[what](app.swarm, **command)
                print(json.dumps(answer), file=answers)
        os._exit(0)  # what is left is garbage


if __name__ == "__main__":
    told = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # where the log goes
    trio.run(main, told)
