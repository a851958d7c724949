"""What `serve` and `demo` share: the settings of the command line, and a service that runs until a signal ends it."""

import signal
from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from functools import partial
from typing import Any

import attrs
import structlog
import trio
from hypercorn.utils import LifespanFailureError
from starlette.routing import BaseRoute

from trio_swarm.asgi import create_app
from trio_swarm.cli.listening import ANOTHER_BIND, check_bind
from trio_swarm.cli.log import configure_log
from trio_swarm.edge.worker import serve
from trio_swarm.errors import SettingsError, SwarmError
from trio_swarm.objects.durable import DurableObject
from trio_swarm.settings import Settings
from trio_swarm.upstream.protocols import make_protocol
from trio_swarm.upstream.websocket import parse_url


def check(settings: Settings) -> None:
    """Refuse what would only fail later, and a service that is open to all without having been told to be.

    Raises:
        SettingsError: it names the place.
    """
    check_bind(settings.bind, is_open=settings.open)
    for feed in settings.feed:
        make_protocol(feed)
        parse_url(feed.url)


async def run_service(
    settings: Settings,
    *,
    objects: Sequence[type[DurableObject]] = (),
    pages: Sequence[BaseRoute] = (),
    on_ready: Callable[[list[str]], None],
) -> None:
    """Serve until SIGINT or SIGTERM; a second one does not wait for the goodbyes.

    Args:
        settings: checked ones.
        objects: classes to serve.
        pages: routes beside `/v1`.
        on_ready: is given the URLs when they can be used.
    """
    configure_log(_unless_said)
    app = create_app(objects, settings=settings, pages=pages)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            ending = trio.Event()
            nursery.start_soon(_listen, signals, ending, nursery.cancel_scope)
            urls = await nursery.start(partial(_serve, app, settings, ending, nursery.cancel_scope))
            if app.swarm is not None:  # else it did not start, and its error is on the way here
                on_ready(urls)


async def _serve(
    app: Any,
    settings: Settings,
    ending: trio.Event,
    scope: trio.CancelScope,
    *,
    task_status: trio.TaskStatus[list[str]],
) -> None:
    try:
        try:
            await serve(app, settings, shutdown_trigger=ending.wait, task_status=task_status)
        except SettingsError as error:
            if not isinstance(error.__cause__, OSError):
                raise
            raise SettingsError(error.where, f"{error.reason}; {ANOTHER_BIND}") from error
    except* LifespanFailureError as failures:
        raise _told_by_lifespan(failures) from None
    scope.cancel()


def _told_by_lifespan(failures: BaseExceptionGroup[LifespanFailureError]) -> BaseException:
    """The error for which the application did not start: it stands behind what Hypercorn makes of it."""
    failure: BaseException = failures
    while isinstance(failure, BaseExceptionGroup):
        failure = failure.exceptions[0]
    return failure.__context__ if isinstance(failure.__context__, SwarmError) else failure


def _unless_said(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """What ends the command is its one sentence, and no line in the log beside it."""
    if event["event"] == "start_failed":
        raise structlog.DropEvent
    return event


async def _listen(signals: AsyncIterator[int], ending: trio.Event, scope: trio.CancelScope) -> None:
    async for _ in signals:
        if ending.is_set():
            scope.cancel()
        ending.set()


def with_options(settings: Settings, **options: Any) -> Settings:
    """The settings with what the command line says; an option not given (None) leaves them alone."""
    return attrs.evolve(settings, **{name: value for name, value in options.items() if value is not None})
