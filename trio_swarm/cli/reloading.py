"""A reload: the same process, begun again with what it listens on.

`SIGHUP` asks for it. First `check` runs, in a child, with the options of this command: it sees the new settings, and
the new code, as the next image of this process will see them. If something would fail that is one line in the log, and
all goes on. Else the service ends as it does at a shutdown (streams are told when to come back), and the process
executes its own command line again. It keeps its number, and its listening sockets stay open all the time, so that who
connects meanwhile waits and is not refused. What was in memory alone is gone, as after any restart.
"""

import contextlib
import errno
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Final

import attrs
import msgspec
import structlog
import trio

from trio_swarm.cli.supervision import Supervision
from trio_swarm.edge.inherited import OURS, Inherited, describe_address, hand_over, take_inherited
from trio_swarm.edge.listeners import BACKLOG, addresses, open_listeners, tune
from trio_swarm.settings import Settings

CHECK_S: Final = 30.0  # a start takes one or two; a check that hangs is a mistake too
_NO_ROOM: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})  # says nothing of what was to be opened

_log = structlog.get_logger("trio_swarm.cli")


class _Said(msgspec.Struct):
    what: str
    state: str
    says: str


_read_findings = msgspec.json.Decoder(list[_Said]).decode


@attrs.define
class Reloading:
    """What outlives one image of the process: its sockets, and the way to its supervisor.

    Attributes:
        inherited: the sockets this image was given.
        supervision: see there.
        wanted: whether the service ended to begin again.
    """

    inherited: list[Inherited]
    supervision: Supervision
    wanted: bool = False
    _held: list[Inherited] = attrs.Factory(list)
    _names: tuple[str, ...] = ()  # of what else a second service could not have
    _has_terminal: bool = False

    @classmethod
    def begin(cls) -> "Reloading":
        """Take what this process was given. To be called once, before there are children.

        Raises:
            SettingsError: it was given what cannot be listened on.
        """
        made = cls(take_inherited(os.environ), Supervision(os.environ))
        made._has_terminal = _has_terminal()
        return made

    @property
    def given_bind(self) -> str | None:
        """Where whoever started this process wants it to listen, whatever the settings say."""
        return next((describe_address(each.sock) for each in self.inherited if not each.is_ours), None)

    def open_listeners(self, settings: Settings) -> list[socket.socket]:
        """The sockets to serve on: those that were given, if they are where the settings say, else new ones.

        Raises:
            SettingsError: `settings.bind` cannot be listened on.
        """
        found, self.inherited = self.inherited, []
        given = [each for each in found if not each.is_ours]
        if not given and found and _are_at([each.sock for each in found], settings.bind):
            given = found
        for each in found:
            if each not in given:
                each.sock.close()
        if not given:
            stall_s = settings.stall.seconds
            given = [Inherited(sock, OURS) for sock in open_listeners(settings.bind, stall_s=stall_s)]
        for each in given:
            each.sock.setblocking(False)
            each.sock.listen(BACKLOG)
            tune(each.sock, settings.stall.seconds)
        # The server closes its own when it stops accepting; these keep the backlog open.
        self._held = [Inherited(each.sock.dup(), each.name) for each in given]
        self._names = settings.store, settings.control
        return [each.sock for each in given]

    def let_go(self) -> None:
        """The service stops for good: who connects now is refused. Idempotent."""
        while self._held:
            self._held.pop().sock.close()

    def is_hangup(self) -> bool:
        """Whether `SIGHUP` means what it meant first: the terminal that this was started from has gone."""
        return self._has_terminal and not _has_terminal()

    async def find_objection(self) -> str | None:
        """Run the check; why a reload would fail, or None."""
        held = [describe_address(each.sock) for each in self._held]
        prefix = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv[1:])]
        command = [sys.executable, *prefix, "check", *sys.argv[2:], "--json"]
        for each in (*held, *self._names):
            command += ["--held", each]
        with trio.move_on_after(CHECK_S):
            try:
                done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
            except (OSError, RuntimeError) as error:  # no descriptor, process or memory; no thread to begin it from
                return f"the check cannot be run: {error}"
            if done.returncode == 0:
                return None
            try:
                findings = _read_findings(done.stdout)
            except msgspec.MsgspecError:
                return done.stderr.decode(errors="replace").strip() or f"the check ended with {done.returncode}"
            return "; ".join(each.says for each in findings if each.state == "fails")
        return f"the check was not over within {CHECK_S:g} s"

    def execute(self) -> None:
        """Begin again. Returns only where that cannot be.

        `SIGHUP` has to be ignored and blocked by now: one that comes meanwhile would end the process.

        Raises:
            OSError: the interpreter is gone.
        """
        environment = dict(os.environ)
        self.supervision.hand_over(environment)
        hand_over(self._held, environment)
        for stream in (sys.__stdout__, sys.__stderr__):
            if stream is not None:
                with contextlib.suppress(OSError):  # whoever read it has gone: no reason to end
                    stream.flush()
        os.execve(sys.executable, sys.orig_argv, environment)  # noqa: S606 - the command line of this process


def defer_hangup() -> None:
    """From here on `SIGHUP` waits: the next image of this process takes it up when it can."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def admit_hangup() -> None:
    """What waited may come: somebody listens now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def can_reload() -> bool:
    """Whether this process is `serve` itself, and not a program that called it."""
    return sys.argv[1:2] == ["serve"]


def _are_at(sockets: Sequence[socket.socket], bind: str) -> bool:
    wanted = set(addresses(bind))
    found = {(sock.getsockname()[0], sock.getsockname()[1]) for sock in sockets}
    any_port = {(host, 0) for host, _ in found}
    return wanted in (found, any_port)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno in _NO_ROOM
    return True
