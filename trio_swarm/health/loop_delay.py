"""How late Trio's loop is: a task that wants to wake every half second, and counts by how much it is not let.

Everything that holds the loop (an author's turn that computes, a pass of the broadcaster, the collector of garbage)
shows here as what every client feels. Half a second apart the looks cost nothing, and find a loop that is held for
long; a single hold of 10 ms is met once in fifty.
"""

from bisect import bisect_left
from typing import Final

import attrs
import trio

EVERY_S: Final = 0.5
BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@attrs.frozen
class LoopStatistics:
    """What was found since the beginning, and Trio's own figures of this moment."""

    looks: int
    delay_s: float  # of all looks
    buckets: tuple[int, ...]  # looks whose delay was at most BUCKETS_S, and above the bucket before; the last: longer
    tasks: int
    threads_calls: int  # from other threads, waiting to be run


class LoopDelay:
    """See the module; `run` must be running."""

    def __init__(self) -> None:
        self._looks = 0
        self._delay_s = 0.0
        self._buckets = [0] * (len(BUCKETS_S) + 1)

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            due = trio.current_time() + EVERY_S
            await trio.sleep_until(due)
            self.note(trio.current_time() - due)

    def note(self, delay_s: float) -> None:
        """Count one look."""
        self._looks += 1
        self._delay_s += delay_s
        self._buckets[bisect_left(BUCKETS_S, delay_s)] += 1

    def statistics(self) -> LoopStatistics:
        """A moment; to be asked on Trio's thread."""
        trio_says = trio.lowlevel.current_statistics()
        return LoopStatistics(
            looks=self._looks,
            delay_s=self._delay_s,
            buckets=tuple(self._buckets),
            tasks=trio_says.tasks_living,
            threads_calls=trio_says.run_sync_soon_queue_size,
        )
