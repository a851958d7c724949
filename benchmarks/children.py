"""The processes of a benchmark, and how the one that starts them talks to them.

Server and clients must not share a process: their CPU time could not be told apart. Each child gets one end of a
socket pair and speaks lines of JSON over it: a question, an answer. A child that says nothing in time, or dies, is
an error that carries the end of its log. Nothing outlives the `with` block.
"""

import contextlib
import json
import os
import re
import resource
import select
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import SplitResult, urlsplit

ROOT = Path(__file__).resolve().parent.parent

_FILES = 24_000  # 10,000 sockets, as many again for a second server in turn, and room
_GRACE_S = 8.0  # the service promises to be gone 5 s after it was told
_LOG_TAIL = 3_000
_START_S = 30.0
_URL = re.compile(rb"(http|ws)://[^\s]+")
_PAGE = os.sysconf("SC_PAGE_SIZE")


class ChildError(Exception):
    """A child died, was silent too long, or said that something is wrong."""


class Line:
    """One end of the pair: whole JSON lines, blocking, with a deadline."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._pending = b""

    def send(self, message: dict[str, Any]) -> None:
        """Send one message; they are short, so this does not block for long."""
        self.sock.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout_s: float) -> dict[str, Any] | None:
        """Return the next message; None when the other end has gone.

        Raises:
            TimeoutError: there was none in time.
        """
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._pending:
            rest = deadline - time.monotonic()
            if rest <= 0 or not select.select([self.sock], [], [], rest)[0]:
                raise TimeoutError
            try:
                data = self.sock.recv(1 << 20)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self._pending += data
        line, _, self._pending = self._pending.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message


class Child:
    """One child process running a module of this folder; a context manager that ends it."""

    def __init__(self, module: str, *arguments: str, cpu: int | None = None) -> None:
        ours, theirs = socket.socketpair()
        self.name = module
        self._line = Line(ours)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", f"benchmarks.{module}", str(theirs.fileno()), *arguments],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
                pass_fds=[theirs.fileno()],
            )
        if cpu is not None:
            # before it has made a thread: all it makes inherit this
            os.sched_setaffinity(self.process.pid, {cpu})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def tell(self, **message: Any) -> None:
        """Send a message that has its answer later, or none."""
        try:
            self._line.send(message)
        except OSError as error:
            raise ChildError(self._explain("is gone")) from error

    def hear(self, patience_s: float) -> dict[str, Any]:
        """Return the next answer.

        Raises:
            ChildError: none came in time, the child is gone, or it answered with an error.
        """
        try:
            answer = self._line.receive(patience_s)
        except TimeoutError as error:
            raise ChildError(self._explain(f"said nothing for {patience_s:.0f} s")) from error
        if answer is None:
            raise ChildError(self._explain("is gone"))
        if "error" in answer:
            raise ChildError(self._explain(str(answer["error"])))
        return answer

    def ask(self, patience_s: float, **message: Any) -> dict[str, Any]:
        """Send a message and return its answer."""
        self.tell(**message)
        return self.hear(patience_s)

    def rss(self) -> int:
        """Return the resident memory of the child in bytes."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * _PAGE

    def log(self) -> str:
        """Return the end of what it wrote to its standard output and error."""
        self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, self._log.tell() - _LOG_TAIL))
        return self._log.read().decode(errors="replace")

    def end(self) -> float:
        """Close its line, which tells it to stop; kill it if it does not. Return the seconds it took."""
        began = time.monotonic()
        self._line.sock.close()
        try:
            self.process.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        return time.monotonic() - began

    def _explain(self, what: str) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.2)
        return f"{self.name} {what} (exit code {self.process.poll()}); the end of its log:\n{self.log()}"


def inherited_line() -> Line:
    """Return the child's end of the pair: its number is the first argument."""
    return Line(socket.socket(fileno=int(sys.argv[1])))


def raise_file_limit() -> None:
    """Allow as many descriptors as 10,000 clients need; the hard limit is raised where the user may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (max(_FILES, hard), hard):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return


class Command:
    """A command line of the project, which prints a URL when it is ready; a context manager that ends it."""

    def __init__(self, *arguments: str, cpu: int | None = None) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the command
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from trio_swarm.cli import main; main()", *arguments],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        if cpu is not None:
            os.sched_setaffinity(self.process.pid, {cpu})
        try:
            self.url = self._hear_url()
        except ChildError:
            self.end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def cpu_s(self) -> float:
        """Return the CPU seconds it has used, to the scheduler's tick."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> float:
        """Ask it to stop; kill it if it does not. Return the seconds it took."""
        began = time.monotonic()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()
        return time.monotonic() - began

    def _hear_url(self) -> SplitResult:
        deadline = time.monotonic() + _START_S
        text = b""
        stdout = self.process.stdout
        assert stdout is not None
        while (found := _URL.search(text)) is None or not text.endswith(b"\n"):
            if not select.select([stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise ChildError(f"{self.process.args!r} printed no URL in {_START_S:.0f} s")
            more = os.read(stdout.fileno(), 65_536)
            if not more:
                self._log.seek(0)
                raise ChildError(f"{self.process.args!r} ended: {self._log.read().decode(errors='replace')}")
            text += more
        return urlsplit(found[0].decode())


def cores(*, pin: bool) -> tuple[int | None, int | None]:
    """Return one core for the server and another for the clients, or no cores where there are not two."""
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if pin and len(usable) > 1 else (None, None)
