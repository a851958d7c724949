"""`trio-swarm serve`: feeds, channels and an author's objects, over SSE and WebSocket."""

import importlib
import os
import sys
import traceback
from functools import partial
from urllib.parse import unquote

import attrs
import click
import trio

from trio_swarm.cli.running import check, run_service, with_options
from trio_swarm.errors import SettingsError
from trio_swarm.objects.durable import DurableObject
from trio_swarm.settings import FeedSettings, Settings, load


@click.command(short_help="Serve feeds, channels and your objects.")
@click.option("--bind", metavar="HOST:PORT", help="Where to listen; 127.0.0.1:8000 unless the settings say otherwise.")
@click.option("--config", metavar="FILE", type=click.Path(), help="Settings in TOML.")
@click.option(
    "--feed",
    "feeds",
    multiple=True,
    metavar="NAME=PROTOCOL:URL[#TOPIC,…]",
    help="Serve a feed as hub/NAME; again for more. With topics it connects now, else when somebody wants one.",
)
@click.option("--objects", "module", metavar="MODULE", help="Serve the DurableObject classes of a Python module.")
@click.option("--store", metavar="STORE", help="Where objects keep their state; this version knows memory: alone.")
@click.option("--open", "open_", is_flag=True, default=None, help="Listen beyond this machine, open to everybody.")
def serve(
    *,
    bind: str | None,
    config: str | None,
    feeds: tuple[str, ...],
    module: str | None,
    store: str | None,
    open_: bool | None,
) -> None:
    """Serve feeds (hub/NAME), channels (channel/ANYTHING) and your own objects until Ctrl-C."""
    settings = with_options(load(config, os.environ), bind=bind, open=open_, store=store)
    settings = add_feeds(settings, [parse_feed(text) for text in feeds])
    check(settings)
    objects = load_objects(module) if module else []
    trio.run(partial(run_service, settings, objects=objects, on_ready=partial(_tell, settings, objects)))


def parse_feed(text: str) -> FeedSettings:
    """Read `NAME=PROTOCOL:URL[#TOPIC,…]`; a `,` or `#` in a topic is percent-encoded.

    Raises:
        SettingsError: it has not this shape.
    """
    name, equals, rest = text.partition("=")
    protocol, colon, address = rest.partition(":")
    url, _, topics = address.partition("#")
    if not (equals and colon and name and protocol and "://" in url):
        raise SettingsError("--feed", f"{text!r} is not NAME=PROTOCOL:URL, such as cb=coinbase:wss://host/path#BTC-USD")
    return FeedSettings(name, url, protocol, tuple(unquote(topic) for topic in topics.split(",") if topic))


def add_feeds(settings: Settings, feeds: list[FeedSettings]) -> Settings:
    """The settings with the command line's feeds beside their own.

    Raises:
        SettingsError: two have one name.
    """
    joined = (*settings.feed, *feeds)
    names = [feed.name for feed in joined]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError("--feed", f"two feeds are called {name!r}")
    return attrs.evolve(settings, feed=joined)


def load_objects(module: str) -> list[type[DurableObject]]:
    """Import a module, from the working directory too, and find the classes that it defines.

    Raises:
        SettingsError: it cannot be imported, or has none.
    """
    where = f"--objects {module}"
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module and not module.startswith(f"{error.name}."):
            raise SettingsError(where, f"imports {error.name}, and there is no such module") from error
        raise SettingsError(where, "there is no such module, here or on Python's path") from error
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise SettingsError(where, f"{type(error).__name__} at {place.filename}:{place.lineno}: {error}") from error
    found = [
        value
        for value in vars(loaded).values()
        if isinstance(value, type) and issubclass(value, DurableObject) and value.__module__ == loaded.__name__
    ]
    if not found:
        raise SettingsError(where, "defines no subclass of DurableObject")
    return found


def _tell(settings: Settings, objects: list[type[DurableObject]], urls: list[str]) -> None:
    for url in urls:
        click.echo(f"trio-swarm serves on {url}")
    for feed in settings.feed:
        click.echo(f"  {urls[0]}/v1/hub/{feed.name}/events")
    for cls in objects:
        click.echo(f"  {urls[0]}/v1/{cls.kind}/…/events")
