"""Settings, made in code, read from a file and from the environment."""

import attrs
import pytest

from trio_swarm.errors import SettingsError
from trio_swarm.runtime import open_swarm
from trio_swarm.settings import FeedSettings, Limits, LivenessSettings, ObjectSettings, Settings, UpstreamSettings
from trio_swarm.settings_loading import load
from trio_swarm.settings_rules import MAY_BE_ZERO, ORDERS, first_fault, flatten


@pytest.fixture
def written(tmp_path):
    """`written(text)` is a file of settings."""

    def write(text):
        path = tmp_path / "s.toml"
        path.write_text(text)
        return path

    return write


def refused(act, *args, **kwargs):
    with pytest.raises(SettingsError) as raised:
        act(*args, **kwargs)
    return str(raised.value)


NUMBERS = [key for key, value in flatten(Settings()).items() if type(value) in {int, float}]


def replaced(settings, key, value):
    """The settings with one value changed, by its dotted name."""
    head, _, rest = key.partition(".")
    return attrs.evolve(settings, **{head: replaced(getattr(settings, head), rest, value) if rest else value})


@pytest.mark.parametrize("key", NUMBERS)
def test_every_number_has_a_range(key):
    """A negative number is refused wherever it stands, and so is 0 where it would mean nothing; the key is named."""
    assert f"settings: {key}: -1 is {'below 0' if key in MAY_BE_ZERO else 'not above 0'}" == refused(
        replaced, Settings(), key, -1
    )
    if key not in MAY_BE_ZERO:
        assert f"settings: {key}: 0 is not above 0" == refused(replaced, Settings(), key, 0)
    assert f"settings: {key}: nan is not a finite number" == refused(replaced, Settings(), key, float("nan"))


def test_the_rules_name_settings_that_exist():
    """A rule about a setting that was renamed would never speak again."""
    known = flatten(Settings())
    named = {*MAY_BE_ZERO, *(key for order in ORDERS for key in (order.less, order.more))}
    assert set() == named - known.keys()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            {"liveness": LivenessSettings(retry_min_s=5, retry_max_s=2)},
            "liveness.retry_min_s (5) is above liveness.retry_max_s (2), and clients come back at ",
        ),
        (
            {"liveness": LivenessSettings(ping_s=30)},
            "liveness.ping_s (30) is not below liveness.dead_s (30), and a client has to be asked ",
        ),
        (
            {"upstream": UpstreamSettings(ping_s=40)},
            "upstream.ping_s (40) is not below upstream.dead_s (30), and a feed has to be asked ",
        ),
        (
            {"objects": ObjectSettings(backoff_initial_s=60)},
            "objects.backoff_initial_s (60) is above objects.backoff_max_s (30), and waits begin with ",
        ),
        (
            {"upstream": UpstreamSettings(backoff_max_s=0.5)},
            "upstream.backoff_initial_s (1) is above upstream.backoff_max_s (0.5), and waits begin with ",
        ),
        ({"feed": (FeedSettings("a", "ws://h"), FeedSettings("a", "ws://i"))}, "feed: two feeds are called 'a'"),
    ],
)
def test_settings_that_do_not_go_together(wrong, sentence):
    """Each is refused where it is made, in code too, by a sentence that says why."""
    assert refused(Settings, **wrong).startswith(f"settings: {sentence}")


def test_equal_ends_of_a_span_are_a_span():
    """All clients may be told the same second."""
    assert 2 == Settings(liveness=LivenessSettings(retry_min_s=2, retry_max_s=2)).liveness.retry_max_s


