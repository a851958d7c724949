"""Completion, asked for as the shells ask for it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trio_swarm.cli import COMMANDS

BIN = Path(sys.executable).parent

# What bash does at a Tab: it sets the words and calls the function that is registered for the command.
ASK = """
eval "$(trio-swarm completion bash)"
COMP_WORDS=({words}); COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 )); COMPREPLY=()
compopt() {{ local IFS=' '; echo "compopt $*"; }}
function=$(complete -p trio-swarm | sed -n 's/.*-F \\([^ ]*\\).*/\\1/p')
$function trio-swarm "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def complete(words, folder):
    done = subprocess.run(
        ["bash", "--norc", "-c", ASK.format(words=words)],
        env={"PATH": f"{BIN}:/usr/bin:/bin"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert "" == done.stderr
    return done.stdout.split("\n")[:-1]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("trio-swarm ''", [*COMMANDS]),
        ("trio-swarm t", [name for name in COMMANDS if name.startswith("t")]),
        ("trio-swarm --v", ["--version"]),
        ("trio-swarm tail --s", ["--stream", "--since", "--seconds"]),
        ("trio-swarm publish http://h/k/a --re", ["--retry-for"]),
        ("trio-swarm completion ''", ["bash", "zsh", "fish"]),
        ("trio-swarm replay ''", ["compopt -o default", ""]),
        ("trio-swarm serve --config ''", ["compopt -o default", ""]),
        ("trio-swarm objects --k", ["--kind"]),
        ("trio-swarm objects ''", ["dump"]),
        ("trio-swarm objects dump --", ["--store", "--config", "--help"]),
        ("trio-swarm backup --f", ["--force"]),
        ("trio-swarm backup ''", ["compopt -o default", ""]),
        ("trio-swarm nothing --x", [""]),
    ],
)
def test_bash(tmp_path, words, expected):
    """Commands, options, choices, and files, which bash then completes by itself."""
    assert expected == complete(words, tmp_path)


def test_names_of_commands_are_completed_without_importing_them():
    """A Tab is answered at once: of Trio nothing is loaded for it."""
    script = (
        "import os, sys; from trio_swarm.cli import main\n"
        "try: main(prog_name='trio-swarm')\n"
        "except SystemExit: pass\n"
        "sys.exit(any(name in sys.modules for name in ('trio', 'hypercorn', 'h11')))"
    )
    asked = {"_TRIO_SWARM_COMPLETE": "bash_complete", "COMP_WORDS": "trio-swarm ", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=asked, capture_output=True, text=True, check=True)
    assert [f"plain,{name}" for name in COMMANDS] == done.stdout.split()


@pytest.mark.parametrize(
    ("shell", "words"), [("zsh", "#compdef trio-swarm"), ("fish", "complete --no-files --command trio-swarm")]
)
def test_the_other_shells(invoke, tmp_path, shell, words):
    """Each gets a script in its own language, which it can read where it is installed."""
    result = invoke("completion", shell)
    assert 0 == result.exit_code
    assert words in result.output
    if program := shutil.which(shell):
        script = tmp_path / "script"
        script.write_text(result.output)
        subprocess.run([program, "-n", script], check=True, timeout=20)


def test_an_unknown_shell(invoke):
    """It is named, with those that are known."""
    result = invoke("completion", "tcsh")
    assert 2 == result.exit_code
    for word in ("tcsh", "bash", "zsh", "fish"):
        assert word in result.stderr
