"""`trio-swarm serve`: feeds, channels and an author's objects, over SSE and WebSocket."""

import importlib
import os
import sys
import sysconfig
import traceback
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import attrs
import click
import trio

import trio_swarm
from trio_swarm.cli.running import check, run_service, with_options
from trio_swarm.errors import SettingsError
from trio_swarm.objects.durable import DurableObject
from trio_swarm.settings import FeedSettings, Settings, load


@click.command(short_help="Serve feeds, channels and your objects.")
@click.option("--bind", metavar="HOST:PORT", help="Where to listen; 127.0.0.1:8000 unless the settings say otherwise.")
@click.option(
    "--config",
    metavar="FILE",
    type=click.Path(),
    envvar="TRIO_SWARM_CONFIG",
    show_envvar=True,
    help="Settings in TOML.",
)
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
    objects = [] if module is None else load_objects(module)
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
        SettingsError: it is not the name of a module, cannot be imported, or has none; it says where, or what to write.
    """
    where = f"--objects {module}".rstrip()
    _check_name(module, where)
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module and not module.startswith(f"{error.name}."):
            raise SettingsError(where, f"imports {error.name}, and there is no such module") from error
        raise SettingsError(where, "there is no such module, here or on Python's path") from error
    except Exception as error:
        raise SettingsError(where, f"{type(error).__name__} at {_place(error)}: {_words(error)}") from error
    found = [
        value
        for value in vars(loaded).values()
        if isinstance(value, type)
        and issubclass(value, DurableObject)
        and value.__module__ == loaded.__name__
        and not value.__name__.startswith("_")  # a base for others, and not for clients
    ]
    if not found:
        raise SettingsError(where, "defines no subclass of DurableObject with a public name")
    return found


def _check_name(module: str, where: str) -> None:
    """A file, a path, or a class of a module is a likely thing to write, and not what Python imports.

    Raises:
        SettingsError: with what to write.
    """
    parts = module.split(".")
    if all(part.isidentifier() for part in parts) and not module.endswith(".py"):
        return
    name, colon, _ = module.partition(":")
    meant = name.lstrip("./").removesuffix(".py").strip("/").replace("/", ".")
    if not all(part.isidentifier() for part in meant.split(".")):
        raise SettingsError(where, "give the name of a Python module, such as `--objects game` for game.py")
    reason = ", whose classes are all served" if colon else ""
    raise SettingsError(where, f"give the name of a module{reason}: write `--objects {meant}`")


def _place(error: Exception) -> str:
    """Where in the user's own files it went wrong: the libraries that these called are not where to look."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    paths = sysconfig.get_paths()
    places = (
        *(paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        Path(trio_swarm.__file__).parent,
    )
    libraries = tuple(f"{place}{os.sep}" for place in places)
    own = [frame for frame in frames if not frame.filename.startswith(("<", *libraries))]
    place = (own or frames)[-1]
    return f"{place.filename}:{place.lineno}"


def _words(error: Exception) -> str:
    return error.msg if isinstance(error, SyntaxError) else str(error)


def _tell(settings: Settings, objects: list[type[DurableObject]], urls: list[str]) -> None:
    for url in urls:
        click.echo(f"trio-swarm serves on {url}")
    for feed in settings.feed:
        click.echo(f"  {urls[0]}/v1/hub/{feed.name}/events")
    for cls in objects:
        click.echo(f"  {urls[0]}/v1/{cls.kind}/…/events")
