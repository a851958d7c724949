"""What a stream of many connections asks of the one way in which each of them is read."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from trio_swarm.client.happenings import Happening

Tell = Callable[[Happening], Awaitable[None]]


class Way(Protocol):
    """How one connection is made and read. It remembers where the next one goes on."""

    @property
    def retry_s(self) -> float | None:
        """What the service asked to be waited before every return; None when it did not."""

    async def read(self, tell: Tell) -> None:
        """Connect, tell what comes, and return when the service says that there is no more.

        Raises:
            ServiceUnavailable: the connection ended, or did not come up.
            ServiceRefused: coming back changes nothing.
        """
