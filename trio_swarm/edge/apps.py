"""How the protocol starts the application: in the connection's nursery, without the cycles that Hypercorn leaves."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import trio
from hypercorn.config import Config
from hypercorn.trio.task_group import TaskGroup

if TYPE_CHECKING:
    from trio_swarm.edge.protocol import Owner


class Apps(TaskGroup):
    """Hypercorn's task group over the connection's own nursery; news of the end goes through `Owner.tell`."""

    def __init__(self, connection: "Owner", nursery: trio.Nursery) -> None:
        self._connection = connection
        self._nursery = nursery
        self._nursery_manager = None

    async def spawn_app(self, app: Any, config: Config, scope: Any, send: Any) -> Callable[[Any], Awaitable[None]]:
        """Start the application; what comes back puts messages into its inbox."""
        put = await super().spawn_app(_ungrouped(app), config, scope, send)
        self._connection.inbox = put.__self__  # type: ignore[attr-defined]  # the channel that `put` is the `send` of
        return self._connection.tell


def _ungrouped(app: Any) -> Any:
    """Let out one cancellation, not a group: Hypercorn would keep that in a cycle, and the connection in it."""

    async def run(*args: Any) -> None:
        try:
            await app(*args)
        except BaseExceptionGroup as group:
            if group.split(trio.Cancelled)[1] is not None:
                raise
        await trio.lowlevel.checkpoint_if_cancelled()

    return run


def asking(app: Any, ask: Callable[[], Awaitable[None]]) -> Any:
    """The application of a client that waits to be asked for its body: `ask()` comes before whatever it receives."""

    async def run(scope: Any, receive: Callable[[], Awaitable[Any]], *rest: Any) -> None:
        async def ask_and_receive() -> Any:
            await ask()
            return await receive()

        await app(scope, ask_and_receive, *rest)

    return run
