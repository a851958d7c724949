"""`trio-swarm serve`: feeds, channels and an author's objects, over SSE and WebSocket."""

from functools import partial

import attrs
import click
import trio

from trio_swarm.cli.checks import Examined, examine, log_doubts, require
from trio_swarm.cli.options import Asked, service_options
from trio_swarm.cli.reloading import Reloading
from trio_swarm.cli.running import run_service
from trio_swarm.settings import Settings


@click.command(short_help="Serve feeds, channels and your objects.")
@service_options
def serve(asked: Asked) -> None:
    """Serve feeds (hub/NAME), channels (channel/ANYTHING) and your own objects until Ctrl-C.

    SIGHUP reads the settings again: the same process begins anew, and who connects meanwhile waits.
    """
    reloading = Reloading.begin()
    if reloading.given_bind is not None:
        asked = attrs.evolve(asked, bind=reloading.given_bind)
    examined = examine(asked)
    settings = require(examined)
    told = partial(_tell, settings, examined)
    trio.run(partial(run_service, settings, objects=examined.objects, on_ready=told, reloading=reloading))
    if reloading.wanted:
        reloading.execute()


def _tell(settings: Settings, examined: Examined, urls: list[str]) -> None:
    for url in urls:
        click.echo(f"trio-swarm serves on {url}")
    for feed in settings.feed:
        click.echo(f"  {urls[0]}/v1/hub/{feed.name}/events")
    for cls in examined.objects:
        click.echo(f"  {urls[0]}/v1/{cls.kind}/…/events")
    log_doubts(examined)
