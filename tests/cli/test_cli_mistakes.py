"""An operator's mistake: one sentence on stderr, exit code 2, no traceback."""

import socket

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from trio_swarm.cli.log import command_log
from trio_swarm.cli.objects_module import load_objects
from trio_swarm.cli.options import parse_feed
from trio_swarm.errors import SettingsError
from trio_swarm.settings import Settings
from trio_swarm.settings_loading import load


def check(result, *words):
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1, result.stderr
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve", "--bind", "0.0.0.0:0"], ["0.0.0.0:0", "--open"]),
        (["serve", "--bind", "example.org:80"], ["--open"]),
        (["serve", "--bind", "8000"], ["HOST:PORT"]),
        (["serve", "--bind", "127.0.0.1:99999"], ["HOST:PORT"]),
        (["serve", "--config", "no/such.toml"], ["no/such.toml", "No such file"]),
        (["serve", "--feed", "x"], ["NAME=PROTOCOL:URL"]),
        (["serve", "--feed", "x=coinbase:"], ["NAME=PROTOCOL:URL"]),
        (["serve", "--feed", "x=ouija:ws://h"], ["ouija", "coinbase, jsonfeed, kraken"]),
        (["serve", "--feed", "x=coinbase:http://h"], ["http://h"]),
        (["serve", "--feed", "x=jsonfeed:ws://h#a"], ["topics"]),
        (["serve", "--feed", "x=kraken:ws://h", "--feed", "x=kraken:ws://h"], ["two feeds", "'x'"]),
        (["serve", "--objects", "no_such_module"], ["no_such_module"]),
        (["serve", "--objects", "json"], ["no subclass of DurableObject"]),
        (["serve", "--bind", "127.0.0.1:0", "--store", "redis://h"], ["redis://h", "memory:"]),
        (["demo", "--bind", "[::]:0"], ["[::]:0", "--open"]),
        (["replay", "x.jsonl", "--bind", "[::]:0"], ["[::]:0", "--open"]),
        (["replay", "x.jsonl", "--loop", "--once"], ["exclude each other"]),
        (["demo", "--bind", "8000"], ["HOST:PORT"]),
        (["demo", "--bind", "::1:8000"], ["[::1]:8000"]),
        (["replay", "x.jsonl", "--bind", "localhost"], ["HOST:PORT"]),
        (["replay", "x.jsonl", "--bind", "127.0.0.1:http"], ["HOST:PORT"]),
        (["replay"], ["FILE"]),
        (["replay", "x.jsonl", "--speed", "0"], ["--speed"]),
        (["record", "ws://h"], ["FILE"]),
        (["record", "ws://h", "f", "--second", "1"], ["--second"]),
        (["serve", "--feed", "cb=coinbase:http://h"], ["feed cb: 'http://h'"]),
        (["completion"], ["bash, zsh, fish"]),
        (["serve", "--objects", ""], ["--objects game", "game.py"]),
        (["serve", "--objects", "game.py"], ["write `--objects game`"]),
        (["serve", "--objects", "./game"], ["write `--objects game`"]),
        (["serve", "--objects", "my/game.py"], ["write `--objects my.game`"]),
        (["serve", "--objects", "game:Game"], ["write `--objects game`", "all served"]),
    ],
)
def test_a_mistake_is_one_sentence(invoke, arguments, words):
    """The sentence names what was given and what would do."""
    check(invoke(*arguments), *words)


def test_an_unknown_setting(invoke, tmp_path):
    """A misspelt key in the file is named, with those that exist."""
    (tmp_path / "s.toml").write_text("[limits]\nconections = 5\n")
    check(invoke("serve", "--config", str(tmp_path / "s.toml")), "limits.conections", "connections")


def test_an_unknown_variable(invoke, monkeypatch):
    """So is a misspelt variable."""
    monkeypatch.setenv("TRIO_SWARM_LIMITS__CONECTIONS", "5")
    check(invoke("serve"), "TRIO_SWARM_LIMITS__CONECTIONS", "known here: ", "TRIO_SWARM_LIMITS__CONNECTIONS")


