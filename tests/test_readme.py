"""README and docs do what they say: every block of code in them is run.

- ```python whose first line is `# name.py` is that file, in the working directory of all that follows. Any other is a
  script: it is run, must succeed, and prints what its `# ->` comments say.
- ```toml are settings that load, and whose feeds exist.
- ```console are commands (`$ …`) with what they print; `…` stands for anything. A `$ trio-swarm serve …` or `demo`
  stays for the rest of the page, on a port of its own; any other command that goes on is ended when it has printed what
  it should.
- ```sh and ```text are not run. The two set-up lines are compared with what `.ci/run` runs.
"""

import os
import re
import selectors
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trio_swarm.settings_loading import load
from trio_swarm.upstream.protocols import make_protocol

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PATIENCE_S = 60.0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_code_of_a_page(page, tmp_path):
    """Every block of the page does what the page says."""
    session = Session(tmp_path)
    try:
        for kind, text in BLOCK.findall(page.read_text()):
            getattr(session, f"run_{kind}", session.ignore)(text)
    finally:
        session.end()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """A relative link leads to a file that is there."""
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_set_up_is_what_the_build_does():
    """The README gives the two set-up lines, each whole in itself; `.ci/run` does the second, command by command."""
    readme, build = PAGES[0].read_text(), (ROOT / ".ci/run").read_text()
    assert "\npython3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/trio-swarm demo\n" in readme
    set_up, run = "python3 -m venv .venv && .venv/bin/pip install -e '.[test]'", ".venv/bin/pytest"
    assert f"\n{set_up} && {run}\n" in readme
    assert re.search(rf"^{re.escape(set_up)}$.*^{re.escape(run)}\b", build, re.MULTILINE | re.DOTALL)


def test_the_first_object_is_short():
    """The first object takes at most twenty lines."""
    first = next(text for kind, text in BLOCK.findall(PAGES[0].read_text()) if kind == "python")
    assert len([line for line in first.splitlines() if line.strip()]) <= 20


class Session:
    """One page's working directory, files and services."""

    def __init__(self, folder):
        self.folder = folder
        self.services = []
        self.url = ""
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        self.environment.pop("TRIO_SWARM_STORE", None)  # a page's folder is its own: here the default holds

    def ignore(self, text):
        pass

    def run_python(self, text):
        if name := re.match(r"# (\w+\.py)\n", text):
            (self.folder / name[1]).write_text(text)
            return
        expected = re.findall(r"# -> (.*)", text)
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", text],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == expected

    def run_toml(self, text):
        path = self.folder / "settings.toml"
        path.write_text(text)
        for feed in load(path).feed:
            make_protocol(feed)

    def run_console(self, text):
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            if command.startswith(("trio-swarm serve", "trio-swarm demo")):
                self.start(command, expected)
            else:
                self.show(command, expected)

    def start(self, command, expected):
        """A service: on a free port, until the next one or the end of the page (two would share a store)."""
        self.end()
        arguments = [sys.executable, "-m", "trio_swarm.cli", *shlex.split(command)[1:], "--bind", "127.0.0.1:0"]
        service = self.spawn(arguments, stderr=subprocess.STDOUT)
        self.services.append(service)
        said = read_until(service, lambda text: re.search(r"http://127\.0\.0\.1:\d+", text))
        self.url = re.search(r"http://127\.0\.0\.1:\d+", said)[0]
        compare(said.replace(self.url, "http://127.0.0.1:8000"), expected)

    def show(self, command, expected):
        if shutil.which("curl") is None:
            pytest.skip("there is no curl here")
        command = command.replace("localhost:8000", self.url.removeprefix("http://"))
        if "trio-swarm " in command:  # perhaps behind a pipe
            program = f"{shlex.quote(sys.executable)} -m trio_swarm.cli "
            arguments = ["sh", "-c", command.replace("trio-swarm ", program)]
        else:
            arguments = shlex.split(command)
        process = self.spawn(arguments, stderr=subprocess.DEVNULL)
        with process:
            said = read_until(process, lambda text: matches(text, expected))
            process.kill()
        compare(said, expected)

    def spawn(self, arguments, stderr):
        return subprocess.Popen(arguments, cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=stderr)

    def end(self):
        while self.services:
            with self.services.pop() as service:
                service.terminate()


def read_until(process, enough):
    """What the process says, until it is enough, or its end."""
    said = ""
    deadline = time.monotonic() + PATIENCE_S
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while not enough(said) and (left := deadline - time.monotonic()) > 0:
            if selector.select(left):
                chunk = os.read(process.stdout.fileno(), 65536)
                if not chunk:
                    break
                said += chunk.decode()
    return said


def pattern(expected):
    """What is expected as a regular expression: `…` stands for anything."""
    return re.compile(r"\s*" + r"(?:.*?)".join(re.escape(part.strip()) for part in expected.split("…")), re.DOTALL)


def matches(said, expected):
    return pattern(expected).match(said)


def compare(said, expected):
    assert matches(said, expected), f"expected\n{expected}\nand it said\n{said}"
