"""Putting our connections under whatever host runs us, or saying what happens instead.

All that knows a host's inside (worker.py and what it stands on) is imported here and not before: a host that is not
there, or whose modules have moved, costs the direct way and nothing else. An application then finds no connection in
its scope's `state` and writes through ASGI.
"""

import contextlib
import importlib.metadata
from collections.abc import Callable, Iterator
from typing import Any, Final

import structlog

from trio_swarm.edge.readability import Readability
from trio_swarm.errors import HostError
from trio_swarm.settings import Settings

RELEASE: Final = "0.18"  # of Hypercorn, whose inside worker.py and its like know; pyproject.toml pins the same
ENDED_BY_ANYBODY: Final = "any client can end the service (by one byte behind a WebSocket handshake)"

_log = structlog.get_logger("trio_swarm.edge")


@contextlib.contextmanager
def hardened_connections(
    settings: Settings,
    on_context: Callable[[Any], None],
    readability: Readability,
    on_statistics: Callable[[Callable[[], Any]], None] | None = None,
) -> Iterator[bool]:
    """Have a host that begins to listen meanwhile use our connections; gives whether it will.

    Args:
        settings: the limits of a connection.
        on_context: see `worker.make_connection_class`.
        readability: see there.
        on_statistics: told how the connections' statistics are asked, where the host will use them.
    """
    try:
        worker = _import_worker()
    except HostError as error:
        log_fallback(str(error))
        yield False
        return
    connection_class = worker.make_connection_class(settings, on_context=on_context, readability=readability)
    with worker.install(connection_class) as installed:
        if installed and on_statistics is not None:
            on_statistics(connection_class.statistics)
        yield installed


def require_known_host() -> str:
    """See that a service of our own would have our connections; gives what they stand on.

    Raises:
        HostError: it would not; the sentence says why, what that would cost, and what to install.
    """
    try:
        _import_worker().check_host()
    except HostError as error:
        raise HostError(
            f"{error}: {ENDED_BY_ANYBODY} where Hypercorn's own connections serve; "
            f"pip install 'hypercorn=={RELEASE}.*' has ours serve"
        ) from error
    return f"Hypercorn {importlib.metadata.version('hypercorn')}, with our connections"


def _import_worker() -> Any:
    try:
        from trio_swarm.edge import worker  # noqa: PLC0415 - see the module
    except (ImportError, AttributeError, TypeError) as error:  # what a name that is gone, or has changed, raises
        raise HostError(f"Hypercorn is not here as it is known: {error}") from error
    return worker


def log_fallback(reason: str) -> None:
    """Say that the host's own connections serve, why, and what that costs."""
    _log.warning(
        "host_connections_kept",
        falls_back_to="the host's own connections and ASGI send",
        cost=f"{ENDED_BY_ANYBODY}; a delivery costs more, stalled clients go later, clients hear of the shutdown late",
        reason=reason,
    )
