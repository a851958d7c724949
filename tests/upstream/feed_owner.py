"""What an object is to its feed, for tests of feeds."""

import random

import trio

from trio_swarm.settings import UpstreamSettings
from trio_swarm.testing.leaks import assert_no_leaks
from trio_swarm.testing.upstream import ScriptedUpstream
from trio_swarm.upstream.feed import WebSocketFeed

SEED = 7  # of the jitter


class Owner:
    """What an object is to its feed: takes events, hears of states. Runs the feed in a nursery of its own."""

    def __init__(self, upstream, *, topics=("a",), **more):
        self.upstream = upstream
        self.feed = WebSocketFeed(
            upstream.settings(topics=topics), opener=upstream.open, rng=random.Random(SEED), **more
        )
        self.events = []
        self.states = []
        self.changed = trio.Event()

    async def deliver(self, event):
        self.events.append(event.decode())
        self.change()
        await trio.lowlevel.checkpoint()

    def status(self, state, reason):
        self.states.append((trio.current_time() - self.began, state, reason))
        self.change()

    def change(self):
        self.changed.set()
        self.changed = trio.Event()

    async def run(self):
        self.began = trio.current_time()
        await self.feed.run(self.deliver, self.status)

    async def wait_state(self, state, times=1):
        while sum(told == state for _, told, _ in self.states) < times:
            await self.changed.wait()

    async def wait_event(self, value):
        while not self.events or self.events[-1]["value"] != value:
            await self.changed.wait()


async def run_script(script, until, **more):
    """Run a feed against a script until `until(owner)` returns; then cancel, and look at what is left."""
    upstream = ScriptedUpstream(script)
    owner = Owner(upstream, **more)
    with assert_no_leaks(lambda: ["a byte stream"] * upstream.open_streams):
        async with trio.open_nursery() as nursery:
            await nursery.start(upstream.run)
            nursery.start_soon(owner.run)
            with trio.fail_after(10_000):  # virtual seconds: what hangs is red, not silent
                await until(owner)
            ended = trio.current_time()
            nursery.cancel_scope.cancel()
    assert trio.current_time() - ended <= UpstreamSettings().close_s
    return owner
