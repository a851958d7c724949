"""Putting the hardened connection into Hypercorn, and running Hypercorn with it.

Stock Hypercorn 0.18 shields its writes, so a client that stops reading holds its task and the shutdown for ever; lets
an exception out of one connection end the worker; parks its reader behind a pipelined request; inflates messages
without a bound; and speaks cleartext HTTP/2 to whoever asks. connection.py and protocol.py replace the classes
concerned; with this file and serving.py they are all that knows Hypercorn's inside. hosting.py imports them where they
are needed and not before, so that a Hypercorn whose modules have moved does not keep an application from serving.

`check_host()` compares the Hypercorn it finds with the one this was written for. Where it differs, `install` says so
in the log and leaves the stock class in place: an application then finds no connection in its scope's `state` and
writes through ASGI.
"""

import contextlib
import functools
import importlib.metadata
import inspect
import socket
import weakref
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final

import structlog
import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config, Sockets
from hypercorn.logging import Logger
from hypercorn.protocol import h11 as host_h11
from hypercorn.protocol import http_stream, ws_stream
from hypercorn.trio import run as host_run
from hypercorn.trio import tcp_server
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.utils import LifespanFailureError
from wsproto.connection import Connection as WSConnection
from wsproto.connection import ConnectionType

from trio_swarm.edge.connection import Connection
from trio_swarm.edge.hosting import RELEASE, log_fallback
from trio_swarm.edge.listeners import open_listeners
from trio_swarm.edge.readability import Readability
from trio_swarm.edge.serving import WorkerStatistics, tighten
from trio_swarm.edge.transport import KEY
from trio_swarm.errors import HostError, SwarmError
from trio_swarm.health.budget import most_connections
from trio_swarm.settings import Settings

__all__ = [
    "KEY",
    "Connection",
    "WorkerStatistics",
    "check_host",
    "install",
    "make_config",
    "make_connection_class",
    "open_listeners",
    "serve",
]

log = structlog.get_logger()

GRACE_SHARE: Final = 0.6  # of the shutdown's time is the connections'; the rest is the lifespan's

_STREAM: Final = "self app config context task_group ssl client server send stream_id"
_SIGNATURES: Final[tuple[tuple[Any, str], ...]] = (
    (tcp_server.TCPServer.__init__, "self app config context state stream"),
    (
        host_h11.H11Protocol.__init__,
        "self app config context task_group connection_state ssl client server send",
    ),
    (http_stream.HTTPStream.__init__, _STREAM),
    (ws_stream.WSStream.__init__, _STREAM),
    (TaskGroup.spawn_app, "self app config scope send"),
    (host_run.worker_serve, "app config sockets shutdown_trigger task_status"),
)
_METHODS: Final[tuple[tuple[Any, str], ...]] = (
    (
        host_h11.H11Protocol,
        "handle stream_send _handle_events _create_stream _send_h11_event _send_error_response _close_stream",
    ),
    (host_h11.H11Protocol, "_maybe_recycle"),
    (host_h11.H11WSConnection, "receive_data next_event send"),
    (ws_stream.WSStream, "handle app_send _handle_events _send_wsproto_event"),
    (ws_stream.WebsocketBuffer, "extend clear to_message"),
    (http_stream.HTTPStream, "handle app_send"),
    (WorkerContext(None), "terminate terminated mark_request"),
    (WSConnection(ConnectionType.SERVER)._proto._frame_decoder, "header buffer"),  # noqa: SLF001 - wsproto's
    (trio.SSLStream, "_retry"),
)


def check_host(version: str | None = None) -> None:
    """Compare Hypercorn's version and shape with what these files were written for.

    Raises:
        HostError: it differs; the sentence names the first difference.
    """
    try:
        version = version or importlib.metadata.version("hypercorn")
    except importlib.metadata.PackageNotFoundError:
        raise HostError(f"Hypercorn does not say which release it is; {RELEASE} alone is known") from None
    if not f"{version}.".startswith(f"{RELEASE}."):
        raise HostError(f"Hypercorn {version} is installed; the connection class knows the inside of {RELEASE} only")
    for function, names in _SIGNATURES:
        found = " ".join(inspect.signature(function).parameters)
        if found != names:
            raise HostError(f"{function.__qualname__} of Hypercorn {version} takes ({found}) and not ({names})")
    for owner, names in _METHODS:
        for name in names.split():
            if not hasattr(owner, name):
                raise HostError(f"Hypercorn {version} has no {owner!r}.{name}")
    if "TCPServer" not in host_run.worker_serve.__code__.co_names:
        raise HostError(f"the worker of Hypercorn {version} no longer looks up TCPServer when it starts to listen")


def make_connection_class(
    settings: Settings,
    *,
    on_context: Callable[[WorkerContext], None] | None = None,
    readability: Readability | None = None,
) -> type[Connection]:
    """Make a connection class with these limits; its statistics are its own.

    `on_context` is called once for each server that uses the class, with Hypercorn's context, when its first client
    connects: the application waits for `context.terminated` to end its streams; Hypercorn tells it nothing in time.
    `readability`, where it runs, wakes those that have something to read.
    """
    numbers: dict[str, Any] = {
        "__slots__": (),
        "__doc__": Connection.__doc__,
        "settings": settings,
        "stall_s": settings.stall.seconds,
        "most": most_connections(settings),
        "refused": 0,
        "aborted": {},
        "hosts": weakref.WeakKeyDictionary(),
        "on_context": on_context,
        "readability": Readability() if readability is None else readability,
    }
    return type("HardenedConnection", (Connection,), numbers)


