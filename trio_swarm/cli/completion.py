"""`trio-swarm completion SHELL`: what a shell has to be told to complete our commands.

click does the work: the script that is printed calls `trio-swarm` at every Tab, with the words so far in its
environment.
"""

import click
from click.shell_completion import get_completion_class

from trio_swarm.cli import PROGRAM, main

_VARIABLE = "_TRIO_SWARM_COMPLETE"


@click.command(short_help="Print what makes a shell complete trio-swarm's commands.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes SHELL complete commands, options, files and choices.

    \b
    bash  eval "$(trio-swarm completion bash)"   in ~/.bashrc
    zsh   eval "$(trio-swarm completion zsh)"    in ~/.zshrc, after compinit
    fish  trio-swarm completion fish > ~/.config/fish/completions/trio-swarm.fish
    """  # noqa: D301 - click looks for the character
    found = get_completion_class(shell)
    if found is None:
        raise click.ClickException(f"this version of click knows nothing of {shell}")
    click.echo(found(main, {}, PROGRAM, _VARIABLE).source())
