"""The application for any ASGI host that runs on Trio.

`create_app(objects=[Game])` gives it; `trio_swarm.asgi:app` is one made from the file that `TRIO_SWARM_CONFIG` names
and from the environment: `hypercorn -k trio trio_swarm.asgi:app`.

The swarm lives in the host's lifespan: in the application's own, or, where it is mounted in another application, in
that one's, which then opens `App.lifespan()`. At its start our connection class is put in place of Hypercorn's, which
looks it up afterwards; on another host, or another Hypercorn, the portable transport serves and the log says so.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from importlib.metadata import version
from typing import Any

import structlog
import trio
from starlette.routing import BaseRoute

from trio_swarm.edge.answers import Trouble, send_trouble
from trio_swarm.edge.app import Edge
from trio_swarm.edge.hosting import hardened_connections
from trio_swarm.edge.telling import Telling
from trio_swarm.errors import HostError
from trio_swarm.health.control import run_control
from trio_swarm.health.logs import Log, log_of_a_guest
from trio_swarm.objects.durable import DurableObject
from trio_swarm.runtime import Swarm, leaf, open_swarm
from trio_swarm.settings import Settings
from trio_swarm.settings_loading import load

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
        self._has_run = False
        self._told = False  # in the log, that nobody opens the lifespan
        self.swarm: Swarm | None = None
        self.log: Log | None = None  # set by whoever has set up the log already

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's scope, or the lifespan."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif self._edge is not None:
            await self._edge(scope, receive, send)
        else:
            await self._refuse(scope, receive, send)

    @asynccontextmanager
    async def lifespan(self, _host: object = None) -> AsyncIterator[None]:
        """Run the swarm for as long as the scope lasts: for a host application that this one is mounted in.

        `Starlette(routes=[Mount("/live", live)], lifespan=live.lifespan)`; elsewhere `async with live.lifespan():` in
        the host's own. Leaving the scope ends every stream in its protocol's words.

        Raises:
            HostError: this is no Trio program, or the scope is open already.
            SettingsError: the settings do not add up.

        What the body raises comes out as it is.
        """
        if not trio.lowlevel.in_trio_run():
            raise HostError("trio_swarm runs on Trio: start the host with -k trio")
        if self._edge is not None:
            raise HostError("the lifespan of this application is open already; hand it to one host")
        settings = self._settings or load(os.environ.get("TRIO_SWARM_CONFIG"), os.environ)
        guest = log_of_a_guest(settings) if self.log is None else nullcontext(self.log)
        with guest as log:
            async with self._running(settings, log):
                yield

    @asynccontextmanager
    async def _running(self, settings: Settings, log: Log | None) -> AsyncIterator[None]:
        raised: BaseException | None = None
        async with open_swarm(self._objects, settings=settings) as swarm:
            async with trio.open_nursery() as nursery:
                edge = Edge(swarm.directory, settings, self._pages)
                swarm.clients = edge.tree
                telling = Telling(edge, swarm.sources, settings, log)
                nursery.start_soon(telling.run)
                await nursery.start(edge.run)
                await nursery.start(run_control, settings.control, swarm.tell)
                with hardened_connections(settings, edge.on_context, edge.readability, telling.on_connections):
                    self._edge, self.swarm, self._has_run = edge, swarm, True
                    _log.info("service_started", **in_short(settings, swarm.directory.kinds))
                    try:
                        yield
                        await edge.drain()
                    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - raised again below, bare
                        raised = error
                    finally:
                        self._edge = self.swarm = None
                        nursery.cancel_scope.cancel()
            if raised is not None:
                raise raised

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        message = await receive()
        if message["type"] != "lifespan.startup":
            raise HostError(f"the host began its lifespan with {message['type']}")
        started = False
        try:
            async with self.lifespan():
                await send({"type": "lifespan.startup.complete"})
                started = True
                await receive()  # lifespan.shutdown
        except Exception as error:
            if started:
                _log.critical("service_failed", exc_info=error)
                raise
            await _refuse_to_start(leaf(error), send)
        else:
            await send({"type": "lifespan.shutdown.complete"})

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer where no swarm runs: it has ended, or a host application never opened its lifespan."""
        if not self._has_run and not self._told:
            self._told = True
            _log.error("lifespan_not_opened", hint="mounted in another application: give it `lifespan=app.lifespan`")
        if scope["type"] == "http":
            reason = "the service is not running now"
            await send_trouble(send, Trouble(503, "not_running", reason, ((b"retry-after", b"1"),)))
        else:
            await receive()  # websocket.connect
            await send({"type": "websocket.close", "code": 1013})


def in_short(settings: Settings, kinds: Iterable[str]) -> dict[str, Any]:
    """What is served, and how, in the fields of one line of the log. Feeds by name: a URL may hold a secret."""
    return {
        "version": version("trio-swarm"),
        "kinds": sorted(kinds),
        "feeds": [feed.name for feed in settings.feed],
        "store": settings.store.partition(":")[0],
        "connections": settings.limits.connections,
        "access_log": settings.access_log,
        "metrics": settings.metrics,
    }


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
