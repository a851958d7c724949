"""What the command line says about itself, quickly."""

import subprocess
import sys

import pytest

from trio_swarm.cli import COMMANDS, main

SERVING = {"serve", "demo", "replay", "check"}
EXPLAINED = {"tail", "publish", "objects", "backup", "completion"}
SHELLS = ("bash ", "zsh ", "fish ")


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


@pytest.mark.parametrize(("ending", "collected"), [("", True), ("main(['--version'])", False)])
def test_the_end_is_not_spent_on_collecting(ending, collected):
    """What refers to itself is left to the system when a command ends, as it is not when any other program does."""
    script = (
        "import gc; gc.disable()\n"  # what counts is the last collection, which is not asked whether it may
        "from trio_swarm.cli import main\n"
        "class Loop:\n"
        "    def __del__(self): print('collected', flush=True)\n"
        "loop = Loop(); loop.itself = loop; del loop\n"
        f"{ending}"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert collected == ("collected" in done.stdout)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(invoke, name):
    """`COMMAND --help` works, and says the same in short as the list does."""
    result = invoke(name, "--help")
    assert result.exit_code == 0
    assert "--bind" in result.output or name not in SERVING
    assert main.get_command(None, name).get_short_help_str(100) == COMMANDS[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_laid_out(invoke, name):
    """No mark of the layout is left to be read, and each example stands on a line of its own."""
    said = invoke(name, "--help").output
    assert "\\b" not in said
    lines = [line.strip() for line in (main.get_command(None, name).callback.__doc__ or "").splitlines()]
    examples = [line for line in lines if "trio-swarm " in line and line.startswith(("trio-swarm ", "some-", *SHELLS))]
    assert name not in EXPLAINED or examples
    assert [] == [line for line in examples if line not in [each.strip() for each in said.splitlines()]]


def test_help_of_what_changes_nothing(invoke):
    """`budget` takes the options of `serve`, and shows those that change its figures."""
    said = invoke("budget", "--help").output
    assert "--store" in said
    assert [] == [option for option in ("--bind", "--control", "--open", "--log", "--access-log") if option in said]
    assert 0 == invoke("budget", "--bind", "127.0.0.1:0").exit_code


def test_defaults_are_shown_in_one_way(invoke):
    """The default of an option stands at its end, in brackets."""
    said = " ".join(invoke("serve", "--help").output.split())
    for default in ("127.0.0.1:8000", "swarm.db", "off"):
        assert f"[default: ({default})]" in said


@pytest.mark.parametrize("name", ["serve", "check", "budget", "demo"])
def test_help_waits_for_no_server(name):
    """`COMMAND --help` is read before anything is served: what serves is not imported for it."""
    script = (
        f"import sys; from trio_swarm.cli import main; main(['{name}', '--help'], standalone_mode=False);"
        "sys.exit(any(name in sys.modules for name in ('trio', 'hypercorn', 'starlette', 'structlog')))"
    )
    assert 0 == subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode


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
