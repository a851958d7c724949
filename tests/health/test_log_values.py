"""What a log call may be given: anything, and it raises nothing."""

import contextlib
import io
import json
import threading

import pytest
import structlog

from trio_swarm.health.line_sink import LineSink
from trio_swarm.health.logs import BURST, VALUE_PARTS, logging_to


class Broken:
    def __repr__(self):
        raise LookupError("broken")


class Number(int):
    pass


class Text(str):
    __slots__ = ()


LOOP = []
LOOP.append(LOOP)
WIDE_LOOP = []
WIDE_LOOP.extend([WIDE_LOOP] * 50)


@contextlib.contextmanager
def told(form="json"):
    """The lines of a log, once it has ended."""
    stream, lines = io.StringIO(), []
    with logging_to(stream, form):
        yield lines
    said = stream.getvalue().splitlines()
    lines.extend(json.loads(line) if form == "json" else line for line in said)


VALUES = [
    {"v": LOOP},
    {"v": WIDE_LOOP},
    {"v": {"a": LOOP}},
    {"v": Broken()},
    {"v": Number(3)},
    {"v": Text("x")},
    {"v": 10**5_000},
    {"v": {"bad \ud800": 1}},
    {"bad \ud800": 1},
    {"timestamp": 5},
    {"level": None},
    {"exception": ValueError("x")},
    {"exc_info": 5},
    {"stack": 5},
    {"logger": 5},
]


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("fields", VALUES, ids=lambda fields: str(list(fields)).encode("ascii", "replace").decode())
def test_no_field_raises(form, fields):
    """Whatever a field is called and holds, there is a line of that name, and it has an end."""
    with told(form) as lines:
        structlog.get_logger().info("joined", **fields)
    assert "joined" in str(lines[0])
    assert len(str(lines)) < 10_000


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("event", [{"a": 1}, None, 5, ["x"], ValueError("refused")])
def test_no_event_raises(form, event):
    """What is no text is shown as one."""
    with told(form) as lines:
        structlog.get_logger().info(event, n=1)
    assert str(event) in (lines[0]["event"] if form == "json" else lines[0])


def test_an_event_that_cannot_be_shown():
    """Of it the type is told."""
    with told() as lines:
        structlog.get_logger().info(Broken())
    assert ["<Broken>"] == [line["event"] for line in lines]


def test_fields_that_cannot_be_rendered():
    """They are left out, and the line says why."""
    with told() as lines:
        structlog.get_logger().info("joined", huge=10**5_000, n=1)
    [line] = lines
    del line["timestamp"]
    assert {"level": "info", "event": "joined", "not_shown": "ValueError"} == line


def test_subclasses_are_what_they_stand_for():
    """A number stays a number, and text is text."""
    with told() as lines:
        structlog.get_logger().info("joined", n=Number(3), text=Text("x"))
    assert (3, "x") == (lines[0]["n"], lines[0]["text"])


def test_parts_are_counted_at_all_depths():
    """A list in a list has no more of them, and what was cut is seen."""
    with told() as lines:
        structlog.get_logger().info("joined", flat=[1] * 1_000, deep=[[1] * 90] * 90, short=[[1], {"a": [2]}])
    [line] = lines
    assert [1] * VALUE_PARTS + ["…"] == line["flat"]
    assert sum(len(part) for part in line["deep"]) <= VALUE_PARTS + 5
    assert [[1], {"a": [2]}] == line["short"]


def test_the_time_is_ours():
    """A field of that name does not take its place."""
    with told() as lines:
        structlog.get_logger().info("joined", timestamp="yesterday")
    assert lines[0]["timestamp"].endswith("Z")


@pytest.mark.parametrize("form", ["json", "console"])
@pytest.mark.parametrize("reason", ["\x1b[2Jevil\x07", "bad\ud800"])
def test_what_is_suppressed_is_bounded_too(form, reason):
    """The remark about a flood escapes what the flood was about, and the log goes on."""
    with told(form) as lines:
        for _ in range(BURST + 5):
            structlog.get_logger().info("joined", reason=reason)
    [remark] = [line for line in lines if "log_lines_suppressed" in str(line)]
    about = reason.encode("unicode_escape").decode()
    assert about in (remark["about"] if form == "json" else remark)


@pytest.mark.parametrize("error", [RuntimeError, OSError, UnicodeEncodeError])
def test_no_error_ends_the_thread(error):
    """A write, or a remark, that raises costs lines, which are counted; later lines come."""
    raising, asked, taken = {"write", "remark"}, threading.Event(), []

    def fail():
        raise error("utf-8", "x", 0, 1, "no") if error is UnicodeEncodeError else error("no")

    def write(data):
        if "write" in raising:
            fail()
        taken.append(data)
        return len(data)

    def remark(_dropped):
        asked.set()
        if "remark" in raising:
            fail()
        return b""

    lines = LineSink(write, remark)
    lines.write(b"lost\n")
    lines.flush()
    assert asked.wait(10)
    while not lines.statistics().dropped or lines.statistics().held_bytes:
        lines.flush()
        assert lines._thread.is_alive()
    raising.clear()
    lines.write(b"later\n")
    lines.close()
    assert [b"later\n"] == taken
