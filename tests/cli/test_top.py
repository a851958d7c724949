"""`trio-swarm top`, at a real service: printed once, as JSON, and in a terminal of its own."""

import fcntl
import io
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
from contextlib import suppress

import httpx
import pytest
import trio
from rich.console import Console

from trio_swarm.cli.figures import Look, Rates, busiest, feeds
from trio_swarm.cli.top import _WIDE
from trio_swarm.cli.top_view import draw
from trio_swarm.cli.viewing import find_socket
from trio_swarm.errors import SettingsError

PATIENCE_S = 60.0


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    """A place of its own for the sockets of services."""
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


async def run_top(*arguments):
    return await trio.run_process(
        [sys.executable, "-m", "trio_swarm.cli", "top", *arguments],
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )


async def test_once_as_a_table_and_as_json(child, runtime):
    """The only service is found by itself; a publication shows as a rate; its port, URL and path lead there too."""
    async with child("demo", "--bind", "127.0.0.1:0", "--seed", "3") as service:
        port = service.url.rpartition(":")[2]
        done = await run_top()
        assert (done.returncode, done.stderr) == (0, b"")
        table = done.stdout.decode()
        assert "hub/demo" in table
        assert "live" in table
        assert "\x1b" not in table
        for where in (port, service.url, str(runtime / "trio-swarm" / f"{port}.sock")):
            done = await run_top(where, "--json", "--once", "--interval", "0.3")
            told = json.loads(done.stdout)
            assert told["rates"]["published"] > 0
            assert told["feeds"][0]["state"] == "live"
            assert told["budget"]["bytes"] > told["statistics"]["process"]["rss_bytes"]
        assert await service.end() == 0
    assert list((runtime / "trio-swarm").iterdir()) == []


async def test_none_and_several(child, runtime):
    """Without a service, or with two, it is one sentence that says what to do, and code 2."""
    done = await run_top()
    assert done.returncode == 2
    assert b"no service of this user is running" in done.stderr
    async with (
        child("serve", "--bind", "127.0.0.1:0") as one,
        child("serve", "--bind", "127.0.0.1:0") as two,
        child("serve", "--bind", "127.0.0.1:0", "--control", "off"),
    ):
        done = await run_top()
        assert done.returncode == 2
        ports = sorted(service.url.rpartition(":")[2] for service in (one, two))
        assert done.stderr.decode().strip().endswith(f"say which: {', '.join(ports)}")


@pytest.mark.parametrize("where", ["http://example.org:8000", "ftp:", "1", "/absent.sock", "http://127.0.0.1:99999"])
def test_nowhere(invoke, runtime, where):
    """A place that is none is one sentence, and code 2."""
    result = invoke("top", where)
    assert result.exit_code == 2
    assert len(result.output.strip().splitlines()) == 1


