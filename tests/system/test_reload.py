"""SIGHUP: the same process begins again with what it listens on, or goes on as it was; what a supervisor is told."""

import json
import os
import pty
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
import trio
from returning_clients import wait_for

LAUNCH = """
import os, sys
given = int(sys.argv[1])
os.dup2(given, 3, inheritable=True)
os.set_inheritable(given, given == 3)  # as systemd does: nothing but what it counts
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="http")
os.execv(sys.argv[2], sys.argv[2:])
"""

MODULE = '''
import os
import subprocess
import sys

from trio_swarm import exposed
from trio_swarm.objects.durable import DurableObject

LOOK = """
import json, os
beyond = {}
for number in os.listdir("/proc/self/fd"):
    try:
        beyond[number] = os.readlink(f"/proc/self/fd/{number}")
    except FileNotFoundError:
        pass  # the one that listed them
print(json.dumps([dict(os.environ), {number: what for number, what in beyond.items() if int(number) > 2}]))
"""


class Child(DurableObject):
    @exposed
    async def look(self) -> str:
        command = [sys.executable, "-c", LOOK]
        return subprocess.run(command, capture_output=True, check=True, close_fds=False).stdout.decode()

    @exposed
    async def speak(self) -> None:
        print("words")

    @exposed
    async def version(self) -> int:
        return 1
'''


async def ask(port, method="GET", path="/healthz"):
    """One request on a connection of its own; the answer's status and body."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        await stream.send_all(head.encode())
        raw = b""
        while received := await stream.receive_some(65536):
            raw += received
    head, _, body = raw.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


async def call(port, method):
    status, body = await ask(port, "POST", f"/v1/child/a/call/{method}")
    assert 200 == status, body
    return json.loads(body)["result"]


def descriptors(process):
    return sum(1 for _ in Path(f"/proc/{process.pid}/fd").iterdir())


def sayings(said, words):
    return said.decode().count(words)


async def reload(process, said):
    """SIGHUP, and until it serves again."""
    times = sayings(said, "serves on")
    os.kill(process.pid, signal.SIGHUP)
    await wait_for(lambda: sayings(said, "serves on") > times)


@asynccontextmanager
async def connecting(port):
    """A stream of requests, each on a new connection, for as long as the block lasts; gives what became of them."""
    seen = {"answered": 0, "refused": 0, "unanswered": 0}

    async def knock():
        while True:
            try:
                status, _ = await ask(port)
                seen["answered" if status == 200 else "unanswered"] += 1
            except OSError:
                seen["refused"] += 1
            except trio.BrokenResourceError:
                seen["unanswered"] += 1

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(knock)
        yield seen
        nursery.cancel_scope.cancel()


async def test_reloads(service, tmp_path):
    """No connect is refused and no request unanswered; the number stays, descriptors do not grow; new code is there."""
    (tmp_path / "reloaded.py").write_text(MODULE)
    said = bytearray()
    async with service("serve", "--bind", "127.0.0.1:0", "--objects", "reloaded", said=said, cwd=tmp_path) as (
        process,
        port,
    ):
        assert 1 == await call(port, "version")
        await reload(process, said)  # the first may differ: it inherits where the one before opened
        before = descriptors(process)
        async with connecting(port) as seen:
            for number in range(2, 4):
                (tmp_path / "reloaded.py").write_text(MODULE.replace("return 1", f"return {number}"))
                await reload(process, said)
                assert number == await call(port, "version")
        await wait_for(lambda: descriptors(process) <= before)
        assert process.poll() is None
        assert (0, 0) == (seen["refused"], seen["unanswered"]), seen
        assert seen["answered"] > 20
    assert 0 == process.returncode


async def test_a_reload_that_would_fail_changes_nothing(service, tmp_path):
    """One line says why, and the old settings go on; when they are right again, the next one comes about."""
    config = tmp_path / "s.toml"
    config.write_text('bind = "127.0.0.1:0"\n')
    said = bytearray()
    async with service("serve", "--config", config, said=said) as (process, port):
        config.write_text('bind = "127.0.0.1:0"\n[limits]\nconections = 5\n')
        os.kill(process.pid, signal.SIGHUP)
        await wait_for(lambda: sayings(said, "reload_refused"))
        line = next(line for line in said.decode().splitlines() if "reload_refused" in line)
        assert "limits.conections" in line
        assert 200 == (await ask(port))[0]
        config.write_text('bind = "127.0.0.1:0"\n[limits]\nbody_bytes = 5\n')
        await reload(process, said)
        assert 413 == (await post(port, b'{"data": 1}'))
        assert 1 == sayings(said, "reload_refused")


async def test_a_check_that_cannot_be_run_changes_nothing(service):
    """No descriptor is free: a line says so each time, and streams go on; when some are, the next one comes about."""
    said = bytearray()
    async with service("serve", "--bind", "127.0.0.1:0", said=said) as (process, port), streaming(port) as stream:
        with no_descriptor_free(process.pid):
            for times in (1, 2):
                os.kill(process.pid, signal.SIGHUP)
                await wait_for(lambda times=times: sayings(said, "reload_refused") == times)
        assert 2 == sayings(said, "the check cannot be run: [Errno 24] Too many open files")
        assert 200 == await post(port, b'{"data": "still here"}')
        await reads_until(stream, b"still here")
        await reload(process, said)
    assert 0 == process.returncode


@contextmanager
def no_descriptor_free(pid):
    """Nothing more can be opened, by a process that has its standard streams."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


