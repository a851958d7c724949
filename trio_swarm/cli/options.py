"""The options that say what is served: `serve` takes them, and `check` the same.

`serve` keeps what objects store in a file, unless it is told otherwise; a library, and an ASGI host, keep it where they
are told to. So the commands that speak of what `serve` does have a default of their own.
"""

import os
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import unquote

import attrs
import click

from trio_swarm.cli.log import LOG_OPTIONS
from trio_swarm.errors import SettingsError
from trio_swarm.settings import FeedSettings, Settings
from trio_swarm.settings_loading import load

Option = Callable[[Callable[..., Any]], Callable[..., Any]]

BIND: Option = click.option(
    "--bind", metavar="HOST:PORT", show_default=Settings().bind, help="Where to listen; port 0 is any."
)
CONTROL: Option = click.option(
    "--control",
    metavar="PATH",
    show_default="one of this user's own",
    help="The socket that `top` looks at; `off`: none.",
)
OPEN: Option = click.option(
    "--open", "open_", is_flag=True, default=None, help="Listen beyond this machine, open to everybody."
)

CONFIG: Option = click.option(
    "--config",
    metavar="FILE",
    type=click.Path(),
    envvar="TRIO_SWARM_CONFIG",
    show_envvar=True,
    help="Settings in TOML.",
)
SERVED_STORE: Final = "swarm.db"  # in the working directory


def store_option(what: str) -> Option:
    """`--store`, whose default is that of `serve`."""
    return click.option("--store", metavar="STORE", show_default=SERVED_STORE, help=what)


OPTIONS: tuple[Option, ...] = (
    BIND,
    CONFIG,
    click.option(
        "--feed",
        "feeds",
        multiple=True,
        metavar="NAME=PROTOCOL:URL[#TOPIC,…]",
        help="Serve a feed as hub/NAME; again for more. With topics it connects now, else when somebody wants one.",
    ),
    click.option("--objects", "module", metavar="MODULE", help="Serve the DurableObject classes of a Python module."),
    store_option("Where objects keep their state: the path of an SQLite file, or memory:."),
    CONTROL,
    click.option("--certfile", metavar="FILE", help="Serve TLS with this certificate (PEM, with its chain)."),
    click.option("--keyfile", metavar="FILE", help="The certificate's key (PEM, without a passphrase)."),
    OPEN,
    *LOG_OPTIONS,
)


@attrs.frozen
class Asked:
    """What the command line said; None where it said nothing. A field has the name of its option's parameter."""

    bind: str | None = None
    config: str | None = None
    feeds: tuple[str, ...] = ()
    module: str | None = None
    store: str | None = None
    control: str | None = None
    certfile: str | None = None
    keyfile: str | None = None
    open_: bool | None = None
    log: str | None = None
    access_log: bool | None = None

    def settings(self) -> Settings:
        """The settings in force: the file, over it the environment, over it the command line.

        Raises:
            SettingsError: one of them is not right; it names the place.
        """
        settings = with_options(
            load(self.config, os.environ, defaults={"store": SERVED_STORE}),
            bind=self.bind,
            open=self.open_,
            store=self.store,
            control=self.control,
            certfile=self.certfile,
            keyfile=self.keyfile,
            log=self.log,
            access_log=self.access_log,
        )
        return add_feeds(settings, [parse_feed(text) for text in self.feeds])


def service_options(
    command: Callable[..., None] | None = None, *, shown: Collection[str] | None = None
) -> Callable[..., Any]:
    """Give a command the options above; it is called with one `Asked`, and its own options by name.

    `shown`: the parameters that its help tells of, where not all of them mean something to it.
    """
    if command is None:
        return partial(service_options, shown=shown)
    names = {field.name for field in attrs.fields(Asked)}

    def gathered(**given: Any) -> None:
        asked = Asked(**{name: given.pop(name) for name in names})
        command(asked, **given)

    gathered.__name__, gathered.__doc__ = command.__name__, command.__doc__
    gathered.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    for option in reversed(OPTIONS):
        option(gathered)
    for parameter in gathered.__click_params__:  # type: ignore[attr-defined]
        if shown is not None and parameter.name in names and parameter.name not in shown:
            parameter.hidden = True
    return gathered


def with_options(settings: Settings, **options: Any) -> Settings:
    """The settings with what the command line says; an option not given (None) leaves them alone."""
    return attrs.evolve(settings, **{name: value for name, value in options.items() if value is not None})


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


def add_feeds(settings: Settings, feeds: Sequence[FeedSettings]) -> Settings:
    """The settings with the command line's feeds beside their own.

    Raises:
        SettingsError: two have one name.
    """
    try:
        return attrs.evolve(settings, feed=(*settings.feed, *feeds))
    except SettingsError as error:
        raise SettingsError("--feed", error.reason.removeprefix("feed: ")) from error
