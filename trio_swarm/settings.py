"""Settings: every limit a number, its unit in its name or docstring, its reason beside it.

One immutable attrs tree. `load()` reads it from a TOML file and the environment and refuses what it does not know.
"""

import math
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_type_hints

import attrs
import msgspec

from trio_swarm.errors import SettingsError

KIB = 1024
MIB = 1024 * KIB

RANGE_BYTES = 64 * KIB  # one write of replay: large enough to amortise a system call, small enough to share and to hold

_ENVIRONMENT_PREFIX = "TRIO_SWARM_"
_NOT_SETTINGS = {"TRIO_SWARM_CONFIG", "TRIO_SWARM_SHARED"}

# Every other number is above 0: a limit of nothing serves nothing, and a time of nothing waits for nothing.
_MAY_BE_ZERO = {
    "limits.idle_journal_bytes",  # of an object that stopped nothing is kept
    "liveness.retry_min_s",  # some come back at once
    "objects.crashes",  # the first crash is one too many
    "upstream.quick_restarts",  # the first failure is `down`
}


@attrs.frozen
class Limits:
    """What one process takes on at most."""

    connections: int = 10_000  # measured memory: about 0.25 GiB of idle streams
    objects_per_kind: int = 1_000  # R9: the next one is refused
    journals: int = 10_000  # LRU: journals of idle objects beyond this are dropped
    idle_journal_bytes: int = 256 * MIB  # of objects that stopped, for clients that come back
    topics_per_journal: int = 10_000  # a client-made topic costs about 500 bytes
    keys_per_journal: int = 10_000  # for `latest` topics
    topics_per_subscription: int = 100  # one URL or message; more topics mean: subscribe to all
    streams_per_connection: int = 100  # one WebSocket
    event_bytes: int = 100 * KIB  # from clients; R33
    body_bytes: int = 1 * MIB  # one HTTP request body
    message_bytes: int = 100 * KIB  # one WebSocket message from a client
    upstream_frame_bytes: int = 4 * MIB  # BitMEX opens with 709 KB
    memory_store_bytes: int = 64 * MIB  # `memory:` refuses beyond this
    shared_range_bytes: int = 16 * MIB  # encoded ranges kept for laggards at the same position


@attrs.frozen
class JournalSettings:
    """How much history one object keeps; whichever bound is met first."""

    events: int = 1_000
    bytes: int = 1 * MIB
    age_s: float = 300.0  # R30


HUB_JOURNAL = JournalSettings(events=20_000, bytes=16 * MIB)  # a market's burst: 30 s of Coinbase is 10,000 events


@attrs.frozen
class StallSettings:
    """When a client that does not read is cut off."""

    seconds: float = 30.0  # longer than a tunnel, shorter than a journal's age


@attrs.frozen
class LivenessSettings:
    """How silence is noticed, towards clients."""

    ping_s: float = 10.0
    dead_s: float = 30.0  # three pings unanswered (R5)
    header_s: float = 10.0  # a request's head must be whole by then: nobody types it by hand
    body_s: float = 20.0  # a body of at most 1 MiB
    keep_alive_s: float = 15.0  # an idle HTTP connection between two requests
    shutdown_s: float = 5.0  # R39: everything is over by then
    retry_min_s: float = 1.0  # clients come back spread over this span after a shutdown
    retry_max_s: float = 10.0


@attrs.frozen
class ObjectSettings:
    """Turns, mailboxes and restarts."""

    turn_s: float = 30.0  # a turn's deadline: no upstream call should be awaited longer inside one
    grace_s: float = 5.0  # R11: an idle object, and an upstream topic nobody wants, lives on this long
    control_lane: int = 64  # snapshots, demand, stop: coalesced by their senders, so few
    call_lane: int = 256  # a caller beyond this waits
    feed_lane: int = 256  # a feed beyond this is not read: backpressure down to TCP
    commits_in_flight: int = 64  # turns whose commit is under way; the next turn waits
    crashes: int = 3  # within `crash_window_s`; the next crash makes the object `failed`
    crash_window_s: float = 60.0
    backoff_initial_s: float = 1.0
    backoff_max_s: float = 30.0
    stop_s: float = 2.0  # an author's `stop`, and then the last commits; both fit into `liveness.shutdown_s`
    tasks: int = 1_000  # timers, feeds and background tasks of one object


@attrs.frozen
class UpstreamSettings:
    """One supervised feed."""

    connect_s: float = 30.0  # R3
    ping_s: float = 10.0
    dead_s: float = 30.0
    close_s: float = 1.0  # the closing handshake of a peer that may be gone
    quick_restarts: int = 3  # within `window_s`; then `down`, and a probe every `backoff_max_s`
    window_s: float = 60.0
    backoff_initial_s: float = 1.0
    backoff_max_s: float = 30.0


