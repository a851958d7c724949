"""The operator's window: a Unix socket on which a service tells what it is doing.

What it tells (addresses, names of streams) is not for everybody, and there is nobody asked who they are on the port
that clients use, which a proxy may publish whole. So it stands on a socket in the file system, mode 0600, in a folder
that belongs to this user alone.

A viewer is given a line of JSON at once and then one a second, until it asks: from then on each line it writes is
answered by one line, and nothing comes unasked. The word `tree` asks for the whole tree beside the statistics, which
with ten thousand clients is a megabyte and some tens of milliseconds, and so is not told unasked. A viewer that does
not read is dropped.

A socket's file outlives a process that was killed. The next one that wants the name tries it first: it is cleared
away only if the system says that nobody listens there. What may not be asked is somebody's, and stays.
"""

import contextlib
import errno
import os
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
import trio

from trio_swarm.errors import SettingsError
from trio_swarm.settings import KIB, VIEWERS

EVERY_S: Final = 1.0
FRESH_S: Final = 0.1  # a line is told again for so long: statistics of a thousand objects take milliseconds
SEND_S: Final = 5.0  # for a line; who takes longer is not looking
REQUEST_BYTES: Final = 1 * KIB  # of what a viewer may write without ending a line
SUFFIX: Final = ".sock"
NO_PATH: Final = ("auto", "off")
_NOBODY: Final = {errno.ECONNREFUSED, errno.ENOENT}

Tell = Callable[[bool], Mapping[str, Any]]  # with the tree, or without

_log = structlog.get_logger("trio_swarm.health")


def find_folder(environment: Mapping[str, str]) -> Path:
    """The folder of this user's services, which need not exist yet.

    `$RUNTIME_DIRECTORY` is the service's own under systemd; `$XDG_RUNTIME_DIR` is the user's; else it is one in the
    system's folder for temporary files.
    """
    runtime = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    if runtime:
        return Path(runtime)
    user = environment.get("XDG_RUNTIME_DIR", "")
    if user and Path(user).is_dir():
        return Path(user) / "trio-swarm"
    return Path(tempfile.gettempdir()) / f"trio-swarm-{os.getuid()}"


def prepare_folder(folder: Path) -> None:
    """Make the folder, for this user alone, or see that it is so: in a shared one somebody else may have come first.

    Raises:
        SettingsError: it is somebody else's, a link, or open to others.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise SettingsError("control", f"{folder} cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise SettingsError("control", f"{folder} is not a folder that only this user may write to; remove it")


def find_sockets(environment: Mapping[str, str]) -> list[Path]:
    """The sockets of services that answer."""
    return [path for path in sorted(find_folder(environment).glob(f"*{SUFFIX}")) if answers(path)]


def answers(path: Path) -> bool:
    """Whether somebody listens there, or may: another user's socket does not let itself be tried."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError as error:
            return error.errno not in _NOBODY
    return True


@asynccontextmanager
async def open_control(path: Path, tell: Tell) -> AsyncIterator[None]:
    """Tell viewers on this socket for as long as the scope lasts; at the end its file is gone, if it is still ours.

    Args:
        path: in a folder that exists.
        tell: gives the figures of the moment. Never waits.

    Raises:
        SettingsError: something else is there, there is another service's socket, or the system refuses it.
    """
    listener, ours = _listen(path)
    try:
        async with trio.open_nursery() as nursery:
            # The nursery closes it; ours stays open until the file is gone, or another might take it for a dead one's.
            accepting = trio.SocketListener(trio.socket.from_stdlib_socket(listener.dup()))
            await nursery.start(_Window(tell).serve, accepting)
            yield
            nursery.cancel_scope.cancel()
    finally:
        if _identify(path) == ours:
            _remove(path)
        listener.close()


def _clear_dead(folder: Path) -> None:
    """Remove what killed services left: with a port of its own each time, nobody wants the name again."""
    for path in folder.glob(f"*{SUFFIX}"):
        if path.is_socket() and not answers(path):
            _remove(path)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


