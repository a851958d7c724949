"""What may be called how."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_swarm.errors import InvalidName
from trio_swarm.wire.names import check_id, check_key, check_kind, check_topic, check_type, split_stream

LONG = "é" * 100  # 200 bytes

GOOD = {
    check_kind: ["a", "game", "live_game2", "a" * 32],
    check_id: ["a", "arsenal-chelsea", "A b,c", "...", ".a", "x%2Fy", "ü€😀", LONG],
    check_topic: ["", "score", "BTC-USD", "a/b", ".", LONG],
    check_type: ["message", "goal", "x:y", "Status", LONG],
    check_key: ["", "k", "a,b/c", LONG],
}
CONTROLS = ["\n", "a\r", "\0", "a\tb", "\x7f", "\x85", "\x9f"]
BAD = {
    check_kind: ["", "A", "1a", "_a", "a-b", "a" * 33, "é", "a\n", "a/b", "aà"],
    check_id: ["", "a/b", "/", ".", "..", LONG + "x", "x" * 201, "\ud800", *CONTROLS],
    check_topic: ["a,b", ",", LONG + "x", "😀" * 51, "\udfff", *CONTROLS],
    check_type: ["", "hello", "gap", "snapshot", "status", "open", "error", LONG + "x", "\ud800", *CONTROLS],
    check_key: [LONG + "x", "\ud800", *CONTROLS],
}


@pytest.mark.parametrize(("check", "name"), [(check, name) for check, names in GOOD.items() for name in names])
def test_good_names(check, name):
    """A good name comes back as it was."""
    assert name == check(name)


@pytest.mark.parametrize(("check", "name"), [(check, name) for check, names in BAD.items() for name in names])
def test_bad_names(check, name):
    """A bad one is refused with the rule; the sentence itself can be logged and sent anywhere."""
    with pytest.raises(InvalidName, match="is not valid: ") as caught:
        check(name)
    assert name == caught.value.name
    assert str(caught.value).isprintable()
    assert caught.value.code == "invalid_name"
    str(caught.value).encode()


@given(st.text(max_size=210))
def test_the_rule_of_topics(name):
    """A topic is at most 200 bytes of UTF-8 without control characters and commas."""
    try:
        size = len(name.encode())
        good = size <= 200 and not any(ord(c) < 32 or 127 <= ord(c) < 160 or c == "," for c in name)
    except UnicodeEncodeError:
        good = False
    try:
        check_topic(name)
    except InvalidName:
        assert not good
    else:
        assert good


def test_streams():
    """A stream is a kind and an id."""
    assert split_stream("game/arsenal-chelsea") == ("game", "arsenal-chelsea")


@pytest.mark.parametrize("name", ["", "game", "/x", "game/", "Game/x", "game/a/b", "game/.."])
def test_what_is_no_stream(name):
    """Anything else is refused."""
    with pytest.raises(InvalidName):
        split_stream(name)
