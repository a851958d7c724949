"""A viewer at a service's control socket: finds it, asks, reads lines."""

import json
import os
import socket
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

from trio_swarm.cli.figures import Look
from trio_swarm.edge.listeners import is_loopback
from trio_swarm.errors import ServiceUnavailable, SettingsError
from trio_swarm.health.control import SUFFIX, find_folder, find_sockets
from trio_swarm.settings import MIB

PATIENCE_S: Final = 10.0  # a service that turns its loop answers in milliseconds

_WHERE: Final = "top"
_LAST_PORT: Final = 65_535
_LINE_BYTES: Final = 16 * MIB  # a thousand objects take less than one


def find_socket(asked: str | None) -> Path:
    """The socket of the service that was meant: by its port, its URL, the socket's path, or as the only one there is.

    Raises:
        SettingsError: there is none, there are several, or it cannot be seen from here.
    """
    if asked is None:
        found = find_sockets(os.environ)
        if len(found) == 1:
            return found[0]
        if not found:
            folder = find_folder(os.environ)
            raise SettingsError(
                _WHERE, f"no service of this user is running ({folder} has no socket that answers); say where it is"
            )
        ports = ", ".join(path.name.removesuffix(SUFFIX) for path in found)
        raise SettingsError(_WHERE, f"several services are running; say which: {ports}")
    if asked.isascii() and asked.isdigit():
        if not 1 <= int(asked) <= _LAST_PORT:
            raise SettingsError(_WHERE, f"{asked} is no port: give one from 1 to {_LAST_PORT}")
        return find_folder(os.environ) / f"{asked}{SUFFIX}"
    if "://" in asked:
        return _of_url(asked)
    if ":" in asked and "/" not in asked and not Path(asked).exists():
        return _of_url(f"http://{asked}")
    return Path(asked)


def _of_url(url: str) -> Path:
    try:
        parts = urlsplit(url)
        port = {"http": 80, "https": 443}.get(parts.scheme) if parts.port is None else parts.port
    except ValueError as error:
        raise SettingsError(_WHERE, f"{url!r} is not a URL: {error}") from error
    if not port or parts.hostname is None:
        raise SettingsError(_WHERE, f"{url!r} is not a URL of a service: give http://127.0.0.1:8000")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if not is_loopback(f"{host}:{port}"):
        raise SettingsError(_WHERE, f"{parts.hostname} is another machine: call `top` there")
    return find_folder(os.environ) / f"{port}{SUFFIX}"


class Viewer:
    """Connected; a context manager that leaves.

    Raises:
        SettingsError: nobody answers there, or somebody else does.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(PATIENCE_S)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise SettingsError(_WHERE, f"no service answers on {path}: {error.strerror or error}") from error
        self._lines = self._socket.makefile("rb")
        try:
            self._read()  # the one that comes unasked
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def look(self) -> Look:
        """Ask for the figures of this moment.

        Raises:
            ServiceUnavailable: the service has ended, or does not turn its loop.
            SettingsError: what answers is no service of ours.
        """
        try:
            self._socket.sendall(b"\n")
        except OSError as error:
            raise ServiceUnavailable("the service has ended") from error
        return self._read()

    def _read(self) -> Look:
        try:
            line = self._lines.readline(_LINE_BYTES)
        except TimeoutError as error:
            raise ServiceUnavailable(f"the service has not answered for {PATIENCE_S:g} s") from error
        except OSError as error:
            raise ServiceUnavailable("the service has ended") from error
        if not line.endswith(b"\n") and len(line) < _LINE_BYTES:
            raise ServiceUnavailable("the service has ended")
        try:
            told = json.loads(line)
        except (ValueError, RecursionError) as error:  # ValueError: no JSON, or no UTF-8
            raise self._stranger() from error
        match told:
            case {"error": str(reason)}:
                raise ServiceUnavailable(reason)
            case {"version": str(), "bind": str(), "budget": {"bytes": int()}, "statistics": {}}:
                return Look(told)
        raise self._stranger()

    def _stranger(self) -> SettingsError:
        return SettingsError(_WHERE, f"{self._path} is no service of ours")

    def _close(self) -> None:
        self._lines.close()
        self._socket.close()
