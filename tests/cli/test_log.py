"""The log of a service: its form, its bounds, and a reader that stops reading it."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
import structlog
import trio

from trio_swarm.cli.log import command_log
from trio_swarm.health.line_sink import LineSink
from trio_swarm.health.logs import (
    BURST,
    THINGS,
    TRACEBACK_CHARACTERS,
    Restraint,
    log_of_a_guest,
    logging_to,
    printable,
)
from trio_swarm.settings import Settings
from trio_swarm.settings_loading import load

ESCAPE = "\x1b[31m"


def refuse(words):
    raise ValueError(words)


def lines_of(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@contextlib.contextmanager
def json_log(level="info"):
    stream = io.StringIO()
    with logging_to(stream, "json", level):
        yield stream


def test_json_lines():
    """Each line is one JSON object: time, level, name, then the fields."""
    with json_log() as stream:
        structlog.get_logger().info("feed_live", feed="cb", topics=2)
        structlog.get_logger().debug("host_said", message="nothing")
    [line] = lines_of(stream)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["timestamp"])
    assert ["timestamp", "level", "event", "feed", "topics"] == list(line)
    assert ("info", "feed_live", "cb", 2) == tuple(line.values())[1:]


def test_the_form_follows_the_terminal():
    """JSON where nobody looks, for people on a terminal, and what is asked for in any case."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    said = {}
    for stream in (io.StringIO(), Terminal()):
        for form in ("auto", "json", "console"):
            with logging_to(stream, form) as log:
                said[stream.isatty(), form] = log.form
    assert said == {
        (False, "auto"): "json",
        (False, "json"): "json",
        (False, "console"): "console",
        (True, "auto"): "console",
        (True, "json"): "json",
        (True, "console"): "console",
    }


@pytest.mark.parametrize("form", ["json", "console"])
def test_nothing_leaves_its_line(form):
    """What comes from outside can neither begin a line nor speak to a terminal, whatever it is."""
    stream = io.StringIO()
    nasty = f"a\r\n2026 [error] forged {ESCAPE}\x00\x7f\x9b31m\u2028\ud800"
    with logging_to(stream, form):
        log = structlog.get_logger()
        log.info("request_failed", error=nasty, inside=[nasty, {"x": nasty}], thing=ValueError(nasty))
        try:
            refuse(nasty)
        except ValueError:
            log.exception("call_failed", object="room/a")
    said = stream.getvalue()
    assert [c for c in said if not c.isprintable() and c != "\n"] == []
    begins = r"\{" if form == "json" else r"\d\d:\d\d:\d\d \[|  "  # a traceback's lines are indented
    assert [line for line in said.splitlines() if not re.match(begins, line)] == []
    if form == "json":
        assert ["request_failed", "call_failed"] == [json.loads(line)["event"] for line in said.splitlines()]


def test_long_values_are_cut():
    """A field and a traceback have an end."""

    def deep(n):
        if n == 0:
            raise ValueError("x" * 100_000)
        deep(n - 1)

    with json_log() as stream:
        structlog.get_logger().info("start_failed", error="y" * 100_000)
        try:
            deep(500)
        except ValueError:
            structlog.get_logger().exception("call_failed")
    short, trace = stream.getvalue().splitlines()
    assert len(short) < 2_200
    assert len(json.loads(trace)["exception"]) <= TRACEBACK_CHARACTERS + 3


def test_tracebacks_have_no_local_variables():
    """The code of an author is shown, and what its variables held is not."""
    with json_log() as stream:
        secret = "hunter" + "2"
        try:
            refuse("refused" if secret else "")
        except ValueError:
            structlog.get_logger().exception("call_failed", object="room/a")
    [line] = lines_of(stream)
    assert "ValueError: refused" in line["exception"]
    assert "hunter2" not in stream.getvalue()


