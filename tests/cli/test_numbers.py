"""Numbers that a command takes: what is no number, or has no end, is none."""

import pytest


@pytest.mark.parametrize("number", ["nan", "-nan", "inf", "1e999"])
@pytest.mark.parametrize(
    "command",
    [
        ("tail", "127.0.0.1:9/k/a", "--seconds"),
        ("record", "ws://127.0.0.1:9", "absent/file", "--seconds"),
        ("publish", "127.0.0.1:9/k/a", "1", "--retry-for"),
        ("top", "/absent.sock", "--interval"),
        ("replay", "absent", "--speed"),
    ],
    ids=lambda command: command[0],
)
def test_a_number_is_finite(invoke, command, number):
    """The command says so before it does anything."""
    result = invoke(*command, number)
    assert (2, "", 1) == (result.exit_code, result.stdout, result.stderr.count("\n")), result.stderr
    assert f"'{command[-1]}'" in result.stderr


@pytest.mark.parametrize(("number", "code"), [("0", 2), ("-1", 2), ("0.01", 1), ("1e-3", 1)])
def test_a_range_still_holds(invoke, number, code):
    """What is too small is refused as before, and what is a number is taken."""
    result = invoke("tail", "127.0.0.1:9/k/a", "--seconds", number)
    assert code == result.exit_code, result.stderr
    assert ("--seconds" in result.stderr) is (code == 2)


def test_help_shows_the_range(invoke):
    """As click does for a range of its own."""
    assert "0.1<=x<=3600" in invoke("top", "--help").stdout
