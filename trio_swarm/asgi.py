"""The application for any ASGI host that runs on Trio.

`create_app(objects=[Game])` gives it; `trio_swarm.asgi:app` is one made from the file that `TRIO_SWARM_CONFIG` names
and from the environment: `hypercorn -k trio trio_swarm.asgi:app`.

The swarm lives in the host's lifespan. At its start our connection class is put in place of Hypercorn's, which looks
it up afterwards; on another host, or another Hypercorn, the portable transport serves and the log says so.
"""

import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any

import structlog
import trio
from starlette.routing import BaseRoute

from trio_swarm.edge import worker
from trio_swarm.edge.app import Edge
from trio_swarm.errors import HostError
from trio_swarm.objects.durable import DurableObject
from trio_swarm.runtime import Swarm, leaf, open_swarm
from trio_swarm.settings import Settings, load

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]

_log = structlog.get_logger("trio_swarm.asgi")


class App:
    """An ASGI application; see the module. `swarm` is there while the lifespan lasts."""

    def __init__(
        self, objects: Iterable[type[DurableObject]], settings: Settings | None, pages: Sequence[BaseRoute]
    ) -> None:
        self._objects = tuple(objects)
        self._settings = settings
        self._pages = tuple(pages)
        self._edge: Edge | None = None
        self.swarm: Swarm | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif self._edge is not None:
            await self._edge(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 503, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "websocket.close", "code": 1013})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        message = await receive()
        if message["type"] != "lifespan.startup":
            raise HostError(f"the host began its lifespan with {message['type']}")
        started = False
        try:
            if not trio.lowlevel.in_trio_run():
                raise HostError("trio_swarm runs on Trio: start the host with -k trio")  # noqa: TRY301 - as others
            settings = self._settings or load(os.environ.get("TRIO_SWARM_CONFIG"), os.environ)
            async with open_swarm(self._objects, settings=settings) as swarm, trio.open_nursery() as nursery:
                edge = Edge(swarm.directory, settings, self._pages)
                swarm.clients = edge.tree
                await nursery.start(edge.run)
                with worker.install(worker.make_connection_class(settings, on_context=edge.on_context)):
                    self._edge, self.swarm = edge, swarm
                    try:
                        await send({"type": "lifespan.startup.complete"})
                        started = True
                        await receive()  # lifespan.shutdown
                        await edge.drain()
                    finally:
                        self._edge = self.swarm = None
                        nursery.cancel_scope.cancel()
        except Exception as error:
            if started:
                raise
            await _refuse_to_start(leaf(error), send)
        else:
            await send({"type": "lifespan.shutdown.complete"})


async def _refuse_to_start(reason: BaseException, send: Send) -> None:
    """Tell the host why; what it makes of that carries the reason as its context."""
    _log.error("start_failed", error=str(reason))
    try:
        raise reason  # noqa: TRY301 - to have a context, it has to be raised here
    except Exception:  # noqa: BLE001 - see above
        await send({"type": "lifespan.startup.failed", "message": str(reason)})


def create_app(
    objects: Iterable[type[DurableObject]] = (),
    *,
    settings: Settings | None = None,
    pages: Sequence[BaseRoute] = (),
) -> App:
    """The ASGI application that serves these classes, besides `channel` and the settings' feeds.

    Args:
        objects: durable object classes.
        settings: read from `TRIO_SWARM_CONFIG` and the environment at the start where None.
        pages: further Starlette routes, such as a page at `/`.
    """
    return App(objects, settings, pages)


app = create_app()