def test_a_flood_of_one_name_is_few_lines():
    """Ten at once, then one a second; each thing has its own ten; the rest is counted to the last."""
    now = [100.0]
    restraint = Restraint(lambda: now[0])

    def passes(**entry):
        with contextlib.suppress(structlog.DropEvent):
            restraint(None, "error", entry)
            return 1
        return 0

    flood = sum(passes(event="call_failed", object=f"room/{n}") for n in range(1_000))
    feeds = sum(passes(event="feed_lost", feed=f"f{n}") for n in range(50))
    assert (BURST, 50) == (flood, feeds)
    [told] = restraint.suppressed()
    assert ("log_lines_suppressed", "call_failed", "room", 990) == tuple(
        told[key] for key in ("event", "name", "about", "count")
    )
    assert restraint.suppressed() == []
    now[0] += 3
    assert sum(passes(event="call_failed", object="room/x") for _ in range(100)) == 3
    [told] = restraint.suppressed()
    assert told["count"] == 97
    for n in range(3 * THINGS):
        passes(event="e", reason=f"never the same {n}")
    assert len(restraint._seen) <= THINGS + 1


def test_a_flood_in_a_log():
    """Every line of a flood is written or counted, at the end of the log too."""
    with json_log() as stream:
        for n in range(500):
            structlog.get_logger().error("call_failed", object=f"room/{n}", method="fail")
    lines = lines_of(stream)
    written = [line for line in lines if line["event"] == "call_failed"]
    counted = sum(line["count"] for line in lines if line["event"] == "log_lines_suppressed")
    assert (500, True) == (len(written) + counted, BURST <= len(written) <= BURST + 5)


def test_printable():
    """Ordinary text stays, in any language."""
    assert ("room/é 日本", "\\x1b[0m\\r\\n\\u2028\\ud800") == (
        printable("room/é 日本"),
        printable("\x1b[0m\r\n\u2028\ud800"),
    )


def test_settings(tmp_path):
    """The form and the level are settings; a form that does not exist is an error."""
    (tmp_path / "s.toml").write_text('log = "json"\nlog_level = "warning"\naccess_log = true\nmetrics = false\n')
    settings = load(tmp_path / "s.toml")
    assert ("json", "warning", True, False) == (settings.log, settings.log_level, settings.access_log, settings.metrics)
    assert ("auto", "info", False, True) == tuple(
        getattr(Settings(), name) for name in ("log", "log_level", "access_log", "metrics")
    )


def test_the_level(capsys):
    """What is less important is left out; afterwards structlog is as it was."""
    structlog.reset_defaults()
    with command_log(Settings(log="json", log_level="error")):
        structlog.get_logger().warning("feed_lost", feed="x")
        structlog.get_logger().error("stop_failed", object="room/a")
    assert not structlog.is_configured()
    assert ["stop_failed"] == [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]


class Blocked:
    """A descriptor that takes nothing until it is opened."""

    def __init__(self):
        self.open = threading.Event()
        self.taken = b""

    def write(self, data):
        self.open.wait(20)
        self.taken += data
        return len(data)


def test_a_blocked_descriptor_blocks_nobody():
    """Lines are taken while nothing is written; beyond the bound they are dropped; then all that was held comes out."""
    sink = Blocked()
    lines = LineSink(sink.write, lambda dropped: b"dropped %d\n" % dropped if dropped else b"", limit_bytes=1_000)
    began = time.monotonic()
    for n in range(1_000):
        lines.write(b"line %03d\n" % n)
        lines.flush()
    assert time.monotonic() - began < 5  # it never waited: the descriptor opens below
    statistics = lines.statistics()
    assert statistics.held_bytes <= statistics.limit_bytes == 1_000
    assert (1_000, True) == (statistics.lines + statistics.dropped, statistics.dropped > 0)
    sink.open.set()
    lines.close()
    out = sink.taken.splitlines()
    assert out[: statistics.lines] == [b"line %03d" % n for n in range(statistics.lines)]
    told = [int(line.removeprefix(b"dropped ")) for line in out[statistics.lines :]]
    assert statistics.dropped == sum(told)  # in two parts, where the sink's thread began late
    assert lines.statistics().held_bytes == 0


def test_a_reader_that_is_gone():
    """A closed pipe raises nothing here; its lines count as dropped."""
    reading, writing = os.pipe()
    os.close(reading)
    lines = LineSink(lambda data: os.write(writing, data), lambda dropped: b"x\n" if dropped else b"")
    for _ in range(3):
        lines.write(b"line\n")
    lines.close()
    os.close(writing)
    assert (3, 0) == (lines.statistics().dropped, lines.statistics().held_bytes)