@contextlib.contextmanager
def install(connection_class: type[tcp_server.TCPServer]) -> Iterator[bool]:
    """Put the class into Hypercorn's worker while the context lasts, for servers that begin to listen meanwhile.

    Gives False, and says why in the log, where Hypercorn is not the one that `check_host` knows.
    """
    try:
        check_host()
    except HostError as error:
        log_fallback(str(error))
        yield False
        return
    names = vars(host_run)
    replaced = names["TCPServer"]
    names["TCPServer"] = connection_class
    try:
        yield True
    finally:
        names["TCPServer"] = replaced


class HostLog(Logger):
    """Hypercorn's log, written by structlog. It has no access log: that would copy the environment for each request."""

    def __init__(self, config: Config) -> None:  # noqa: ARG002 - the parent's would open handlers of its own
        self.access_logger = None
        self.error_logger = None

    async def access(self, request: Any, response: Any, request_time: float) -> None:
        """Write nothing."""

    async def critical(self, message: str, *args: Any, **_: Any) -> None:
        """Log what ends the server."""
        log.critical("host_failed", message=_filled(message, args))

    async def error(self, message: str, *args: Any, **_: Any) -> None:
        """Log what went wrong."""
        log.error("host_error", message=_filled(message, args))

    async def warning(self, message: str, *args: Any, **_: Any) -> None:
        """Log what may go wrong."""
        log.warning("host_warning", message=_filled(message, args))

    async def info(self, message: str, *args: Any, **_: Any) -> None:
        """Log what Hypercorn tells about itself; the command that serves prints its own URL."""
        log.debug("host_said", message=_filled(message, args))

    async def debug(self, message: str, *args: Any, **_: Any) -> None:
        """Log details."""
        log.debug("host_said", message=_filled(message, args))

    async def exception(self, message: str, *args: Any, **_: Any) -> None:
        """Log the exception that is being handled: an application's."""
        log.error("host_exception", message=_filled(message, args), exc_info=True)  # noqa: LOG014 - Hypercorn calls this while it handles one


def _filled(message: str, args: tuple[Any, ...]) -> str:
    return message % args if args else message


def make_config(settings: Settings, *, certfile: str | None = None, keyfile: str | None = None) -> Config:
    """Write Hypercorn's configuration: no access log, no HTTP/2, our limits, a shutdown with time for the lifespan."""
    config = Config()
    config.logger_class = HostLog
    config.certfile = certfile
    config.keyfile = keyfile
    config.ssl_handshake_timeout = settings.liveness.header_s
    config.keep_alive_timeout = settings.liveness.keep_alive_s
    config.graceful_timeout = settings.liveness.shutdown_s * GRACE_SHARE
    config.shutdown_timeout = settings.liveness.shutdown_s
    config.include_server_header = False
    return tighten(config, settings)


async def serve(
    app: Any,
    settings: Settings,
    *,
    connection_class: type[tcp_server.TCPServer] | None = None,
    sockets: Sequence[socket.socket] | None = None,
    certfile: str | None = None,
    keyfile: str | None = None,
    shutdown_trigger: Callable[[], Awaitable[None]] | None = None,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI application until `shutdown_trigger` returns (without one: until cancelled).

    Reports the URLs it listens on. Returns when every connection and the lifespan have ended: connections are cut
    after `GRACE_SHARE` of `settings.liveness.shutdown_s`. Closes the sockets it was given. `connection_class` is put
    in place of Hypercorn's; without one, the application does that at its start (as those of `create_app` do).

    Raises:
        SettingsError: `settings.bind` cannot be listened on.
        ExceptionGroup: the application did not start; in it is the application's own error, where that is one of ours.
    """
    listening = list(sockets or open_listeners(settings.bind, stall_s=settings.stall.seconds))
    secure = certfile is not None
    try:
        with contextlib.nullcontext() if connection_class is None else install(connection_class):
            run = functools.partial(
                host_run.worker_serve,
                ASGIWrapper(app),
                make_config(settings, certfile=certfile, keyfile=keyfile),
                sockets=Sockets(listening if secure else [], [] if secure else listening, []),
                shutdown_trigger=shutdown_trigger,
            )
            async with trio.open_nursery() as nursery:
                task_status.started(await nursery.start(run))
    except* LifespanFailureError as failures:
        told = _told_by_lifespan(failures)
        raise told from told.__cause__  # whose kind says what to do about it
    finally:
        for sock in listening:
            sock.close()


def _told_by_lifespan(failures: BaseExceptionGroup[LifespanFailureError]) -> BaseException:
    """The error for which the application did not start: it stands behind what Hypercorn makes of it."""
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure.__context__ if isinstance(failure.__context__, SwarmError) else failure
