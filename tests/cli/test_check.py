"""`trio-swarm check`: what would fail, before it does; by the same code that `serve` runs."""

import json
import resource
import socket
import subprocess
import sys

import pytest

from trio_swarm.cli.checks import OWN_DESCRIPTORS, descriptors_needed, examine, require
from trio_swarm.cli.findings import Doubt, Examined
from trio_swarm.cli.options import Asked
from trio_swarm.errors import SettingsError
from trio_swarm.health.memory_limit import MemoryLimit, find_memory_limit
from trio_swarm.settings import Limits, Settings


@pytest.fixture
def findings(invoke):
    """`findings(*arguments)` is the exit code, and each finding's state and words by what it is about."""

    def run(*arguments):
        result = invoke("check", "--json", *map(str, arguments))
        told = json.loads(result.stdout)
        return result.exit_code, {each["what"]: (each["state"], each["says"]) for each in told}

    return run


def test_the_defaults_are_fine(invoke):
    """One line a thing, each with its state; exit code 0. Port 0 is any."""
    result = invoke("check", "--bind", "127.0.0.1:0")
    assert (0, "") == (result.exit_code, result.stderr)
    lines = result.stdout.splitlines()
    assert {"ok"} == {line.split()[0] for line in lines}
    whats = [line.split(maxsplit=1)[1].partition(":")[0] for line in lines]
    assert whats == [
        "settings", "host", "bind", "certificate", "descriptors", "memory", "times", "port", "store", "control",
        "classes",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "what", "words"),
    [
        (["--bind", "0.0.0.0:0"], "bind", "--open"),
        (["--bind", "8000"], "bind", "HOST:PORT"),
        (["--bind", "no.such.host.invalid:1", "--open"], "port", "cannot listen on"),
        (["--config", "no/such.toml"], "settings", "no/such.toml"),
        (["--feed", "x"], "settings", "NAME=PROTOCOL:URL"),
        (["--feed", "x=ouija:ws://h"], "feed x", "coinbase, jsonfeed, kraken"),
        (["--feed", "x=coinbase:http://h"], "feed x", "http://h"),
        (["--objects", "no_such_module"], "objects", "no such module"),
        (["--objects", "json"], "objects", "no subclass of DurableObject"),
        (["--store", "redis://h"], "store", "redis://h"),
        (["--store", "no/such/folder/x.db"], "store", "there is no folder"),
        (["--certfile", "c.pem"], "certificate", "TLS needs both files"),
        (["--control", "no/such/folder/x.sock"], "control", "no/such/folder/x.sock"),
    ],
)
def test_what_would_fail(findings, arguments, what, words):
    """It is named, with the words that `serve` would end with, and the exit code is 2."""
    bind = [] if "--bind" in arguments else ["--bind", "127.0.0.1:0"]
    code, found = findings(*bind, *arguments)
    assert (2, "fails") == (code, found[what][0]), found
    assert words in found[what][1]


def test_all_that_is_wrong_is_told_at_once(findings):
    """The first mistake hides no other."""
    code, found = findings("--bind", "0.0.0.0:0", "--feed", "x=ouija:ws://h", "--objects", "no_such_module")
    assert 2 == code
    assert {"bind", "feed x", "objects"} == {what for what, (state, _) in found.items() if state == "fails"}


def test_a_port_that_is_taken(findings):
    """By whom cannot be known; what to do can. Unless it is the running service that will hand it over."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        code, found = findings("--bind", bind)
        assert (2, "fails") == (code, found["port"][0])
        assert found["port"][1].endswith("Address already in use; give another with --bind HOST:PORT")
        assert 0 == findings("--bind", bind, "--held", bind)[0]


def test_a_check_leaves_nothing_behind(findings, tmp_path):
    """No file of a store or a socket is made, and the port is free again."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        bind = f"127.0.0.1:{free.getsockname()[1]}"
    for _ in range(2):
        code, found = findings("--bind", bind, "--store", tmp_path / "s.db", "--control", tmp_path / "c.sock")
        assert 0 == code, found
    assert [] == list(tmp_path.iterdir())


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module of this name where Python finds it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(f"from trio_swarm.objects.durable import DurableObject\n{text}")
        return name

    return write


def test_a_class_that_is_wrong(findings, module):
    """A swarm with the classes begins and ends: what that refuses, serving would."""
    name = module("check_objects_wrong", "class Game(DurableObject):\n    journal = 100\n")
    code, found = findings("--bind", "127.0.0.1:0", "--objects", name)
    assert (2, "fails") == (code, found["classes"][0])
    assert "Game.journal" in found["classes"][1]


def test_classes_that_are_right(findings, module):
    """They are named."""
    name = module("check_objects_right", "class Game(DurableObject): pass\n")
    code, found = findings("--bind", "127.0.0.1:0", "--objects", name)
    assert (0, ("ok", "Game")) == (code, found["objects"])
    assert "game" in found["classes"][1]


