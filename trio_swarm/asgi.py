"""The application for any ASGI host that runs on Trio.

`create_app(objects=[Game])` gives it; `trio_swarm.asgi:app` is one made from the file that `TRIO_SWARM_CONFIG` names
and from the environment: `hypercorn -k trio trio_swarm.asgi:app`.

The swarm lives in the host's lifespan. At its start our connection class is put in place of Hypercorn's, which looks
it up afterwards; on another host, or another Hypercorn, the portable transport serves and the log says so.
"""

import os
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from contextlib import ExitStack
from typing import Any

import structlog
import trio
from starlette.routing import BaseRoute

from trio_swarm.edge import worker
from trio_swarm.edge.app import Edge
from trio_swarm.errors import HostError, SwarmError
from trio_swarm.objects.durable import DurableObject
from trio_swarm.runtime import Swarm, open_swarm
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
            settings = self._settings or load(os.environ.get("TRIO_SWARM_CONFIG"), os.environ)
            async with open_swarm(self._objects, settings=settings) as swarm, trio.open_nursery() as nursery:
                edge = Edge(swarm.directory, settings, self._pages)
                await nursery.start(edge.run)
                with ExitStack() as stack:
                    self._put_connection_class_in_place(stack, settings, edge)
                    self._edge, self.swarm = edge, swarm
                    try:
                        await send({"type": "lifespan.startup.complete"})
                        started = True
                        await receive()  # lifespan.shutdown
                        await edge.drain()
                    finally:
                        self._edge = self.swarm = None
                        nursery.cancel_scope.cancel()
        except SwarmError as error:
            if started:
                raise
            _log.error("start_failed", error=str(error))
            await send({"type": "lifespan.startup.failed", "message": str(error)})
        else:
            await send({"type": "lifespan.shutdown.complete"})

    @staticmethod
    def _put_connection_class_in_place(stack: ExitStack, settings: Settings, edge: Edge) -> None:
        try:
            stack.enter_context(worker.install(worker.make_connection_class(settings, on_context=edge.on_context)))
        except HostError as error:
            _log.warning("portable_transport", reason=str(error))


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
