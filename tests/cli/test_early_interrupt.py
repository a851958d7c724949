"""Ctrl-C before a command has begun: the process ends without a word, with the code that shells give it."""

import signal
import subprocess
import sys

import pytest

# SIGINT comes in the middle of an import: that is where a command spends its first moments.
INTERRUPTED = """
import os, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
sys.argv = {argv!r}
from trio_swarm.cli import main
main()
"""


def interrupt(name, argv, **options):
    script = INTERRUPTED.format(name=name, argv=argv)
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False, **options
    )


@pytest.mark.parametrize("name", ["click", "trio_swarm.errors", "trio_swarm.cli.serve", "trio", "hypercorn"])
def test_while_it_is_imported(name):
    """No traceback, and no `Aborted!`."""
    done = interrupt(name, ["trio-swarm", "serve", "--bind", "8000"])
    assert (130, "", "") == (done.returncode, done.stdout, done.stderr)


def test_an_ignored_signal_stays_ignored():
    """`nohup`, or a job in the background of a script."""
    done = interrupt(
        "click",
        ["trio-swarm", "serve", "--bind", "8000"],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert 2 == done.returncode
    assert "HOST:PORT" in done.stderr


def test_a_library_changes_no_signal():
    """Who imports the command line from a program of his own keeps his Ctrl-C."""
    done = interrupt("click", ["a-program"])
    assert "KeyboardInterrupt" in done.stderr


def test_a_check_is_left_in_order():
    """Interrupted while it attempts, `check` undoes what it did, and says nothing."""
    script = INTERRUPTED.format(name="no.such", argv=["trio-swarm", "check", "--bind", "127.0.0.1:0"]).replace(
        "main()",
        "import trio_swarm.cli.checks as c\n"
        "async def attempt(*a, **o):\n"
        "    import trio\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        await trio.sleep(20)\n"
        "    finally:\n"
        "        print('undone')\n"
        "c.attempt = attempt\n"
        "main()",
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert (130, "undone\n", "") == (done.returncode, done.stdout, done.stderr)