def test_a_descriptor_that_somebody_made_non_blocking():
    """It is tried again until it takes the rest."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    full = threading.Event()

    def write(data):
        try:
            return os.write(writing, data)
        except BlockingIOError:
            full.set()
            raise

    lines = LineSink(write, lambda _: b"")
    line = b"x" * 1_023 + b"\n"
    for _ in range(200):  # three times what the pipe holds
        lines.write(line)
    lines.flush()
    assert full.wait(10)
    got = b""
    while len(got) < 200 * 1_024:
        got += os.read(reading, 65_536)
    lines.close()
    os.close(reading)
    os.close(writing)
    assert got == line * 200


async def test_a_service_whose_log_nobody_reads(tmp_path):
    """stderr is a pipe that is full and never read: requests are answered all the same, and SIGTERM ends it in time."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4_096)
    os.set_blocking(writing, True)
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "trio_swarm.cli", "serve", "--bind", "127.0.0.1:0", "--access-log", "--log", "json"],
        stdout=subprocess.PIPE,
        stderr=writing,
    )
    os.close(writing)
    try:
        with trio.fail_after(20):
            said = b""
            while not (found := re.search(rb"http://127\.0\.0\.1:(\d+)", said)):
                said += await process.stdout.receive_some()
            port = int(found[1])
            dropped = 0
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
                got = b""
                while got.count(b"HTTP/1.1 200") < 200:
                    got += await stream.receive_some()
                await stream.send_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
                while b"python_gc_collections_total" not in got:
                    got += await stream.receive_some()
                [held] = re.findall(rb"^trio_swarm_log_held_bytes (\S+)", got, re.MULTILINE)
                assert float(held) > 200 * 100
                dropped = float(re.findall(rb"^trio_swarm_log_dropped_lines_total (\S+)", got, re.MULTILINE)[0])
            assert dropped == 0  # all of it had room
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        os.close(reading)
        if process.poll() is None:
            process.kill()
        await process.stdout.aclose()
        with trio.CancelScope(shield=True):
            await process.wait()


async def test_the_lines_of_a_service(tmp_path):
    """In JSON a service says what it serves when it is ready, and how its shutdown went."""
    path = tmp_path / "log"
    with path.open("wb") as file:
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "trio_swarm.cli", "serve", "--bind", "127.0.0.1:0"],
            stdout=subprocess.PIPE,
            stderr=file,
        )
    try:
        with trio.fail_after(20):
            said = await process.stdout.receive_some()
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
    finally:
        await process.stdout.aclose()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert ["service_ready", "shutdown_begun", "shutdown_finished"] == [line["event"] for line in lines]
    assert [said.decode().split()[-1]] == lines[0]["urls"]
    assert (["channel"], "memory", 10_000) == tuple(lines[0][key] for key in ("kinds", "store", "connections"))


@pytest.mark.parametrize(
    ("form", "host_has_its_own", "access", "ours", "written"),
    [
        ("auto", False, False, True, True),
        ("auto", True, False, False, False),
        ("auto", True, True, False, True),
        ("json", True, False, True, True),
    ],
)
def test_the_log_under_another_host(form, host_has_its_own, access, ours, written):
    """What the host has set up stays; where nobody has, or the settings ask for it, it is ours, until the end."""
    structlog.reset_defaults()
    if host_has_its_own:
        structlog.configure(processors=[structlog.processors.JSONRenderer()])
    before = structlog.get_config()["processors"]
    with log_of_a_guest(Settings(log=form, access_log=access)) as log:
        assert (ours, written) == (structlog.get_config()["processors"] != before, log is not None)
    assert structlog.get_config()["processors"] == before
    assert structlog.is_configured() == host_has_its_own
    structlog.reset_defaults()


def test_a_renderer_with_a_defect_does_not_end_the_log():
    """What it raises is counted, and the lines go on."""
    written = []
    asked = []

    def remark(dropped):
        asked.append(dropped)
        if len(asked) < 3:
            raise ZeroDivisionError
        return b"dropped %d\n" % dropped if dropped else b""

    def write(data):
        written.append(data)
        return len(data)

    lines = LineSink(write, remark)
    for number in range(4):
        before = len(asked)
        lines.write(b"%d\n" % number)
        lines.flush()
        wait_until(lambda before=before: len(asked) > before)
    lines.close()
    said = b"".join(written)
    assert [b"0", b"1", b"2", b"3"] == [line for line in said.splitlines() if not line.startswith(b"dropped")]
    assert said.count(b"dropped 2\n") == 1
    assert 2 == lines.statistics().dropped


def wait_until(holds):
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)
