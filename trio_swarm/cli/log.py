"""The log of a command: on stderr, for stdout is for what was asked. How it is written is in `health/logs.py`."""

import contextlib
import sys
from collections.abc import Callable
from typing import Any

import click

from trio_swarm.health.logs import Log, Processor, logging_to
from trio_swarm.settings import Settings

LOG_OPTIONS: tuple[Callable[[Callable[..., Any]], Callable[..., Any]], ...] = (
    click.option(
        "--log",
        type=click.Choice(["console", "json"]),
        help="The log's form: by default for people on a terminal, JSON lines elsewhere.",
    ),
    click.option("--access-log/--no-access-log", default=None, help="A line in the log for each request; off."),
)


def command_log(settings: Settings | None = None, *first: Processor) -> contextlib.AbstractContextManager[Log]:
    """Have the log of a command on stderr while the context lasts.

    Args:
        settings: its form and level.
        first: processors that see an entry before all others.
    """
    settings = settings or Settings()
    return logging_to(sys.stderr, settings.log, settings.log_level, first=first)
