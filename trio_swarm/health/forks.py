"""Things with locks, made anew in a forked child.

A child has the memory of its parent and one thread of it. A lock that another thread held at that moment stays held in
the child for ever, and what another thread should have done is never done. An author's worker process may well log, so
what a line passes through on its way says here how it starts again.
"""

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """Knows what to do in a child."""

    def begin_in_child(self) -> None:
        """Start again: only the calling thread is left, and any lock may be held by one that is not."""


_things: weakref.WeakSet[Forked] = weakref.WeakSet()


def anew_in_children(thing: Forked) -> None:
    """Have a thing told in each forked child, as long as it is used."""
    _things.add(thing)


def _begin_in_child() -> None:
    for thing in list(_things):
        thing.begin_in_child()


os.register_at_fork(after_in_child=_begin_in_child)
