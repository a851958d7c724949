"""`assert_no_leaks()`: what a piece of code left behind, by name.

    with assert_no_leaks() as check:                    # around the swarm, not inside it: its objects outlive a call
        async with open_swarm(objects=[Game]) as swarm:
            check.watch(swarm)
            ...

A census before and one after are compared: Trio's tasks (the whole tree, from the root task), its next deadline, open
file descriptors (where the system lists them), threads, and what the swarms, directories and streams given to it
hold: live objects, calls that wait, publications under way, live streams, subscriptions. What is new is a leak, and is
named.
"""

import gc
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

import attrs
import trio

from trio_swarm.fanout.streams import Streams
from trio_swarm.objects.directory import Directory


class Running(Protocol):
    """What a `Swarm` is, as far as is looked at here."""

    @property
    def directory(self) -> Directory:
        """Its objects, and their streams."""


Names = Callable[[], Iterable[str]]
Watched = Running | Directory | Streams | Names

_DESCRIPTORS: Final = Path("/proc/self/fd")
_TRIO_THREADS: Final = "Trio thread"  # trio keeps idle worker threads for the next use


class LeakError(AssertionError):
    """Something is left. `leaks` names it, a line each."""

    def __init__(self, leaks: tuple[str, ...]) -> None:
        super().__init__(leaks)
        self.leaks = leaks

    def __str__(self) -> str:
        return "left behind:\n" + "\n".join(f"  - {leak}" for leak in self.leaks)


@attrs.frozen
class Census:
    """What there is at one moment."""

    tasks: dict[int, tuple[trio.lowlevel.Task, str]]  # the task is kept, so that its number is not given again
    deadline: float | None
    descriptors: frozenset[tuple[int, str]]
    threads: frozenset[tuple[int | None, str]]
    held: Counter[str]


class LeakCheck:
    """What `assert_no_leaks` gives: more can be watched on the way, and `leaks()` looks at any time."""

    def __init__(self, watched: Iterable[Watched]) -> None:
        self._watched = list(watched)
        self._before = self._census()

    def watch(self, *watched: Watched) -> None:
        """Watch these too, from nothing: whatever they hold at the end is a leak."""
        self._watched.extend(watched)

    def leaks(self) -> tuple[str, ...]:
        """What is new since the beginning."""
        found = self._compare()
        if found:
            gc.collect()  # what nobody refers to any more closes its descriptors
            found = self._compare()
        return found

    def _compare(self) -> tuple[str, ...]:
        before, now = self._before, self._census()
        found = [f"task {name}" for number, (_, name) in now.tasks.items() if number not in before.tasks]
        if now.deadline is not None and (before.deadline is None or now.deadline < before.deadline):
            found.append(f"a deadline that ends at {now.deadline:.3f} on Trio's clock")
        found += [f"descriptor {number} ({target})" for number, target in sorted(now.descriptors - before.descriptors)]
        found += [f"thread {name}" for _, name in sorted(now.threads - before.threads, key=lambda entry: entry[1])]
        found += [f"{name} ({count})" if count > 1 else name for name, count in (now.held - before.held).items()]
        return tuple(found)

    def _census(self) -> Census:
        tasks: dict[int, tuple[trio.lowlevel.Task, str]] = {}
        deadline: float | None = None
        if trio.lowlevel.in_trio_run():
            tasks = {id(task): (task, name) for task, name in _tasks()}
            deadline = _next_deadline()
        return Census(tasks, deadline, _descriptors(), _threads(), Counter(_held(self._watched)))


@contextmanager
def assert_no_leaks(*watched: Watched) -> Iterator[LeakCheck]:
    """Fail if the body leaves something behind.

    Where the body raises, its exception passes, with a note of what was left.

    Args:
        watched: swarms, directories, streams, or functions that name what they hold; `watch` of what this gives takes
            more.

    Raises:
        LeakError: with the name of each thing left.
    """
    check = LeakCheck(watched)
    try:
        yield check
    except BaseException as error:
        leaks = check.leaks()
        if leaks:
            error.add_note(str(LeakError(leaks)))
        raise
    leaks = check.leaks()
    if leaks:
        raise LeakError(leaks)


def _tasks() -> Iterator[tuple[trio.lowlevel.Task, str]]:
    root = trio.lowlevel.current_root_task()
    waiting = [] if root is None else [(root, root.name)]
    while waiting:
        task, name = waiting.pop()
        yield task, name
        for nursery in task.child_nurseries:
            waiting += [(child, f"{child.name}, child of {task.name}") for child in nursery.child_tasks]


def _next_deadline() -> float | None:
    seconds = trio.lowlevel.current_statistics().seconds_to_next_deadline
    # Rounded, since what is told is relative to a clock that has moved on a little.
    return None if seconds > sys.maxsize else round(trio.current_time() + seconds, 2)


def _descriptors() -> frozenset[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for entry in _DESCRIPTORS.iterdir() if _DESCRIPTORS.is_dir() else ():
        try:
            found.append((int(entry.name), str(entry.readlink())))
        except FileNotFoundError:
            continue  # the one that listed them
    return frozenset(found)


def _threads() -> frozenset[tuple[int | None, str]]:
    return frozenset((t.ident, t.name) for t in threading.enumerate() if not t.name.startswith(_TRIO_THREADS))


def _held(watched: Iterable[Watched]) -> Iterator[str]:
    for one in watched:
        if isinstance(one, Directory):
            yield from _held_by_directory(one)
        elif isinstance(one, Streams):
            yield from _held_by_streams(one)
        elif callable(one):
            yield from one()
        else:
            yield from _held_by_directory(one.directory)


def _held_by_directory(directory: Directory) -> Iterator[str]:
    for host in directory.hosts():
        yield f"object {host.name} ({host.state})"
        statistics = host.statistics()
        for kind, name, _ in statistics.tasks:
            yield f"{kind} {name} of {host.name}"
        lanes = statistics.mailbox
        for lane, count in (("control", lanes.control), ("call", lanes.call), ("feed", lanes.feed)):
            for _ in range(count):
                yield f"an item in the {lane} lane of {host.name}"
    for kind, id_, message in directory.publishing:
        yield f"publication {message!r} to {kind}/{id_} under way"
    yield from _held_by_streams(directory.streams)


def _held_by_streams(streams: Streams) -> Iterator[str]:
    statistics = streams.statistics()
    for stream in statistics.streams:
        yield f"stream {stream.name}"
        for _ in range(stream.subscribers):
            yield f"a subscription to {stream.name}"