async def test_no_swarm_with_settings_that_cannot_be():
    """A record of limits is judged when it becomes part of the settings, so no swarm begins with a wrong one."""
    with pytest.raises(SettingsError):
        async with open_swarm(settings=Settings(limits=Limits(connections=0))):
            pass


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("limits.connections = 'many'", "limits.connections: 'many' is not a whole number"),
        ("limits.connections = 1.5", "limits.connections: 1.5 is not a whole number"),
        ("limits.connections = true", "limits.connections: true is not a whole number"),
        ("liveness.ping_s = '1'", "liveness.ping_s: '1' is not a number"),
        ("open = 1", "open: 1 is not true or false"),
        ("bind = 8000", "bind: 8000 is not text"),
        ("limits = 5", "limits is a table: write [limits]"),
        ("[[limits]]\nconnections = 5", "limits is a table: write [limits]"),
        ("feed = 5", "feed is a list of tables: write [[feed]]"),
        ("feed = ['x']", "feed is a list of tables: write [[feed]]"),
        ("[[feed]]\nurl = 'ws://h'", "feed.1.name is missing"),
        ("[[feed]]\nname = 'x'", "feed.x.url is missing"),
        ("[[feed]]\nname = 'x'\nurl = 5", "feed.x.url: 5 is not text"),
        ("[[feed]]\nname = 'x'\nurl = 'ws://h'\ntopics = 'a'", "feed.x.topics: 'a' is not a list of texts"),
        ("[[feed]]\nname = 'x'\nurl = 'ws://h'\ntopics = [1]", "feed.x.topics: [1] is not a list of texts"),
        ("limits.connections = 1\nlimits.x = 1", "unknown key limits.x; known here: "),
        ("x = 1", "unknown key x; known here: "),
        ("[[feed]]\nname = 'x'\nuri = 'ws://h'", "unknown key feed.x.uri; known here: channels, "),
        ("liveness.retry_min_s = 11", "liveness.retry_min_s (11) is above liveness.retry_max_s (10), and "),
        ("bind = '" + "x" * 100 + "'\nopen = '" + "x" * 100 + "'", f"open: '{'x' * 59}… is not true or false"),
    ],
)
def test_what_a_file_says_wrongly(written, text, sentence):
    """The file and the key are named as they were written, and no type of Python's."""
    path = written(text)
    assert refused(load, path).startswith(f"{path}: {sentence}")


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("LIMITS__CONNECTIONS", "many", "'many' is not a whole number"),
        ("LIMITS__CONNECTIONS", "", "'' is not a whole number"),
        ("LIVENESS__PING_S", "soon", "'soon' is not a number"),
        ("OPEN", "perhaps", "'perhaps' is not true or false"),
        ("LIVENESS__RETRY_MIN_S", "20", "liveness.retry_min_s (20) is above liveness.retry_max_s (10), and clients"),
        ("LIMITS", "5", "names no setting that a variable can set; known here: TRIO_SWARM_"),
        ("BIND__PORT", "5", "names no setting that a variable can set; known here: TRIO_SWARM_"),
        ("FEED", "x", "names no setting that a variable can set; known here: TRIO_SWARM_"),
        ("LIMITS__X", "5", "names no setting that a variable can set; known here: TRIO_SWARM_LIMITS__"),
    ],
)
def test_what_a_variable_says_wrongly(variable, value, sentence):
    """The variable is named, as it was written."""
    name = f"TRIO_SWARM_{variable}"
    assert refused(load, None, {name: value}).startswith(f"{name}: {sentence}")


def test_file_and_environment_are_judged_together(written):
    """A variable may complete what the file alone would get wrong, in any order of names."""
    path = written("liveness.retry_min_s = 20")
    settings = load(path, {"TRIO_SWARM_LIVENESS__RETRY_MAX_S": "30"})
    assert (20, 30) == (settings.liveness.retry_min_s, settings.liveness.retry_max_s)
    settings = load(None, {"TRIO_SWARM_LIVENESS__RETRY_MAX_S": "0.5", "TRIO_SWARM_LIVENESS__RETRY_MIN_S": "0.1"})
    assert (0.1, 0.5) == (settings.liveness.retry_min_s, settings.liveness.retry_max_s)


def test_all_that_can_be_said_is_read(written):
    """Tables, numbers of either kind, and feeds arrive where they belong; the rest keeps its default."""
    path = written(
        'bind = "[::1]:1"\nopen = true\nliveness.ping_s = 5\n[limits]\nconnections = 7\n'
        '[[feed]]\nname = "a"\nurl = "ws://h"\ntopics = ["x", "y"]\n[[feed]]\nname = "b"\nurl = "ws://i"\n'
    )
    expected = Settings(
        bind="[::1]:1",
        open=True,
        liveness=LivenessSettings(ping_s=5.0),
        limits=Limits(connections=8),
        feed=(FeedSettings("a", "ws://h", topics=("x", "y")), FeedSettings("b", "ws://i")),
    )
    assert expected == load(path, {"TRIO_SWARM_LIMITS__CONNECTIONS": "8", "HOME": "/", "TRIO_SWARM_CONFIG": "x"})
    assert isinstance(load(path).liveness.ping_s, float)


def test_the_defaults_are_right():
    """Nothing that ships is refused."""
    assert first_fault(flatten(Settings())) is None
    assert Settings() == load()