def test_a_feed_that_does_not_answer_is_a_doubt(findings):
    """With `--online` feeds are connected to; one that is away will be tried again while serving, so nothing fails."""
    feed = "x=kraken:ws://127.0.0.1:1/"
    code, found = findings("--bind", "127.0.0.1:0", "--feed", feed, "--online")
    assert (0, "warning") == (code, found["feed x online"][0])
    assert "feed x online" not in findings("--bind", "127.0.0.1:0", "--feed", feed)[1]


def test_settings_that_work_against_each_other(findings, tmp_path):
    """Times that cannot all be had are a warning with what to write."""
    config = tmp_path / "s.toml"
    config.write_text("[objects]\nstop_s = 4\n")
    code, found = findings("--bind", "127.0.0.1:0", "--config", config)
    assert (0, "warning") == (code, found["times"][0])
    assert found["times"][1].endswith("give liveness.shutdown_s = 8 or more")
    config.write_text("[journal]\nage_s = 5\n")
    assert "stall.seconds = 30" in findings("--bind", "127.0.0.1:0", "--config", config)[1]["times"][1]
    config.write_text("[journal]\nage_s = 8\n[stall]\nseconds = 1\n")
    assert "liveness.retry_max_s = 10" in findings("--bind", "127.0.0.1:0", "--config", config)[1]["times"][1]


_LIMITED = """
import resource
import sys
soft, hard = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from trio_swarm.cli import main
sys.argv[1:] = ["check", "--bind", "127.0.0.1:0", "--json"]
main()
"""


@pytest.mark.parametrize(("soft", "hard", "state"), [(256, 512, "warning"), (256, 12_000, "ok")])
def test_the_limit_of_file_descriptors(soft, hard, state):
    """A soft limit is raised as far as the hard one allows; where that is not enough, it is said what to do."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert allowed == resource.RLIM_INFINITY or allowed >= hard
    done = subprocess.run([sys.executable, "-c", _LIMITED, str(soft), str(hard)], capture_output=True, check=True)
    found = {each["what"]: each for each in json.loads(done.stdout)}["descriptors"]
    assert state == found["state"], found
    if state == "warning":
        assert f"{hard} are allowed" in found["says"]
        assert "LimitNOFILE" in found["says"]


def test_descriptors_are_counted():
    """Each connection has one, short requests some to spare, and the process its own."""
    assert 100 + 16 + OWN_DESCRIPTORS == descriptors_needed(Settings(limits=Limits(connections=100)))
    assert 11_000 + OWN_DESCRIPTORS == descriptors_needed(Settings())


def test_serve_ends_at_the_first_thing_that_fails():
    """`serve` runs the same examination, and raises what it found first; a warning stops nothing."""
    examined = examine(Asked(bind="0.0.0.0:0", module="no_such_module"))
    with pytest.raises(SettingsError, match=r"^bind: "):
        require(examined)
    doubtful = Examined(settings=Settings())
    with doubtful.looking_at("x"):
        raise Doubt("perhaps")
    assert Settings() == require(doubtful)
    assert not doubtful.fails


def test_the_memory_limit(tmp_path):
    """The least of the group's own limit, of those around it, and of the RAM; version 2 or 1; without any, None."""
    root, own, ram = tmp_path / "cgroup", tmp_path / "own", tmp_path / "meminfo"

    def limit(groups, limits, total=None):
        own.write_text(groups)
        for name, text in limits.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        if total is not None:
            ram.write_text(f"MemFree: 1 kB\nMemTotal:  {total} kB\n")
        found = find_memory_limit(root, own, ram)
        return None if found is None else (found.bytes, found.source)

    assert find_memory_limit(root, own, ram) is None
    assert limit("0::/a/b\n", {"memory.max": "max\n"}) is None
    assert (9 * 1024, "RAM") == limit("0::/a/b\n", {}, 9)
    assert (5000, f"{root}/a/memory.max") == limit("0::/a/b\n", {"a/memory.max": "5000\n", "a/b/memory.max": "6000\n"})
    assert (70, f"{root}/memory/x/memory.limit_in_bytes") == limit(
        "4:cpu,memory:/x\n0::/y\n", {"memory/x/memory.limit_in_bytes": "70\n"}
    )
    assert (9 * 1024, "RAM") == limit("4:memory:/z\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"})
    assert isinstance(find_memory_limit(), MemoryLimit)


def test_more_memory_than_there_is(findings, tmp_path):
    """The worst case of the settings is held against the limit, and `budget` named, which shows where it comes from."""
    config = tmp_path / "s.toml"
    config.write_text(f"[limits]\nlive_journal_bytes = {2**50}\nidle_journal_bytes = {2**50}\n")
    code, found = findings("--bind", "127.0.0.1:0", "--config", config)
    assert (0, "warning") == (code, found["memory"][0])
    assert "trio-swarm budget" in found["memory"][1]