@asynccontextmanager
async def streaming(port):
    """A client of `channel/a` that has been greeted."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /v1/channel/a/events HTTP/1.1\r\nHost: h\r\n\r\n")
        await reads_until(stream, b"event: hello")
        yield stream


async def reads_until(stream, words):
    seen = b""
    with trio.fail_after(20):
        while words not in seen:
            received = await stream.receive_some(4096)
            assert received, seen
            seen += received


async def post(port, body):
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        head = "POST /v1/channel/a/publish HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n"
        await stream.send_all(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        return int((await stream.receive_some(65536)).split()[1])


async def test_a_new_address(service, tmp_path):
    """Where the settings name another address, the reload listens there and lets the old one go."""
    config = tmp_path / "s.toml"
    config.write_text('bind = "127.0.0.1:0"\n')
    said = bytearray()
    async with service("serve", "--config", config, said=said) as (process, port):
        config.write_text('bind = "127.0.0.2:0"\n')
        await reload(process, said)
        host, new_port = re.findall(r"http://([0-9.]+):([0-9]+)", said.decode())[-1]
        assert "127.0.0.2" == host
        with pytest.raises(OSError, match=r"failed|refused"):
            await ask(port)
        async with await trio.open_tcp_stream(host, int(new_port)):
            pass


async def test_impatient_hangups_end_nothing(service):
    """SIGHUP while one is under way, while the process begins again, and before it serves: it lives and ends well."""
    said = bytearray()
    async with service("serve", "--bind", "127.0.0.1:0", said=said) as (process, port):
        with trio.move_on_after(2):
            while True:
                os.kill(process.pid, signal.SIGHUP)
                await trio.sleep(0.01)
        await wait_for(lambda: sayings(said, "serves on") > 1)
        assert 200 == (await ask(port))[0]
        assert process.poll() is None
    assert 0 == process.returncode


async def test_nobody_reads_what_it_prints(service, tmp_path):
    """Its stdout has lost its reader, and there are words of an object for it: it begins again all the same."""
    (tmp_path / "speaking.py").write_text(MODULE)
    options = {"launcher": ["sh", "-c", 'exec "$0" "$@" 2>log'], "environment": {"PYTHONUNBUFFERED": ""}}
    logged = (tmp_path / "log").read_bytes
    async with service("serve", "--bind", "127.0.0.1:0", "--objects", "speaking", cwd=tmp_path, **options) as (
        process,
        port,
    ):
        await wait_for(lambda: sayings(logged(), "service_ready"))  # else it finds out by its own words
        await process.stdout.aclose()
        for times in (2, 3):
            await call(port, "speak")
            os.kill(process.pid, signal.SIGHUP)
            await wait_for(lambda times=times: sayings(logged(), "service_ready") == times)
    assert (0, 0) == (process.returncode, sayings(logged(), "Traceback"))


@asynccontextmanager
async def supervisor(address):
    """Listen as a supervisor does: gives what it was told, in order."""
    heard = []

    async def hear(sock):
        while True:
            heard.append(dict(line.split("=", 1) for line in (await sock.recv(4096)).decode().splitlines()))

    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        await sock.bind(str(address))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear, sock)
            yield heard
            nursery.cancel_scope.cancel()


async def test_as_systemd_has_it(service, tmp_path):
    """Given a socket it serves there, whatever `bind` says; it tells ready, reloading with the time, and stopping.

    After a reload the socket and the supervisor are still known, and neither is to a child of it.
    """
    (tmp_path / "watched.py").write_text(MODULE)
    said = bytearray()
    environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1500000"}
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        async with supervisor(tmp_path / "notify") as heard:
            async with service(
                "serve", "--bind", "127.0.0.9:9", "--objects", "watched",
                launcher=[sys.executable, "-c", LAUNCH, str(sock.fileno())], pass_fds=[sock.fileno()],
                environment=environment, said=said, cwd=tmp_path,
            ) as (process, found):  # fmt: skip
                assert port == found
                for begun in (1, 2):
                    seen, beyond_the_standard_streams = json.loads(await call(port, "look"))
                    assert [] == [name for name in seen if name.startswith(("LISTEN_", "NOTIFY_", "WATCHDOG_"))]
                    assert {} == beyond_the_standard_streams
                    await wait_for(lambda: heard[-1] == {"WATCHDOG": "1"})
                    if begun == 1:
                        await reload(process, said)
                assert {str(process.pid)} == {message["MAINPID"] for message in heard if "MAINPID" in message}
            await wait_for(lambda: any("STOPPING" in message for message in heard))
    states = [key for message in heard for key in message if key in {"READY", "RELOADING", "STOPPING"}]
    assert ["READY", "RELOADING", "READY", "STOPPING"] == states
    assert all(int(each["MONOTONIC_USEC"]) > 0 for each in heard if "RELOADING" in each)


def test_a_descriptor_that_is_no_socket():
    """It is a mistake of whoever started it: one sentence, exit code 2."""
    with Path("/dev/null").open() as file:
        process = subprocess.run(
            [sys.executable, "-c", LAUNCH, str(file.fileno()), sys.executable, "-m", "trio_swarm.cli", "serve"],
            pass_fds=[file.fileno()], capture_output=True, check=False,
        )  # fmt: skip
    assert 2 == process.returncode
    assert b"Error: LISTEN_FDS: descriptor 3 is no socket: Socket operation on non-socket\n" == process.stderr


def test_a_terminal_that_is_closed_ends_it():
    """Begun by hand, it ends with its terminal: there SIGHUP means what it meant first."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "trio_swarm.cli", "serve", "--bind", "127.0.0.1:0"])  # noqa: S606
    deadline = time.monotonic() + 20
    said = b""
    try:
        while b"serves on" not in said:
            assert select.select([terminal], [], [], deadline - time.monotonic())[0], said
            said += os.read(terminal, 4096)
        with no_descriptor_free(pid):  # then nobody can look whether the terminal is there: it is
            os.kill(pid, signal.SIGHUP)
            while b"reload_refused" not in said:
                assert select.select([terminal], [], [], deadline - time.monotonic())[0], said
                said += os.read(terminal, 4096)
        os.close(terminal)
        while not os.waitpid(pid, os.WNOHANG)[0]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
