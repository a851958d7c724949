"""Putting our connections under whatever host runs us, or saying what happens instead.

All that knows a host's inside (worker.py and what it stands on) is imported here and not before: a host that is not
there, or whose modules have moved, costs the direct way and nothing else. An application then finds no connection in
its scope's `state` and writes through ASGI.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import structlog

from trio_swarm.edge.readability import Readability
from trio_swarm.settings import Settings

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
        from trio_swarm.edge import worker  # noqa: PLC0415 - see the module
    except (ImportError, AttributeError, TypeError) as error:  # what a name that is gone, or has changed, raises
        log_fallback(f"Hypercorn is not here as it is known: {error}")
        yield False
        return
    connection_class = worker.make_connection_class(settings, on_context=on_context, readability=readability)
    with worker.install(connection_class) as installed:
        if installed and on_statistics is not None:
            on_statistics(connection_class.statistics)
        yield installed


def log_fallback(reason: str) -> None:
    """Say that the host's own connections serve, why, and what that costs."""
    _log.warning(
        "host_connections_kept",
        falls_back_to="the host's own connections and ASGI send",
        cost="a delivery costs more, stalled clients go later, the shutdown is told to clients late",
        reason=reason,
    )
