"""What libraries say through `logging` is in the log, and nowhere else."""

import contextlib
import io
import json
import logging
import os
import warnings

import pytest

from trio_swarm.health.logs import BURST, logging_to


@contextlib.contextmanager
def logging_not_set_up():
    """As in a program that has not set `logging` up: without the handlers that pytest adds for each test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger(), "handlers", [])
        yield


def fail():
    raise OSError(24, "Too many open files")


def lines_of(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@logging_not_set_up()
def test_a_library_is_heard(capfd):
    """A warning or worse is a line, with its traceback; afterwards `logging` is as it was."""
    stream = io.StringIO()
    library = logging.getLogger("some.library")
    with logging_to(stream, "json"):
        library.info("nothing")
        library.warning("slow: %d s", 3)
        try:
            fail()
        except OSError:
            library.exception("accept\x1b failed")
        library.error("none is raised", exc_info=True)
    assert logging.getLogger().handlers == []
    said = [
        (line["event"], line["level"], line["logger"], line["text"], "exception" in line) for line in lines_of(stream)
    ]
    assert [
        ("library_logged", "warning", "some.library", "slow: 3 s", False),
        ("library_logged", "warning", "some.library", "accept\\x1b failed", True),
        ("library_logged", "warning", "some.library", "none is raised", False),
    ] == said
    assert capfd.readouterr().err == ""


@logging_not_set_up()
def test_a_full_pipe_and_a_library_that_goes_on(capfd):
    """Nobody waits, few lines of a flood are taken, and another library's are seen all the same."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with os.fdopen(writing, "w") as stream:
        while True:
            try:
                os.write(writing, b"x" * 4_096)
            except BlockingIOError:
                break
        os.set_blocking(writing, True)
        with logging_to(stream, "json") as log:
            for _ in range(1_000):
                logging.getLogger("trio.serve_listeners").error("accept returned EMFILE")
            logging.getLogger("h11").error("other")
            taken = log.sink.statistics().lines
            os.close(reading)
    assert BURST + 1 <= taken <= BURST + 6
    assert capfd.readouterr().err == ""


@logging_not_set_up()
def test_nothing_is_raised_into_a_library(capfd):
    """Not for arguments that do not fit, that cannot be shown, or that log when they are shown."""

    class Broken:
        def __str__(self):
            raise LookupError("broken")

    class Loud:
        def __str__(self):
            logging.getLogger("loud").error("shown: %s", self)
            return "loud"

    stream = io.StringIO()
    with logging_to(stream, "json"):
        for text, *arguments in (("%d", "x"), ("%s", Broken()), (Broken(),), ("%s", Loud())):
            logging.getLogger("some.library").error(text, *arguments)
    assert ["%d", "%s", "loud"] == [line["text"] for line in lines_of(stream)]
    assert capfd.readouterr().err == ""


def test_a_program_that_has_set_logging_up():
    """It keeps its handlers, and has no second line of ours."""
    root = logging.getLogger()
    before = list(root.handlers)
    own = logging.NullHandler()
    root.addHandler(own)
    stream = io.StringIO()
    try:
        with logging_to(stream, "json"):
            assert [*before, own] == root.handlers
            logging.getLogger("some.library").error("x")
    finally:
        root.removeHandler(own)
    assert lines_of(stream) == []


@logging_not_set_up()
def test_a_log_in_a_log():
    """A line is written once."""
    stream = io.StringIO()
    with logging_to(io.StringIO(), "json"), logging_to(stream, "json"):
        logging.getLogger("some.library").error("x")
    assert ["x"] == [line["text"] for line in lines_of(stream)]


@logging_not_set_up()
def test_warnings(capfd):
    """Python's own are lines too, while the log lasts."""
    stream = io.StringIO()
    before = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with logging_to(stream, "json"):
            warnings.warn("old ways", UserWarning, stacklevel=1)
        after = warnings.showwarning
    [line] = lines_of(stream)
    assert ("py.warnings", True) == (line["logger"], "UserWarning: old ways" in line["text"])
    assert (before, "") == (after, capfd.readouterr().err)
