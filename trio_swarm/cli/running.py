"""What `serve` and `demo` share: a service that runs until a signal ends it, or has it begin again."""

import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import structlog
import trio
from starlette.routing import BaseRoute

from trio_swarm.asgi import App, create_app, in_short
from trio_swarm.cli.advice import with_advice
from trio_swarm.cli.log import command_log
from trio_swarm.cli.reloading import Reloading, admit_hangup, can_reload, defer_hangup
from trio_swarm.edge.worker import serve
from trio_swarm.errors import SettingsError
from trio_swarm.health.collector import seldom_collected
from trio_swarm.health.control import run_found_control
from trio_swarm.objects.durable import DurableObject
from trio_swarm.settings import Settings

_log = structlog.get_logger("trio_swarm.cli")


async def run_service(
    settings: Settings,
    *,
    objects: Sequence[type[DurableObject]] = (),
    pages: Sequence[BaseRoute] = (),
    on_ready: Callable[[list[str]], None],
    reloading: Reloading | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; a second one does not wait for the goodbyes.

    Args:
        settings: checked ones.
        objects: classes to serve.
        pages: routes beside `/v1`.
        on_ready: is given the URLs when they can be used.
        reloading: for a command that SIGHUP begins again; `reloading.wanted` says whether it shall.
    """
    with command_log(settings, _unless_said) as log, seldom_collected():
        app = create_app(objects, settings=settings, pages=pages)
        app.log = log

        def ready(urls: list[str]) -> None:
            on_ready(urls)
            if log.form == "json" and app.swarm is not None:  # people have just been told on stdout
                _log.info("service_ready", urls=urls, **in_short(settings, app.swarm.directory.kinds))

        try:
            await _run(app, settings, ready, reloading)
        finally:
            if reloading is not None and not reloading.wanted:
                reloading.let_go()


async def _run(
    app: App, settings: Settings, on_ready: Callable[[list[str]], None], reloading: Reloading | None
) -> None:
    sockets = None if reloading is None else _listen(reloading, settings)
    numbers = [signal.SIGINT, signal.SIGTERM]
    if reloading is not None and can_reload():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # also when the receiver below has gone: it must not end us
        numbers.append(signal.SIGHUP)
    with trio.open_signal_receiver(*numbers) as signals:
        admit_hangup()
        async with trio.open_nursery() as nursery:
            ending = _Ending(nursery, reloading)
            nursery.start_soon(ending.listen, signals)
            urls = await nursery.start(partial(_serve, app, settings, sockets, ending))
            if app.swarm is not None:  # else it did not start, and its error is on the way here
                if settings.control == "auto":
                    await nursery.start(run_found_control, urlsplit(urls[0]).port, app.swarm.tell, os.environ)
                on_ready(urls)
                if reloading is not None:
                    reloading.supervision.ready()
                    nursery.start_soon(reloading.supervision.watch)


def _listen(reloading: Reloading, settings: Settings) -> list[socket.socket]:
    try:
        return reloading.open_listeners(settings)
    except SettingsError as error:
        raise with_advice(error) from error


class _Ending:
    """What signals ask for: the end, at once at the second time, or a new beginning.

    To be asked to end turns a reload that is under way into an end: it says its goodbyes, and does not begin again.
    """

    def __init__(self, nursery: trio.Nursery, reloading: Reloading | None) -> None:
        self._nursery = nursery
        self._reloading = reloading
        self._examining = False  # a check runs
        self._asked = False  # for a reload whose check has not begun
        self._stopping = False
        self.begun = trio.Event()

    async def listen(self, signals: AsyncIterator[int]) -> None:
        """Take signals until cancelled."""
        async for number in signals:
            if number == signal.SIGHUP and self._reloading is not None and not self._reloading.is_hangup():
                self._asked = True
                if not self.begun.is_set() and not self._examining:
                    self._examining = True
                    self._nursery.start_soon(self._examine, self._reloading)
            else:
                self._stop()

    def over(self) -> None:
        """The service has ended."""
        self._nursery.cancel_scope.cancel()

    def _stop(self) -> None:
        if self._stopping:
            self._nursery.cancel_scope.cancel()
            return
        self._stopping = True
        if self._reloading is not None:
            self._reloading.wanted = False
            self._reloading.let_go()
            self._reloading.supervision.stopping()
        self.begun.set()

    async def _examine(self, reloading: Reloading) -> None:
        """Check, and again where that was asked for meanwhile: a check may have looked before the last change."""
        objection: str | None = None
        try:
            while self._asked:
                self._asked = False
                reloading.supervision.reloading()
                objection = await reloading.find_objection()
                if self._stopping:
                    return
                if objection is not None:
                    _log.error("reload_refused", reason=objection)
                    reloading.supervision.ready()
        finally:
            self._examining = False
        if objection is None:
            self._reload(reloading)

    def _reload(self, reloading: Reloading) -> None:
        _log.info("reload_begun")
        defer_hangup()
        reloading.wanted = True
        self.begun.set()


async def _serve(
    app: Any,
    settings: Settings,
    sockets: Sequence[socket.socket] | None,
    ending: _Ending,
    *,
    task_status: trio.TaskStatus[list[str]],
) -> None:
    try:
        await serve(
            app,
            settings,
            sockets=sockets,
            certfile=settings.certfile or None,
            keyfile=settings.keyfile or None,
            shutdown_trigger=ending.begun.wait,
            task_status=task_status,
        )
    except SettingsError as error:
        raise with_advice(error) from error
    ending.over()


def _unless_said(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What ends the command is its one sentence, and no line in the log beside it; of its start it tells when ready."""
    if event["event"] in {"start_failed", "service_started"}:
        raise structlog.DropEvent
    return event
