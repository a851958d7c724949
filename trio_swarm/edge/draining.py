"""The goodbyes of a shutdown: to each client when it has been given all that was published before.

What a publisher was told is kept would else be lost to the clients that are connected: the broadcaster may be in the
middle of a pass when the end begins, and a store in memory forgets. So the changes under way are waited for, the heads
of the journals are noted, and each client hears goodbye once it is level with them. One that does not keep up hears it
when the time is over.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import trio

from trio_swarm.edge.clients import Client, Clients
from trio_swarm.errors import RequestRefused

LOOK_S: Final = 0.01  # between two looks at those that are behind: the broadcaster brings them up in a few milliseconds
_A_TURN: Final = 256  # clients looked at before others have their turn


class Changes:
    """The requests under way that may publish."""

    def __init__(self) -> None:
        self._count = 0
        self._refused = False
        self._none: trio.Event | None = None

    @contextmanager
    def one(self) -> Iterator[None]:
        """One more, for as long as the block lasts.

        Raises:
            RequestRefused: the end has begun.
        """
        if self._refused:
            raise shutting_down("changes")
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
            if not self._count and self._none is not None:
                self._none.set()

    def refuse(self) -> None:
        """From now on there are no new ones."""
        self._refused = True

    async def wait_none(self) -> None:
        """Wait until none is under way."""
        while self._count:
            if self._none is None or self._none.is_set():
                self._none = trio.Event()
            await self._none.wait()


def shutting_down(what: str) -> RequestRefused:
    """The answer to who comes too late."""
    return RequestRefused(503, "shutting_down", f"the service takes no {what} now", ((b"retry-after", b"1"),))


async def say_goodbyes(
    clients: Clients,
    changes: Changes,
    say: Callable[[Client], Awaitable[None]],
    *,
    patience_s: float,
    nursery: trio.Nursery,
) -> None:
    """Have each client told goodbye, when it is level or `patience_s` are over; `say` runs in the nursery.

    No client may come, and no change begin, while this runs.
    """
    deadline = trio.current_time() + patience_s
    with trio.move_on_at(deadline):
        await changes.wait_none()
    heads: dict[Any, int] = {}
    waiting = list(clients)
    while waiting:
        late = trio.current_time() >= deadline
        behind: list[Client] = []
        for count, client in enumerate(waiting, 1):
            if late or _is_level(client, heads):
                nursery.start_soon(say, client)
            else:
                behind.append(client)
            if count % _A_TURN == 0:
                await trio.lowlevel.checkpoint()
        waiting = [client for client in behind if client in clients]
        if waiting:
            await trio.sleep(LOOK_S)


def _is_level(client: Client, heads: dict[Any, int]) -> bool:
    return all(reader.has_all(heads.setdefault(reader.stream, reader.stream.journal.head)) for reader in client.readers)
