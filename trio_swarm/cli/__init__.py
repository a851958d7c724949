"""The command line: one file a command, imported when it is called, so that `--help` is quick.

An operator's mistake is one sentence on stderr and exit code 2, never a traceback; a defect of ours keeps its own.
"""

# ruff: noqa: E402 - Ctrl-C has its meaning before anything else takes time
from trio_swarm.cli.early_interrupt import end_quietly

end_quietly()

import atexit
import gc
import re
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

from trio_swarm.cli.standard_output import cannot_write, is_lost
from trio_swarm.errors import SwarmError

COMMANDS = {
    "demo": "Show live matches on a page: a simulated feed, the hub, the board.",
    "serve": "Serve feeds, channels and your objects.",
    "check": "Say what would fail if `serve` were called with the same options.",
    "budget": "Show what the settings may cost in memory at worst, part by part.",
    "top": "Watch a running service in the terminal.",
    "objects": "List what a store keeps, object by object, also while it is served.",
    "backup": "Copy a store into a file, also while it is served.",
    "tail": "Print a stream's events as they come; it resumes by itself.",
    "publish": "Publish an event, or lines from stdin.",
    "replay": "Play a capture as a live WebSocket feed.",
    "record": "Record a WebSocket feed into a capture.",
    "completion": "Print what makes a shell complete trio-swarm's commands.",
}


PROGRAM = "trio-swarm"


class Mistake(click.ClickException):
    """What the operator asked for cannot be done, and asking again changes nothing."""

    exit_code = 2

    def __init__(self, error: BaseException) -> None:
        said = error.format_message() if isinstance(error, click.ClickException) else str(error)
        super().__init__(re.sub(r"\s*\n\s*", " ", said))


class _Commands(click.Group):
    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"trio_swarm.cli.{cmd_name}"), cmd_name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        found = [(name, what) for name, what in COMMANDS.items() if name.startswith(incomplete)]
        return [CompletionItem(name, help=what) for name, what in found]  # none is imported for it

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run; output that found no room is one sentence, whoever wrote it."""
        # At its end Python would look through all that was ever imported for what refers to itself, which takes a
        # quarter of a second of each command. What is left then, the system takes back.
        atexit.register(gc.freeze)
        try:
            return super().main(*args, **extra)
        except OSError as error:
            if not is_lost(error):
                raise
            lost = cannot_write(error)
            lost.show()
            raise SystemExit(lost.exit_code) from None

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (SwarmError, click.UsageError) as error:
            raise Mistake(error) from error
        except BaseExceptionGroup as group:
            cause = _the_one(group)
            if isinstance(cause, click.ClickException):
                raise cause from group
            if not isinstance(cause, SwarmError):
                raise
            raise Mistake(cause) from group


def _the_one(error: BaseException) -> BaseException:
    """What a nursery wrapped, if it is one thing."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _print_version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's shape
    if value:
        from importlib.metadata import version  # noqa: PLC0415 - nothing else needs it

        click.echo(f"trio-swarm {version('trio-swarm')}")
        ctx.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
def main() -> None:
    """A few live feeds in, very many client streams out, nothing leaked."""
