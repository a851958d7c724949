"""Half a close: a client that has ended its half of the connection behind a whole request, and waits for the answer.

It may also be gone: TCP tells no difference until somebody writes. Shells' pipes (`ncat`, `socat`), some load balancers
and some HTTP clients half-close and read on; browsers, curl and the common proxies towards a service never do, so that
from them it is a client that has left. So both get their due: the answer may begin within `liveness.closing_s`; a
client that is gone resets the connection at its first bytes. Then the application is told that nobody is there, and
an object's work that has not begun is not done for nobody. An answer that has begun is written to its end, as long as
the application lets no more than the stall limit pass between two writes.

A stream and a WebSocket end at once: a browser's tab that closes is half a close to us, and hours may pass before a
stream has anything to write.
"""

import trio

NEVER = trio.CancelScope().deadline


class LastAnswer:
    """See the module. The connection tells what becomes of its writes meanwhile."""

    __slots__ = ("_over", "_scope")

    def __init__(self, seconds: float, *, writing: bool) -> None:
        self._over = trio.Event()
        self._scope = trio.CancelScope(deadline=NEVER if writing else trio.current_time() + seconds)

    async def wait(self) -> None:
        """Wait until the answer is over, or its time is."""
        with self._scope:
            await self._over.wait()

    def writing(self) -> None:
        """Note that a write is under way: it has limits of its own."""
        self._scope.deadline = NEVER

    def written(self, seconds: float) -> None:
        """Note that it is out; the next has this long to begin."""
        self._scope.deadline = trio.current_time() + seconds

    def over(self) -> None:
        """Note that there is nothing to wait for any more."""
        self._over.set()
