"""`trio-swarm check`: what would fail if `serve` were called so."""

from typing import TYPE_CHECKING

import click
import msgspec

from trio_swarm.cli.early_interrupt import CODE
from trio_swarm.cli.options import Asked, service_options

if TYPE_CHECKING:
    from trio_swarm.cli.findings import Examined, Finding

_COLOURS = {"ok": "green", "warning": "yellow", "fails": "red"}


@click.command(short_help="Say what would fail if `serve` were called with the same options.")
@service_options
@click.option("--online", is_flag=True, help="Connect to the feeds, too.")
@click.option("--json", "as_json", is_flag=True, help="Write a list of {what, state, says}.")
@click.option("--held", multiple=True, hidden=True, help="What a running service holds, and a reload will be given.")
def check(asked: Asked, *, online: bool, as_json: bool, held: tuple[str, ...]) -> None:
    """Look at all that `serve` with the same options needs, one line a thing; exit code 2 if something would fail."""
    # ruff: noqa: PLC0415 - see `serve`
    import trio

    from trio_swarm.cli.checks import attempt, examine
    from trio_swarm.cli.interruptible import until_signal

    examined = examine(asked)
    done: list[Examined] = []

    async def attempt_all() -> None:
        await attempt(examined, held=held, online=online)
        done.append(examined)

    trio.run(until_signal, attempt_all)
    if not done:
        raise click.exceptions.Exit(CODE)
    if as_json:
        click.echo(msgspec.json.encode(examined.findings))
    else:
        for finding in examined.findings:
            click.echo(_line(finding))
    if examined.fails:
        raise click.exceptions.Exit(2)


def _line(finding: "Finding") -> str:
    state = click.style(f"{finding.state:<8}", fg=_COLOURS[finding.state])
    return f"{state}{finding.what}: {finding.says.removeprefix(f'{finding.what}: ')}"
