"""docs/logs.md lists every line of the log: its name, level and fields, and nothing that is not there."""

import ast
import re
from pathlib import Path

import attrs
import pytest

from trio_swarm.asgi import in_short
from trio_swarm.edge.access import REQUEST, STREAM
from trio_swarm.settings import Settings

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "logs.md"
LEVELS = {"debug": "debug", "info": "info", "warning": "warning", "error": "error", "critical": "critical"}
SPREAD = {"in_short": frozenset(in_short(Settings(), []))}  # `**f(…)`: the fields that the function gives
HEALTH = {  # written past structlog, by name in the entry itself
    ("log_lines_dropped", "warning", frozenset({"count"})),
    ("log_lines_suppressed", "warning", frozenset({"name", "about", "count"})),
}
ACCESS = {
    (name, "info", frozenset({"method", "path", "status", "seconds", "http", "client", "bytes", *more}))
    for name, more in ((REQUEST, ()), (STREAM, ("reason",)))
}


@attrs.frozen(order=True)
class Line:
    name: str
    level: str
    fields: tuple[str, ...]


def is_log(node):
    return isinstance(node, ast.Name) and node.id in {"log", "_log"}


def calls(tree):
    """Every call of a logger."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and is_log(node.func.value):
            yield node


def read(call, path):
    level = LEVELS.get(call.func.attr)
    fields = set()
    if call.func.attr == "exception":
        level = "error"
        fields.add("exception")
    where = f"{path}:{call.lineno}"
    assert level is not None, where
    assert len(call.args) == 1, f"{where}: a name, and fields by keyword"
    assert isinstance(call.args[0], ast.Constant), f"{where}: the name of a line is written out"
    for keyword in call.keywords:
        if keyword.arg is None:
            fields |= SPREAD[keyword.value.func.id]
        else:
            fields.add("exception" if keyword.arg == "exc_info" else keyword.arg)
    return Line(call.args[0].value, level, tuple(sorted(fields)))


def scan(root):
    return {read(call, path) for path in sorted(root.rglob("*.py")) for call in calls(ast.parse(path.read_text()))}


def in_code():
    fixed = {Line(name, level, tuple(sorted(fields))) for name, level, fields in HEALTH | ACCESS}
    return scan(ROOT / "trio_swarm") | fixed


def in_page():
    lines = set()
    for row in re.findall(r"^\| `(\w+)` \| (\w+) \|(.*)\|$", PAGE.read_text(), re.MULTILINE):
        name, level, rest = row
        fields = re.findall(r"`(\w+)`", rest.split("|")[0])
        lines.add(Line(name, level, tuple(sorted(fields))))
    return lines


def test_the_page_and_the_code_agree():
    """Each name with its level and fields stands in both."""
    code, page = in_code(), in_page()
    assert code - page == set(), "not in docs/logs.md"
    assert page - code == set(), "not in the code"


def test_names_are_stable_words():
    """A name is snake_case, has one level, and one set of fields."""
    lines = in_code()
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", line.name) for line in lines)
    names = [line.name for line in lines]
    twice = {name for name in names if names.count(name) > 1}
    assert twice == set()


def test_no_line_is_hidden():
    """Loggers are called `log` or `_log`, and never handed on: each line can be found where it is written."""
    for path in sorted((ROOT / "trio_swarm").rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and "get_logger" in ast.unparse(node.value):
                assert is_log(node.targets[0]), path
        called = {id(call.func.value) for call in calls(tree)}
        loads = [n for n in ast.walk(tree) if is_log(n) and isinstance(n.ctx, ast.Load) and id(n) not in called]
        own = path.name in {"telling.py", "asgi.py", "running.py", "logs.py"}  # there `log` is the log itself
        assert own or not loads, f"{path}:{[n.lineno for n in loads]}"


def test_no_payloads_no_secrets():
    """No field is called after what must not be in a log."""
    forbidden = {"data", "payload", "token", "headers", "query", "body", "url", "password", "args", "kwargs"}
    assert {(line.name, field) for line in in_code() for field in line.fields if field in forbidden} == set()


@pytest.mark.parametrize(
    "code",
    [
        'log.info("free text")',
        'log.info("renamed_line")',
        '_log.error("feed_live", feed=1, topics=2)',
        'log.info("feed_live", feed=1)',
    ],
)
def test_the_scan_finds(code, tmp_path):
    """A line that is new, at another level, or with other fields is not on the page."""
    (tmp_path / "planted.py").write_text(code)
    assert not scan(tmp_path) <= in_page()