def test_the_settings_can_be_named_by_a_variable(invoke, monkeypatch):
    """`TRIO_SWARM_CONFIG` is the file of `serve` where `--config` names none."""
    monkeypatch.setenv("TRIO_SWARM_CONFIG", "no/such.toml")
    check(invoke("serve"), "no/such.toml", "No such file")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("limits.connections = -1", "limits.connections: -1 is not above 0"),
        ("limits.connections = 0", "limits.connections: 0 is not above 0"),
        ("liveness.ping_s = 0.0", "liveness.ping_s: 0.0 is not above 0"),
        ("liveness.ping_s = inf", "liveness.ping_s: inf is not a finite number"),
        ("stall.seconds = nan", "stall.seconds: nan is not a finite number"),
        ("liveness.retry_min_s = -0.5", "liveness.retry_min_s: -0.5 is below 0"),
        ("[feed]\nname = 'x'", "[feed] is a single table, and there may be several: write [[feed]]"),
    ],
)
def test_a_value_that_cannot_be(tmp_path, text, sentence):
    """A number out of range, or a table where a list belongs, is named with its file."""
    path = tmp_path / "b.toml"
    path.write_text(text)
    with pytest.raises(SettingsError) as raised:
        load(path)
    assert f"{path}: {sentence}" == str(raised.value)


@pytest.mark.parametrize("number", ["-1", "0", "1e999", "nan"])
def test_a_number_of_a_variable_that_cannot_be(number):
    """The same holds for the environment."""
    with pytest.raises(SettingsError, match=r"^TRIO_SWARM_JOURNAL__AGE_S: "):
        load(None, {"TRIO_SWARM_JOURNAL__AGE_S": number})


def test_numbers_that_may_be_nothing():
    """Where 0 means something, it is taken."""
    assert 0 == load(None, {"TRIO_SWARM_LIVENESS__RETRY_MIN_S": "0"}).liveness.retry_min_s
    assert 0 == load(None, {"TRIO_SWARM_OBJECTS__CRASHES": "0"}).objects.crashes


def test_a_traceback_shows_no_local_variables(capsys):
    """Clients' data and secrets stay out of the log, also where rich is installed."""
    secret = "hunter" + "2"
    with command_log(Settings(log="console")):
        try:
            check_password(secret)
        except ValueError:
            structlog.get_logger().exception("call_failed")
    said = capsys.readouterr().err
    assert "ValueError: refused" in said
    assert "hunter2" not in said


def check_password(secret):
    raise ValueError("refused" if secret else "empty")


def test_a_port_that_is_taken(invoke):
    """A port in use is the operator's to solve, and is said like everything else."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        for command in ("serve", "demo"):
            check(invoke(command, "--bind", bind), bind, "Address already in use; give another with --bind HOST:PORT\n")


def test_a_replay_has_no_settings(invoke):
    """What it cannot be given it does not speak of."""
    result = invoke("replay", "x.jsonl", "--bind", "0.0.0.0:0")
    check(result, "say --open if that is meant")
    assert "open = true" not in result.stderr


@given(
    st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True),
    st.sampled_from(["coinbase", "kraken", "jsonfeed"]),
    st.lists(st.from_regex(r"[A-Z]{1,4}[-/:=][A-Z]{1,4}", fullmatch=True), max_size=4),
)
def test_a_feed_is_read_as_it_is_written(name, protocol, topics):
    """NAME=PROTOCOL:URL#TOPICS means what it says, with `:`, `=` and `/` in a topic."""
    feed = parse_feed(f"{name}={protocol}:wss://user@host:1/path?q=a:b" + ("#" + ",".join(topics) if topics else ""))
    assert (name, protocol, "wss://user@host:1/path?q=a:b", tuple(topics)) == (
        feed.name,
        feed.protocol,
        feed.url,
        feed.topics,
    )


def test_a_topic_with_a_comma():
    """What separates topics is percent-encoded inside one."""
    assert parse_feed("x=kraken:ws://h#a%2Cb,c%23").topics == ("a,b", "c#")


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module of this name where Python finds it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def test_the_classes_of_a_module(module):
    """`--objects` serves what the module defines, and not what it imports."""
    name = module(
        "cli_objects_one",
        "from trio_swarm.objects.durable import DurableObject\n"
        "from trio_swarm.live.channel import Channel\n"
        "class Game(DurableObject): pass\n"
        "class Room(Channel): pass\n"
        "class _Base(DurableObject): pass\n",
    )
    assert [cls.__name__ for cls in load_objects(name)] == ["Game", "Room"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 / 0\n", ["ZeroDivisionError", "cli_objects_", ".py:1"]),
        ("import no_such_thing\n", ["imports no_such_thing"]),
        ("\ndef broken(:\n", ["SyntaxError", ".py:2"]),
        ("import json\n\njson.loads('{')\n", ["JSONDecodeError", "cli_objects_", ".py:3"]),
        ("from trio_swarm import exposed\nexposed(len)\n", ["TypeError", "cli_objects_", ".py:2"]),
    ],
)
def test_a_module_that_does_not_import(module, text, words):
    """What is wrong with it, and where."""
    name = module(f"cli_objects_{abs(hash(text))}", text)
    with pytest.raises(SettingsError) as raised:
        load_objects(name)
    for word in words:
        assert word in str(raised.value)
