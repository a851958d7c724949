"""`trio-swarm top`, at a real service: printed once, as JSON, and in a terminal of its own."""

import fcntl
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

from trio_swarm.cli.figures import Look, Rates, busiest, feeds

PATIENCE_S = 15.0


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