class Terminal:
    """A terminal with `top` in it."""

    def __init__(self, *arguments):
        self.number, inside = pty.openpty()
        self.resize(40, 120)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "trio_swarm.cli", "top", "--interval", "0.2", *arguments],
            stdin=inside, stdout=inside, stderr=inside, env={**os.environ, "TERM": "xterm-256color"},
            start_new_session=True,
        )  # fmt: skip
        os.close(inside)
        os.set_blocking(self.number, False)
        self.text = ""

    def resize(self, rows, columns):
        fcntl.ioctl(self.number, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def until(self, wanted):
        """Read until this is on the screen."""
        with trio.fail_after(PATIENCE_S):
            while wanted not in self.text:
                try:
                    self.text += os.read(self.number, 65536).decode(errors="replace")
                except BlockingIOError:
                    await trio.sleep(0.02)
                except OSError:
                    raise AssertionError(self.text) from None

    async def ended(self):
        """Read until it ends; its exit code."""
        with trio.fail_after(PATIENCE_S):
            while self.process.poll() is None:
                try:
                    self.text += os.read(self.number, 65536).decode(errors="replace")
                except OSError:
                    await trio.sleep(0.02)
        with suppress(OSError):  # nothing more, or nobody at the other end
            while rest := os.read(self.number, 65536):
                self.text += rest.decode(errors="replace")
        return self.process.returncode


async def test_in_a_terminal(child, runtime):
    """It draws, follows a change of size, and `q` ends it with the terminal as it was."""
    async with child("serve", "--bind", "127.0.0.1:0") as service:
        terminal = Terminal()
        try:
            await terminal.until("connections")
            terminal.text = ""
            async with httpx.AsyncClient() as client:
                url = f"{service.url}/v1/channel/seen-by-top/publish"
                assert (await client.post(url, json={"data": 1})).status_code == 200
            await terminal.until("channel/seen-by-top")
            terminal.resize(20, 50)
            terminal.text = ""
            await terminal.until("turns")
            os.write(terminal.number, b"q")
            assert await terminal.ended() == 0
            assert "\x1b[?1049l" in terminal.text  # the screen from before is back
            assert "Traceback" not in terminal.text
        finally:
            terminal.process.kill()
            terminal.process.wait()
            os.close(terminal.number)


async def test_ctrl_c_and_the_end_of_the_service(child, runtime):
    """Ctrl-C ends it without a word; when the service ends, it says so."""
    async with child("serve", "--bind", "127.0.0.1:0") as service:
        for end in ("ctrl-c", "service"):
            terminal = Terminal()
            try:
                await terminal.until("connections")
                if end == "ctrl-c":
                    terminal.process.send_signal(signal.SIGINT)
                    assert await terminal.ended() == 0
                    assert "Traceback" not in terminal.text
                else:
                    assert await service.end() == 0
                    assert await terminal.ended() == 1
                    assert "the service has ended" in terminal.text
            finally:
                terminal.process.kill()
                terminal.process.wait()
                os.close(terminal.number)


# Where it is looked for, and what it draws


@pytest.mark.parametrize("where", ["localhost:8123", "127.0.0.1:8123", "[::1]:8123", "http://localhost:8123/", "8123"])
def test_an_address_is_no_file(runtime, where):
    """HOST:PORT means the same as the URL, and as the port alone."""
    assert runtime / "trio-swarm" / "8123.sock" == find_socket(where)


@pytest.mark.parametrize("where", ["99999", "0", "localhost:99999", "localhost:0", "localhost:http", "example.org:80"])
def test_an_address_that_is_none(runtime, where):
    """A port out of range is said to be that, and not looked for as a file."""
    with pytest.raises(SettingsError, match=r"port|Port|not a URL|another machine"):
        find_socket(where)


REASON = "cannot connect to " + "far.away." * 12 + "example: Connection refused"


def told_of(name="demo", reason=REASON, **statistics):
    feed = {"object": f"hub/{name}", "name": name, "state": "connecting", "statistics": {"failures": 12345}}
    feed["statistics"]["reason"] = reason
    process = {"pid": 1234567, "rss_bytes": 98_765_432.1, "cpu_s": 1.0}
    told = {"uptime_s": 90061.0, "process": process, "directory": {"feeds": [feed], "objects": {}}, **statistics}
    budget = {"bytes": 12_345_678_901}
    return Look({"version": "0.1.0", "bind": "127.0.0.1:8000", "budget": budget, "statistics": told})


def drawn(look, width):
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(draw(look, look))
    return console.file.getvalue().splitlines()


def test_eighty_columns():
    """Only the last failure gives way: a feed's name and state are there in full, and so is each number."""
    lines = drawn(told_of(), 80)
    assert all(len(line) <= 80 for line in lines)
    [row] = [line for line in lines if line.startswith("demo ")]
    assert ["demo", "hub/demo", "connecting", "0", "12345", "cannot"] == row.split()[:6]
    assert row.rstrip().endswith("…")
    assert "trio-swarm 0.1.0 on 127.0.0.1:8000, process 1234567, up 25:01:01" == lines[0].rstrip()
    [memory] = [line for line in lines if line.startswith("memory")]
    assert "memory       94.2 MiB of 11,773.8 MiB at worst (1%)" == memory.rstrip()


def test_names_that_are_too_long_for_the_terminal():
    """Of each enough stays to know it by, and short columns stay whole."""
    [row] = [line for line in drawn(told_of("n" * 150), 80) if line.startswith("nnn")]
    assert row.startswith("n" * 19)
    assert "hub/nnnnnnnnnnnnn" in row
    assert "connecting" in row


def test_a_pipe_is_as_wide_as_it_needs_to_be():
    """Nothing is cut or wrapped where no terminal has an edge."""
    [row] = [line for line in drawn(told_of("n" * 150), _WIDE) if line.startswith("nnn")]
    assert REASON in row
    assert "n" * 150 in row


async def test_a_pipe_gets_all_of_it(child, runtime):
    """The command itself draws so."""
    feed = f"f=coinbase:ws://127.0.0.1:1/{'x' * 100}#BTC-USD"
    name = "n" * 120
    async with child("serve", "--bind", "127.0.0.1:0", "--feed", feed.replace("f=", f"{name}=")):
        done = await run_top("--once")
    assert name in done.stdout.decode()
    assert "cannot connect to 127.0.0.1:1: Connection refused" in done.stdout.decode()


# What it works out


def look(uptime_s, **statistics):
    return Look({"statistics": {"uptime_s": uptime_s, **statistics}})


def an_object(id, busy_s, turns, waiting=0):
    lanes = {"control": 0, "call": waiting, "feed": 0}
    return {
        "kind": "room",
        "id": id,
        "state": "running",
        "busy_s": busy_s,
        "turns": turns,
        "mailbox": lanes,
        "longest_s": 0.1,
    }


def test_rates_are_differences_by_time():
    """Counters become rates; who left is who came and is not there; a service that began anew has none."""
    before = look(10.0, clients={"opened": 5, "sse": 3, "websocket": 1}, directory={"turns": 10})
    now = look(12.0, clients={"opened": 9, "sse": 2, "websocket": 2}, directory={"turns": 30})
    rates = Rates.between(before, now)
    assert (rates.opened, rates.ended, rates.turns, rates.published) == (2.0, 2.0, 10.0, 0.0)
    assert Rates.between(now, before) == Rates(0, 0, 0, 0, 0, 0, 0)


def test_the_busiest_come_first():
    """By their share of the time, then by what waits; an object that is new counts from nothing."""
    before = look(0.0, objects=[an_object("calm", 1.0, 10), an_object("busy", 5.0, 100)])
    now = look(
        2.0, objects=[an_object("calm", 1.0, 10, waiting=3), an_object("busy", 6.0, 120), an_object("new", 0.5, 1)]
    )
    found = busiest(before, now)
    assert [each.name for each in found] == ["room/busy", "room/new", "room/calm"]
    assert (found[0].busy, found[0].turns_s, found[2].waiting) == (0.5, 10.0, 3)


def test_feeds_without_statistics_of_their_own():
    """An author's feed need not have any."""
    feed = {"object": "room/a", "name": "own", "state": "live", "statistics": None}
    found = feeds(look(0.0, directory={"feeds": []}), look(1.0, directory={"feeds": [feed]}))
    assert [(each.name, each.state, each.events_s) for each in found] == [("own", "live", 0.0)]


def test_no_other_command_waits_for_the_drawing():
    """What draws is imported when it draws. (structlog imports some of rich where it finds it.)"""
    script = "import sys, trio_swarm.cli.serve, trio_swarm.cli.top; sys.exit('rich.live' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
