"""The threads that read from a SQLite store, beside the one that writes.

Each takes several of the questions that wait, answers them on a connection of its own, and tells all answers with one
call into the Trio thread: when a thousand objects start at once, most of the way there and back is shared. An answer
sees every commit whose outcome was told before it was asked for, for in WAL mode a statement sees the last COMMIT.

The queue needs no bound of its own: whoever asks waits for the answer.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, TypeVar

import attrs
import trio

from trio_swarm.errors import StorageError
from trio_swarm.storage.batches import take
from trio_swarm.storage.schema import explain

TOGETHER: Final = 64  # questions that one thread takes at a time: a few milliseconds, so that another helps with more

T = TypeVar("T")


@attrs.define(eq=False)
class _Question:
    """Something to read, and who waits for it: nobody any more once `task` is None."""

    query: Callable[..., Any]
    arguments: tuple[Any, ...]
    task: trio.lowlevel.Task | None
    answer: Any = None
    error: Exception | None = None

    def ask(self, connection: sqlite3.Connection) -> None:
        """Have it answered."""
        try:
            self.answer = self.query(connection, *self.arguments)
        except Exception as error:  # noqa: BLE001 - raised again where it was asked
            self.error = error


class Readers:
    """See the module. Made in the Trio thread.

    Args:
        connections: one for each thread; closed as the threads end.
        path: for what errors say.
    """

    def __init__(self, connections: Sequence[sqlite3.Connection], path: Path) -> None:
        self._path = path
        self._questions: SimpleQueue[_Question | None] = SimpleQueue()
        self._going = len(connections)
        self._closed = False
        self.ended = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        for number, connection in enumerate(connections):
            # Daemons: a disk that never answers must not keep the process.
            threading.Thread(
                target=self._run, args=(connection,), name=f"trio_swarm reader {path.name} {number}", daemon=True
            ).start()

    async def ask(self, query: Callable[..., T], *arguments: Any) -> T:
        """Read something. Cancelled, nobody waits for the answer.

        Args:
            query: called in another thread, with a connection and the arguments.
            *arguments: for it.

        Raises:
            StorageError: the store is closed, or cannot be read.
        """
        if self._closed:
            raise StorageError(f"{self._path} is closed")
        question = _Question(query, arguments, trio.lowlevel.current_task())
        self._questions.put(question)

        def leave(_: Any) -> trio.lowlevel.Abort:
            question.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)
        if isinstance(question.error, sqlite3.Error):
            raise StorageError(explain(question.error, self._path)) from question.error
        if question.error is not None:
            raise question.error
        answer: T = question.answer
        return answer

    def close(self) -> None:
        """Answer what was asked before, and end: then `ended` is set. Idempotent."""
        if not self._closed:
            self._closed = True
            for _ in range(self._going):
                self._questions.put(None)

    # -- in the threads

    def _run(self, connection: sqlite3.Connection) -> None:
        going = True
        with contextlib.suppress(trio.RunFinishedError):  # then nobody waits for an answer
            with contextlib.closing(connection):
                while going:
                    going = self._answer(connection)
            self._token.run_sync_soon(self._has_ended)

    def _answer(self, connection: sqlite3.Connection) -> bool:
        """Answer what waits; keeps none of it, for the next may be long in coming."""
        questions, going = take(self._questions, TOGETHER)
        for question in questions:
            question.ask(connection)
        if questions:
            self._token.run_sync_soon(_tell, questions)
        return going

    def _has_ended(self) -> None:
        self._going -= 1
        if not self._going:
            self.ended.set()


def _tell(questions: Sequence[_Question]) -> None:
    """Wake those who wait. In the Trio thread."""
    for question in questions:
        if question.task is not None:
            trio.lowlevel.reschedule(question.task)
            question.task = None
