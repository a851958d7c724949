"""What libraries say through the standard library's `logging`, as lines of the log.

Where nobody has set `logging` up, Python prints warnings and worse straight to standard error, tracebacks unbounded. On
a pipe that nobody reads that blocks the thread that logs, and Trio logs from its accept loop when descriptors run out.
So a handler hands them to structlog, under the same bounds as all other lines; Python's own `warnings` too. A program
that has given the root logger a handler has said where its lines go, and is left alone.
"""

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator

import structlog

_log = structlog.get_logger()


class _Handler(logging.Handler):
    """Hands records to structlog. Whatever a record holds, nothing is raised into the library that logs."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._within = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record, unless it comes from logging one: a value may log when it is shown."""
        if getattr(self._within, "emit", False):
            return
        self._within.emit = True
        try:
            with contextlib.suppress(Exception):
                _log.warning("library_logged", logger=str(record.name), text=_text(record), exc_info=record.exc_info)
        finally:
            self._within.emit = False


def _text(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # noqa: BLE001 - arguments that do not fit the text; the text alone is better than nothing
        return str(record.msg)


@contextlib.contextmanager
def libraries_heard() -> Iterator[None]:
    """Have what libraries log go to structlog while the context lasts."""
    root = logging.getLogger()
    if root.handlers:
        yield
        return
    handler = _Handler()
    root.addHandler(handler)
    shown_by = warnings.showwarning
    logging.captureWarnings(True)
    captured = warnings.showwarning is not shown_by  # not when somebody else had them captured before
    try:
        yield
    finally:
        if captured:
            logging.captureWarnings(False)
        root.removeHandler(handler)
