"""`trio-swarm serve`: feeds, channels and an author's objects, over SSE and WebSocket."""

from collections.abc import Iterable
from functools import partial
from urllib.parse import quote

import attrs
import click

from trio_swarm.cli.options import Asked, service_options
from trio_swarm.cli.standard_output import announce
from trio_swarm.settings import Settings


@click.command(short_help="Serve feeds, channels and your objects.")
@service_options
def serve(asked: Asked) -> None:
    """Serve feeds (hub/NAME), channels (channel/ANYTHING) and your own objects until Ctrl-C.

    What objects store is kept in --store: `objects` shows it, `backup` copies it.

    SIGHUP reads the settings again: the same process begins anew, and who connects meanwhile waits.

    What no option says is as the settings say; the defaults below hold where they say nothing either.
    """
    # ruff: noqa: PLC0415 - a server takes its time to import, and `--help` need not wait for it
    import trio

    from trio_swarm.cli.checks import examine, log_doubts, require
    from trio_swarm.cli.reloading import Reloading

    reloading = Reloading.begin()
    if reloading.given_bind is not None:
        asked = attrs.evolve(asked, bind=reloading.given_bind)
    examined = examine(asked)
    settings = require(examined)
    from trio_swarm.cli.running import run_service  # knows Hypercorn's inside, so not before that has been looked at

    kinds = [cls.kind for cls in examined.objects]

    def tell(urls: list[str]) -> None:
        announce(*_addresses(settings, kinds, urls))
        log_doubts(examined)

    trio.run(partial(run_service, settings, objects=examined.objects, on_ready=tell, reloading=reloading))
    if reloading.wanted:
        reloading.execute()


def _addresses(settings: Settings, kinds: Iterable[str], urls: list[str]) -> list[str]:
    return [
        *(f"trio-swarm serves on {url}" for url in urls),
        *(f"  {urls[0]}/v1/hub/{quote(feed.name, safe='')}/events" for feed in settings.feed),
        *(f"  {urls[0]}/v1/{kind}/…/events" for kind in kinds),
    ]
