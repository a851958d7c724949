"""The log in a forked child."""

import gc
import io
import json
import os
import signal

import pytest
import structlog

from trio_swarm.health import forks
from trio_swarm.health.logs import BURST, Restraint, logging_to

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # that is what this is about


def in_a_child(do):
    """Its exit code; less than zero for one that was stuck."""
    child = os.fork()
    if not child:
        signal.alarm(10)
        code = 1
        try:
            do()
            code = 0
        finally:
            os._exit(code)  # never back into pytest
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream:
        yield reading, stream
    os.close(reading)


def test_a_child_logs(pipe):
    """Its lines are written before it ends, even by `os._exit`, and those of its parent not twice."""
    reading, stream = pipe
    with logging_to(stream, "json"):
        structlog.get_logger().info("parent")
        assert in_a_child(lambda: structlog.get_logger().error("child_failed")) == 0
    said = [json.loads(line)["event"] for line in os.read(reading, 65_536).splitlines()]
    assert ["child_failed", "parent"] == sorted(said)


def test_locks_held_at_the_fork(pipe):
    """Another thread of the parent may have held them: the child does not wait for it."""
    reading, stream = pipe

    def log():
        structlog.get_logger().error("child_failed")
        sink.flush()
        sink.close()

    with logging_to(stream, "json") as kept:
        sink = kept.sink
        with sink._lock, sink._hurry._cond:
            assert in_a_child(log) == 0
    assert ["child_failed"] == [json.loads(line)["event"] for line in os.read(reading, 65_536).splitlines()]


def test_restraint_begins_anew():
    """A child has lines of its own, waits for no lock of its parent's, and does not tell what its parent suppressed."""
    restraint = Restraint(lambda: 100.0)

    def pass_one():
        restraint(None, "error", {"event": "call_failed"})

    for _ in range(BURST):
        pass_one()
    with pytest.raises(structlog.DropEvent):
        pass_one()

    def look():
        pass_one()
        assert restraint.suppressed() == []

    with restraint._lock:
        assert in_a_child(look) == 0
    [told] = restraint.suppressed()
    assert told["count"] == 1


def test_a_child_whose_log_nobody_takes():
    """It raises nothing."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream, logging_to(stream, "json"):
        assert in_a_child(lambda: structlog.get_logger().error("child_failed")) == 0


def test_a_log_that_ended_is_forgotten():
    """Children are not told of logs that are no more."""
    before = len(forks._things)
    for _ in range(20):
        with logging_to(io.StringIO(), "json"):
            pass
    gc.collect()
    assert len(forks._things) <= before
