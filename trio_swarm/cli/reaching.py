"""How `tail` and `publish` reach a service: the options that users of curl know."""

import re
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import click

from trio_swarm.client.access import Access
from trio_swarm.errors import SettingsError
from trio_swarm.upstream.websocket import open_stream

_HEADER = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+):[ \t]*([\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)[ \t]*")
_OURS = {"accept", "connection", "content-length", "content-type", "host", "last-event-id", "transfer-encoding"}

F = TypeVar("F", bound=Callable[..., Any])


def reaching(command: F) -> F:
    """Add `-H`, `--cacert` and `--insecure` to a command."""
    for option in (
        click.option("--insecure", is_flag=True, help="Do not check the service's certificate."),
        click.option(
            "--cacert",
            metavar="FILE",
            type=click.Path(),
            help="Trust these authorities (PEM), and not the system's.",
        ),
        click.option(
            "-H", "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="Send a header; again for more."
        ),
    ):
        command = option(command)
    return command


def make_access(
    headers: tuple[str, ...], given: tuple[tuple[str, str], ...], cacert: str | None, *, insecure: bool
) -> Access:
    """What the options say, with the headers that a URL gave; `-H` wins over those.

    Raises:
        SettingsError: a header or the file cannot be.
    """
    pairs = [_parse(header) for header in headers]
    names = {name for name, _ in pairs}
    pairs += [pair for pair in given if pair[0] not in names]
    if cacert is None and not insecure:
        return Access(tuple(pairs))
    return Access(tuple(pairs), opener=partial(open_stream, tls=_tls(cacert, insecure=insecure)))


def _parse(header: str) -> tuple[str, str]:
    found = _HEADER.fullmatch(header)
    if found is None:  # which is not repeated: it may hold a secret
        raise SettingsError("-H", "what was given is no header: write 'NAME: VALUE'")
    name = found[1].lower()
    if name in _OURS or name.startswith(("sec-websocket-", "upgrade")):
        raise SettingsError("-H", f"{found[1]} is set by this command itself")
    return name, found[2]


def _tls(cacert: str | None, *, insecure: bool) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=cacert)
    except ssl.SSLError as error:
        raise SettingsError("--cacert", f"{cacert} holds no certificate in PEM form") from error
    except OSError as error:
        raise SettingsError("--cacert", f"{cacert} cannot be read: {error.strerror}") from error
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