async def run_control(
    setting: str, tell: Tell, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Open the window until cancelled where the setting is a path; `auto` is the affair of the command that serves.

    Raises:
        SettingsError: see `open_control`.
    """
    if setting in NO_PATH:
        task_status.started()
        return
    async with open_control(Path(setting), tell):
        task_status.started()
        await trio.sleep_forever()


async def run_found_control(
    port: int,
    tell: Tell,
    environment: Mapping[str, str],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Open the window until cancelled where this user's services have theirs; without a place for it, there is none."""
    folder = find_folder(environment)
    try:
        prepare_folder(folder)
        _clear_dead(folder)
        async with open_control(folder / f"{port}{SUFFIX}", tell):
            task_status.started()
            await trio.sleep_forever()
    except SettingsError as error:
        _log.warning("no_control_socket", reason=error.reason)
        task_status.started()


def _listen(path: Path) -> tuple[socket.socket, tuple[int, int] | None]:
    """A listener and its file, which has its name when it answers, or it would seem dead."""
    try:
        if path.is_symlink() or (path.exists() and not path.is_socket()):
            raise SettingsError("control", f"{path} is there, and is no socket")
        if path.exists():
            if answers(path):
                raise SettingsError("control", f"{path} is another service's socket")
            path.unlink()
        # Until it has its mode it is where nobody else comes; a umask would be that of all threads.
        with tempfile.TemporaryDirectory(prefix=".", dir=path.parent, ignore_cleanup_errors=True) as private:
            own = Path(private) / path.name
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                listener.bind(str(own))
                own.chmod(0o600)
                listener.listen(VIEWERS)
                listener.setblocking(False)
                ours = _identify(own)
                own.rename(path)
            except BaseException:
                listener.close()
                raise
    except OSError as error:
        raise SettingsError("control", f"cannot listen on {path}: {error.strerror or error}") from error
    return listener, ours


def _identify(path: Path) -> tuple[int, int] | None:
    """Which file it is; None where there is none."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class _Window:
    """The viewers of one service. What is told unasked is made once a second for all of them."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._viewers = 0
        self._line = b""
        self._made_at: float | None = None

    async def serve(self, listener: trio.SocketListener, *, task_status: trio.TaskStatus[Any]) -> None:
        await trio.serve_listeners(self._welcome, [listener], task_status=task_status)

    async def _welcome(self, stream: trio.SocketStream) -> None:
        if self._viewers >= VIEWERS:
            with contextlib.suppress(trio.BrokenResourceError), trio.move_on_after(SEND_S):
                await stream.send_all(b'{"error":"as many look on already as may"}\n')
            await trio.aclose_forcefully(stream)
            return
        self._viewers += 1
        viewer = _Viewer(stream)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._push, viewer)
                await self._answer(viewer)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            _log.debug("viewer_gone")
        except* Exception:  # noqa: BLE001 - one viewer's trouble ends that viewer
            _log.exception("viewer_failed")
        finally:
            self._viewers -= 1
            await trio.aclose_forcefully(stream)

    async def _push(self, viewer: "_Viewer") -> None:
        while not viewer.asked.is_set():
            await viewer.say(self._shared())
            with trio.move_on_after(EVERY_S):
                await viewer.asked.wait()

    async def _answer(self, viewer: "_Viewer") -> None:
        rest = b""
        while received := await viewer.stream.receive_some(REQUEST_BYTES):
            *requests, rest = (rest + received).split(b"\n")
            if len(rest) > REQUEST_BYTES:
                return
            for request in requests:
                viewer.asked.set()
                await viewer.say(_encode(self._tell(True)) if request.strip() == b"tree" else self._shared())

    def _shared(self) -> bytes:
        now = trio.current_time()
        if self._made_at is None or now - self._made_at > FRESH_S:
            self._line, self._made_at = _encode(self._tell(False)), now
        return self._line


class _Viewer:
    """One connection; whole lines, one at a time."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.asked = trio.Event()
        self._turn = trio.Lock()

    async def say(self, line: bytes) -> None:
        with trio.fail_after(SEND_S):
            async with self._turn:
                await self.stream.send_all(line)


def _encode(told: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode(told) + b"\n"
