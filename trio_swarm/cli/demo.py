"""`trio-swarm demo`: a simulated feed, the hub that reads it, and a page on which its matches move."""

import os
import random
import time
from functools import partial

import attrs
import click
import trio

from trio_swarm.cli.checks import check_service
from trio_swarm.cli.options import with_options
from trio_swarm.cli.running import run_service
from trio_swarm.demo import Simulation, feed_settings, page_routes, serve_feed
from trio_swarm.settings import Settings
from trio_swarm.settings_loading import load


@click.command(short_help="Show live matches on a page: a simulated feed, the hub, the board.")
@click.option(
    "--bind", metavar="HOST:PORT", help="Where the page is; 127.0.0.1:8000 unless the environment says otherwise."
)
@click.option("--seed", type=int, help="The same seed plays the same matches; any other number, others.")
@click.option("--control", metavar="PATH", help="The socket that `top` looks at, or `off`; one is found by default.")
@click.option("--open", "open_", is_flag=True, default=None, help="Listen beyond this machine.")
def demo(*, bind: str | None, seed: int | None, control: str | None, open_: bool | None) -> None:
    """Simulate live football matches as a WebSocket feed, serve them, and show them on a page, until Ctrl-C."""
    settings = with_options(load(None, os.environ), bind=bind, control=control, open=open_)
    check_service(settings)
    if seed is None:
        seed = random.SystemRandom().randrange(10_000)
    trio.run(_demo, settings, seed)


async def _demo(settings: Settings, seed: int) -> None:
    async with trio.open_nursery() as nursery:
        feed = await nursery.start(serve_feed, Simulation(seed), lambda: time.time_ns() // 1_000_000)
        settings = attrs.evolve(settings, feed=(feed_settings(feed),))
        await run_service(settings, pages=page_routes(), on_ready=partial(_tell, feed, seed))
        nursery.cancel_scope.cancel()


def _tell(feed: str, seed: int, urls: list[str]) -> None:
    click.echo(f"Live board: {urls[0]}/   (Ctrl-C ends it)")
    click.echo(f"  the feed    {feed}   (--seed {seed})")
    click.echo(f"  as SSE      curl -N {urls[0]}/v1/hub/demo/events")