@attrs.frozen
class FeedSettings:
    """One `[[feed]]`: `hub/<name>` serves it. The last fields are for `protocol = "jsonfeed"` alone."""

    name: str
    url: str
    protocol: str = "jsonfeed"
    topics: tuple[str, ...] = ()  # fixed: connect at start and stay; empty: on demand
    channels: tuple[str, ...] = ()
    subscribe: str = (
        ""  # the text sent to subscribe; `{topic}` stands for one topic, `{topics}` for a JSON list of them
    )
    unsubscribe: str = ""
    topic_path: str = ""  # dotted path into a frame, such as `data.0.symbol`
    key_path: str = ""
    sequence_path: str = ""
    skip: tuple[str, ...] = ()  # a frame that has one of these paths (`path`) or values (`path=value`) is no event


@attrs.frozen
class Settings:
    """Everything an operator may set. Frozen: a change is a new value (`attrs.evolve`)."""

    bind: str = "127.0.0.1:8000"
    open: bool = False  # serve beyond loopback although nobody is asked who they are
    store: str = "memory:"
    limits: Limits = Limits()
    journal: JournalSettings = JournalSettings()
    stall: StallSettings = StallSettings()
    liveness: LivenessSettings = LivenessSettings()
    objects: ObjectSettings = ObjectSettings()
    upstream: UpstreamSettings = UpstreamSettings()
    feed: tuple[FeedSettings, ...] = ()


def load(path: str | os.PathLike[str] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from a TOML file (if any), then from variables such as `TRIO_SWARM_LIMITS__CONNECTIONS`.

    Raises:
        SettingsError: the file cannot be read, a key or value is not known, or a number is out of range; it names the
            place.
    """
    values: dict[str, Any] = {}
    where = "settings"
    if path is not None:
        where = os.fspath(path)
        try:
            values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(where, f"cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(where, f"is not TOML: {error}") from error
    settings = _convert(values, where)
    _check_numbers(settings, where)
    for name, text in sorted((environment or {}).items()):
        if name.startswith(_ENVIRONMENT_PREFIX) and name not in _NOT_SETTINGS:
            keys = name.removeprefix(_ENVIRONMENT_PREFIX).lower().split("__")
            settings = _replace(settings, keys, text, name, "")
    names = [feed.name for feed in settings.feed]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(where, f"two feeds are called {name!r}")
    return settings


def _convert(values: Mapping[str, Any], where: str) -> Settings:
    _refuse_unknown(Settings, values, where, "")
    if isinstance(values.get("feed"), Mapping):
        raise SettingsError(where, "[feed] is a single table, and there may be several: write [[feed]]")
    try:
        return msgspec.convert(values, Settings)
    except msgspec.ValidationError as error:
        raise SettingsError(where, str(error)) from error


def _refuse_unknown(cls: Any, values: Mapping[str, Any], where: str, prefix: str) -> None:
    """Conversion drops what it does not know without a word; an operator's misspelling must not vanish."""
    known = {field.name: field.type for field in attrs.fields(attrs.resolve_types(cls))}
    for key, value in values.items():
        if key not in known:
            raise SettingsError(where, f"unknown key {prefix}{key}; known here: {', '.join(sorted(known))}")
        kind = known[key]
        if attrs.has(kind) and isinstance(value, Mapping):
            _refuse_unknown(kind, value, where, f"{prefix}{key}.")
        elif key == "feed" and isinstance(value, list):
            for item in value:
                if isinstance(item, Mapping):
                    _refuse_unknown(FeedSettings, item, where, "feed.")


def _check_numbers(record: attrs.AttrsInstance, where: str, prefix: str = "") -> None:
    for field in attrs.fields(type(record)):
        value = getattr(record, field.name)
        if attrs.has(type(value)):
            _check_numbers(value, where, f"{prefix}{field.name}.")
        elif reason := _range_error(value, f"{prefix}{field.name}"):
            raise SettingsError(where, f"{prefix}{field.name}: {reason}")


def _range_error(value: Any, key: str) -> str | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not math.isfinite(value):
        return f"{value} is not a finite number"
    if key in _MAY_BE_ZERO:
        return f"{value} is below 0" if value < 0 else None
    return f"{value} is not above 0" if value <= 0 else None


def _replace(record: attrs.AttrsInstance, keys: list[str], text: str, where: str, prefix: str) -> Any:
    """Set one leaf from an environment variable."""
    hints = get_type_hints(type(record))
    head, *rest = keys
    if head not in hints or (bool(rest) != attrs.has(hints[head])) or head == "feed":
        start = _ENVIRONMENT_PREFIX + prefix.replace(".", "__").upper()
        known = [
            f"{start}{name.upper()}{'__…' if attrs.has(hint) else ''}"
            for name, hint in sorted(hints.items())
            if name != "feed"
        ]
        raise SettingsError(where, f"names no setting that a variable can set; known here: {', '.join(known)}")
    if rest:
        value = _replace(getattr(record, head), rest, text, where, f"{prefix}{head}.")
    else:
        try:
            value = msgspec.convert(text, hints[head], strict=False)
        except msgspec.ValidationError as error:
            raise SettingsError(where, str(error)) from error
        if reason := _range_error(value, f"{prefix}{head}"):
            raise SettingsError(where, reason)
    return attrs.evolve(cast("Any", record), **{head: value})
