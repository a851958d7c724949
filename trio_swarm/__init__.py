"""trio_swarm: a few live upstream feeds in, very many client streams out, nothing leaked.

    upstream/  ->  objects/  ->  journal/  ->  fanout/  ->  edge/  ->  clients
    bytes come     an object     a change      one change,   bytes
    in             decides       gets an id    many readers  leave

Write a `DurableObject`; run it with `open_swarm` in a Trio program, with `create_app` under an ASGI host, or with
`trio-swarm serve`. Errors are in `trio_swarm.errors`, settings in `trio_swarm.settings`, what tests need in
`trio_swarm.testing`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trio_swarm.asgi import create_app
    from trio_swarm.journal.event import Event, EventId
    from trio_swarm.objects.durable import DurableObject, Feed, exposed
    from trio_swarm.runtime import Swarm, open_swarm
    from trio_swarm.settings import Settings

__all__ = ["DurableObject", "Event", "EventId", "Feed", "Settings", "Swarm", "create_app", "exposed", "open_swarm"]

# Imported when first asked for: `trio-swarm --help` need not wait for an HTTP server to be imported.
_HOMES = {
    "DurableObject": "trio_swarm.objects.durable",
    "Event": "trio_swarm.journal.event",
    "EventId": "trio_swarm.journal.event",
    "Feed": "trio_swarm.objects.durable",
    "Settings": "trio_swarm.settings",
    "Swarm": "trio_swarm.runtime",
    "create_app": "trio_swarm.asgi",
    "exposed": "trio_swarm.objects.durable",
    "open_swarm": "trio_swarm.runtime",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value
