"""`trio-swarm demo`: a simulated feed, the hub that reads it, and a page on which its matches move."""

import os
import random
import time
from functools import partial

import attrs
import click

from trio_swarm.cli.options import BIND, CONTROL, OPEN, with_options
from trio_swarm.cli.standard_output import announce
from trio_swarm.settings import Settings
from trio_swarm.settings_loading import load


@click.command(short_help="Show live matches on a page: a simulated feed, the hub, the board.")
@BIND
@click.option("--seed", type=int, help="The same seed plays the same matches; any other number, others.")
@CONTROL
@OPEN
def demo(*, bind: str | None, seed: int | None, control: str | None, open_: bool | None) -> None:
    """Simulate live football matches as a WebSocket feed, serve them, and show them on a page, until Ctrl-C."""
    import trio  # noqa: PLC0415 - see `serve`

    from trio_swarm.cli.checks import check_service  # noqa: PLC0415

    settings = with_options(load(None, os.environ), bind=bind, control=control, open=open_)
    check_service(settings)
    if seed is None:
        seed = random.SystemRandom().randrange(10_000)
    trio.run(_demo, settings, seed)


async def _demo(settings: Settings, seed: int) -> None:
    import trio  # noqa: PLC0415 - see `serve`

    from trio_swarm.cli.running import run_service  # noqa: PLC0415
    from trio_swarm.demo import Simulation, feed_settings, page_routes, serve_feed  # noqa: PLC0415

    async with trio.open_nursery() as nursery:
        feed = await nursery.start(serve_feed, Simulation(seed), lambda: time.time_ns() // 1_000_000)
        settings = attrs.evolve(settings, feed=(feed_settings(feed),))
        await run_service(settings, pages=page_routes(), on_ready=partial(_tell, feed, seed))
        nursery.cancel_scope.cancel()


def _tell(feed: str, seed: int, urls: list[str]) -> None:
    announce(
        f"Live board: {urls[0]}/   (Ctrl-C ends it)",
        f"  the feed    {feed}   (--seed {seed})",
        f"  as SSE      curl -N {urls[0]}/v1/hub/demo/events",
    )
