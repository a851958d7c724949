"""What the command line says about itself, quickly."""

import subprocess
import sys

import pytest

from trio_swarm.cli import COMMANDS, main

SERVING = {"serve", "demo", "replay", "check"}


def test_help_imports_no_command():
    """`--help` lists every command, and imports neither Trio nor a server to do it."""
    script = (
        "import sys; from trio_swarm.cli import main; main(['--help'], standalone_mode=False);"
        "sys.exit(any(name in sys.modules for name in ('trio', 'hypercorn', 'starlette', 'trio_websocket')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    said = " ".join(done.stdout.split())  # a long line is broken
    for name, what in COMMANDS.items():
        assert f" {name} {what}" in said


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(invoke, name):
    """`COMMAND --help` works, and says the same in short as the list does."""
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert "--bind" in result.output or name not in SERVING
    assert main.get_command(None, name).get_short_help_str(100) == COMMANDS[name]


def test_the_version_is_the_package_s(invoke):
    """`--version` is one line."""
    result = invoke("--version")
    assert result.exit_code == 0
    assert result.output.startswith("trio-swarm 0.")


def test_an_unknown_command(invoke):
    """A command that is none ends with code 2."""
    result = invoke("srve")
    assert result.exit_code == 2
    assert "No such command 'srve'" in result.stderr
