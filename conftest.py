"""Under `CI=true` a skipped test is a failure: what the build machine lacks must not go unnoticed."""

import os

import pytest

_skipped: list[str] = []


def _note(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        _skipped.append(f"{report.nodeid}: {reason}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """A test was skipped."""
    _note(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A whole file was skipped."""
    _note(report)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run."""
    if _skipped and os.environ.get("CI") == "true" and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why."""
    if _skipped and os.environ.get("CI") == "true":
        terminalreporter.section("skipped, which is a failure under CI=true")
        for line in _skipped:
            terminalreporter.line(line)
