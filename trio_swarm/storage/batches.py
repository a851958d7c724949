"""How a store's threads take their work: all that waits, up to a number, so that one way there and back serves many."""

import contextlib
from queue import Empty, SimpleQueue
from typing import TypeVar

T = TypeVar("T")


def take(queue: SimpleQueue[T | None], most: int) -> tuple[list[T], bool]:
    """Wait for work; gives everything that waits, at most so much, and whether there is more to come (None ends it)."""
    batch: list[T] = []
    work = queue.get()
    with contextlib.suppress(Empty):
        while work is not None:
            batch.append(work)
            if len(batch) >= most:
                return batch, True
            work = queue.get_nowait()
        return batch, False
    return batch, True
