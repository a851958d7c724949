"""The log of a command: on stderr, for stdout is for what was asked. How it is written is in `health/logs.py`."""

import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from trio_swarm.settings import Settings

if TYPE_CHECKING:
    from trio_swarm.health.logs import Log, Processor

LOG_OPTIONS: tuple[Callable[[Callable[..., Any]], Callable[..., Any]], ...] = (
    click.option(
        "--log",
        type=click.Choice(["console", "json"]),
        show_default="console on a terminal, json elsewhere",
        help="The log's form: for people, or lines of JSON.",
    ),
    click.option(
        "--access-log/--no-access-log", default=None, show_default="off", help="A line in the log for each request."
    ),
)


def command_log(settings: Settings | None = None, *first: "Processor") -> "contextlib.AbstractContextManager[Log]":
    """Have the log of a command on stderr while the context lasts.

    Args:
        settings: its form and level.
        first: processors that see an entry before all others.
    """
    from trio_swarm.health.logs import logging_to  # noqa: PLC0415 - no `--help` waits for a log

    settings = settings or Settings()
    return logging_to(sys.stderr, settings.log, settings.log_level, first=first)
