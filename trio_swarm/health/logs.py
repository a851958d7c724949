"""The log: one line for a thing that happened, on stderr, for people or for machines; docs/logs.md lists all of them.

What must hold, whatever happens:

- writing a line never waits (line_sink.py);
- a client cannot fill the disk: lines of one name about one thing come ten at once and then one a second; the others
  are counted, and a line a second says how many (`Restraint`);
- a log call raises nothing, whatever its fields are (`_line`);
- no line is without end, and none has a control character in it, so that what came from outside can neither begin a
  line of its own nor speak to a terminal;
- tracebacks show code and never the values of variables, which are clients' data.
"""

import contextlib
import logging
import os
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final, Literal, TextIO

import attrs
import msgspec
import structlog

from trio_swarm.health.forks import anew_in_children
from trio_swarm.health.library_lines import libraries_heard
from trio_swarm.health.line_sink import LineSink, Write
from trio_swarm.settings import Settings

Entry = MutableMapping[str, Any]
Processor = Callable[[Any, str, Entry], Entry]
Render = Callable[[Any, str, Entry], bytes]
Form = Literal["console", "json"]

BURST: Final = 10  # lines of one name about one thing at once: as many feeds may fall together and all be seen
A_SECOND: Final = 1.0  # and then one in so long
THINGS: Final = 1_000  # feeds, kinds and reasons that are told apart
VALUE_CHARACTERS: Final = 2_000  # of one field; an id is 200 bytes
VALUE_PARTS: Final = 100  # of one field that is a list or a mapping, at all depths together: it may hold itself
TRACEBACK_CHARACTERS: Final = 16_000  # both ends of a longer one are kept: recursion makes them endless

# Fields that tell lines of one name apart; of an object its kind.
_ABOUT: Final = ("feed", "object", "reason", "code", "logger")
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}
_CONTROLS |= {code: f"\\u{code:04x}" for code in range(0x2028, 0x202F)}  # ends of lines, and writing backwards


@attrs.frozen
class Log:
    """A log that is set up: what writes it, and in which form."""

    sink: LineSink
    form: Form


@contextlib.contextmanager
def logging_to(
    stream: TextIO, form: Form | Literal["auto"], level: str = "info", *, first: Sequence[Processor] = ()
) -> Iterator[Log]:
    """Have structlog write to a stream while the context lasts; at its end what is left is written.

    What libraries say through `logging` is written too (library_lines.py).

    Args:
        stream: such as `sys.stderr`.
        form: "auto" is for people on a terminal, and for machines elsewhere.
        level: what is less important is left out.
        first: processors that see an entry before all others.
    """
    if form == "auto":
        form = "console" if stream.isatty() else "json"
    line = _line(_json if form == "json" else _console(colors=stream.isatty() and not os.environ.get("NO_COLOR")))
    restraint = Restraint(time.monotonic)

    def remark(dropped: int) -> bytes:
        entries = restraint.suppressed()
        if dropped:
            entries.append({"event": "log_lines_dropped", "level": "warning", "count": dropped})
        return b"".join(line(None, "warning", entry) + b"\n" for entry in entries)

    before = structlog.get_config() if structlog.is_configured() else None
    sink = LineSink(_write_to(stream), remark)
    structlog.configure(
        processors=[
            _named,
            *first,
            restraint,
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.StackInfoRenderer(),
            structlog.dev.set_exc_info,
            line,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.BytesLoggerFactory(sink),  # type: ignore[arg-type]  # it has the two methods used
    )
    try:
        with libraries_heard():
            yield Log(sink, form)
    finally:
        if before is None:
            structlog.reset_defaults()
        else:
            structlog.configure(**before)
        restraint.hurry()
        sink.close()


class Restraint:
    """A processor that lets few lines of one kind pass, and counts the rest; see the module."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._told_at = 0.0
        self.begin_in_child()
        anew_in_children(self)

    def begin_in_child(self) -> None:
        """Count anew: what the parent suppressed, the parent tells."""
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str], list[float]] = {}  # lines in hand, when counted, how many suppressed

    def __call__(self, _logger: Any, _method: str, entry: Entry) -> Entry:
        """Let an entry pass.

        Raises:
            structlog.DropEvent: there were too many like it.
        """
        key = entry["event"], _about(entry)
        now = self._now()
        with self._lock:
            if key not in self._seen and len(self._seen) >= THINGS:
                self._forget(now)
                key = key if len(self._seen) < THINGS else (key[0], "others")
            kept = self._seen.setdefault(key, [float(BURST), now, 0])
            kept[0] = min(float(BURST), kept[0] + (now - kept[1]) / A_SECOND)
            kept[1] = now
            if kept[0] >= 1:
                kept[0] -= 1
                return entry
            kept[2] += 1
        raise structlog.DropEvent

    def hurry(self) -> None:
        """Tell what there is when asked next: it is the last time."""
        self._told_at = self._now() - A_SECOND

    def suppressed(self) -> list[Entry]:
        """What was not let pass, if that has not been asked in the last second."""
        now = self._now()
        with self._lock:
            if now - self._told_at < A_SECOND:
                return []
            self._told_at = now
            told = [(key, kept) for key, kept in self._seen.items() if kept[2]]
            entries: list[Entry] = []
            for (name, about), kept in told:
                count, kept[2] = int(kept[2]), 0
                entries.append(
                    {"event": "log_lines_suppressed", "level": "warning", "name": name, "about": about, "count": count}
                )
            return entries

    def _forget(self, now: float) -> None:
        for key in [key for key, kept in self._seen.items() if not kept[2] and now - kept[1] > BURST * A_SECOND]:
            del self._seen[key]


def _about(entry: Entry) -> str:
    for field in _ABOUT:
        value = entry.get(field)
        if isinstance(value, str):
            return value.partition("/")[0][:100] if field == "object" else value[:100]
    return ""


def printable(text: str) -> str:
    """Text that stays on its line: control characters, and what is no character at all, as escapes."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _named(_logger: Any, _method: str, entry: Entry) -> Entry:
    event = entry.get("event")
    if not isinstance(event, str):  # None is left out by structlog, anything else comes as it is
        entry["event"] = _shown(event, str)
    return entry


def _line(render: Render) -> Render:
    """The last steps, from an entry to a line. Fields that cannot be shown cost the fields, and not the caller."""

    def line(logger: Any, method: str, entry: Entry) -> bytes:
        bare = {"event": _bounded_text(entry["event"]), "level": entry["level"]}
        try:
            return render(logger, method, _stamp(_bounded(_traceback(logger, method, entry))))
        except Exception as error:  # noqa: BLE001 - an author's values run their own code, and renderers know few types
            return render(logger, method, _stamp({**bare, "not_shown": type(error).__name__}))

    return line


def _bounded(entry: Entry) -> Entry:
    return {
        _bounded_text(name): value if name == "exception" else _bounded_value(value, iter(range(VALUE_PARTS)))
        for name, value in entry.items()
    }


def _bounded_value(value: Any, parts: Iterator[int]) -> Any:
    if isinstance(value, str):
        return _bounded_text(value)
    if isinstance(value, list | tuple):
        several = [_bounded_value(each, parts) for each, _ in zip(value, parts, strict=False)]
        return several if len(several) == len(value) else [*several, "…"]
    if isinstance(value, dict):
        pairs = zip(value.items(), parts, strict=False)
        named = {_bounded_text(str(key)): _bounded_value(each, parts) for (key, each), _ in pairs}
        return named if len(named) == len(value) else {**named, "…": "…"}
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):  # the renderer knows none of their subclasses
        return float(value) if isinstance(value, float) else int(value)
    return _bounded_text(_shown(value))


def _bounded_text(text: str) -> str:
    text = str.__str__(text)  # of a subclass the text alone
    return printable(text if len(text) <= VALUE_CHARACTERS else f"{text[:VALUE_CHARACTERS]}…")


def _shown(value: Any, show: Callable[[Any], str] = repr) -> str:
    try:
        return show(value)
    except Exception:  # noqa: BLE001 - it is an author's own code
        return f"<{type(value).__name__}>"


def _traceback(logger: Any, method: str, entry: Entry) -> Entry:
    entry = structlog.processors.format_exc_info(logger, method, entry)
    text = entry.get("exception")
    if text is not None:
        text = text if isinstance(text, str) else _shown(text)
        if len(text) > TRACEBACK_CHARACTERS:
            half = TRACEBACK_CHARACTERS // 2
            text = f"{text[:half]}\n…\n{text[-half:]}"
        entry["exception"] = text.translate(_CONTROLS).encode("utf-8", "backslashreplace").decode()
    return entry


def _stamp(entry: Entry) -> Entry:
    now = datetime.now(UTC)
    return {**entry, "timestamp": f"{now:%Y-%m-%dT%H:%M:%S}.{now.microsecond // 1000:03d}Z"}


def _json(_logger: Any, _method: str, entry: Entry) -> bytes:
    first = {"timestamp": entry.pop("timestamp"), "level": entry.pop("level"), "event": entry.pop("event")}
    return msgspec.json.encode({**first, **entry})


def _console(*, colors: bool) -> Render:
    renderer = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)

    def render(logger: Any, method: str, entry: Entry) -> bytes:
        stamp = datetime.fromisoformat(entry["timestamp"]).astimezone()
        entry["timestamp"] = f"{stamp:%H:%M:%S}"
        if "exception" in entry:  # its words may be a client's: they must not look like a line of the log
            entry["exception"] = textwrap.indent(entry["exception"], "  ", lambda _: True)
        return renderer(logger, method, entry).encode()

    return render


def _write_to(stream: TextIO) -> Write:
    """Past Python's buffer where there is a descriptor: a thread blocked in that buffer would hold up the exit."""
    stream.flush()
    try:
        return partial(os.write, stream.fileno())
    except (OSError, ValueError):  # a stream in memory
        pass

    def write(data: bytes) -> int:
        stream.write(data.decode())
        stream.flush()
        return len(data)

    return write


@contextlib.contextmanager
def log_of_a_guest(settings: Settings) -> Iterator[Log | None]:
    """The log of an application in somebody else's process, on standard error.

    structlog is set up here where the settings ask for a form, and where nobody has set it up: as it comes, it prints
    the values of local variables with a traceback. What the host has set up is left alone; an access log is written
    beside it. None where there is neither.
    """
    if settings.log != "auto" or not structlog.is_configured():
        with logging_to(sys.stderr, settings.log, settings.log_level) as log:
            yield log
    elif settings.access_log:
        sink = LineSink(_write_to(sys.stderr), lambda _dropped: b"")
        try:
            yield Log(sink, "console" if sys.stderr.isatty() else "json")
        finally:
            sink.close()
    else:
        yield None
