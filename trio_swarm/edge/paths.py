"""Where a request goes: read from the raw path, cut at its slashes, each segment decoded once.

The decoded path that ASGI also gives cannot be used: in it `%2F` has already become a slash, and bytes that are no
UTF-8 have become something else. Where the application is mounted below a prefix (`root_path`), the prefix is taken
off first.

Nothing is normalised: an empty segment, `.` and `..` (plain or as `%2e`) are no id, and lead nowhere. Browsers and
proxies take them out of a path before we see it, some of them the encoded ones too, and so would ask for another
object than their user named; an id that cannot be reached everywhere is an id nowhere.
"""

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote, unquote

import attrs

from trio_swarm.wire.names import check_id, check_kind
from trio_swarm.wire.percent import decode_name

Action = Literal["events", "publish", "call", "history", "socket", "healthz", "readyz", "metrics", "elsewhere"]

_FIXED: dict[tuple[str, ...], Action] = {
    ("v1", "ws"): "socket",
    ("healthz",): "healthz",
    ("readyz",): "readyz",
    ("metrics",): "metrics",
}
_OF_OBJECTS: dict[str, Action] = {"events": "events", "publish": "publish", "history": "history"}

METHODS: dict[Action, tuple[str, ...]] = {
    "events": ("GET", "HEAD"),
    "publish": ("POST",),
    "call": ("POST",),
    "history": ("GET", "HEAD"),
    "socket": ("GET",),
    "healthz": ("GET", "HEAD"),
    "readyz": ("GET", "HEAD"),
    "metrics": ("GET", "HEAD"),
}


@attrs.frozen
class Target:
    """What is asked for. `kind` and `id` are set for what objects answer, `method` for a call."""

    action: Action
    kind: str = ""
    id: str = ""
    method: str = ""


_ELSEWHERE = Target("elsewhere")


def find(scope: Mapping[str, Any]) -> Target:
    """The target of a request.

    Raises:
        InvalidName: the kind, the id or the method breaks the naming rules, or is no UTF-8.
    """
    raw = scope.get("raw_path")
    text = raw.decode("latin-1") if raw else quote(scope["path"])
    segments = _below(text, scope.get("root_path") or "")
    if not segments:
        return _ELSEWHERE
    fixed = _FIXED.get(tuple(segments))
    if fixed is not None:
        return Target(fixed)
    if segments[0] != "v1" or len(segments) not in {4, 5}:
        return _ELSEWHERE
    if len(segments) == 5:
        if segments[3] != "call":
            return _ELSEWHERE
        action: Action | None = "call"
    else:
        action = _OF_OBJECTS.get(segments[3])
    if action is None:
        return _ELSEWHERE
    kind = check_kind(_decode("kind", segments[1]))
    id_ = check_id(_decode("id", segments[2]))
    return Target(action, kind, id_, _decode("method", segments[4]) if action == "call" else "")


def _below(path: str, root: str) -> list[str]:
    """The raw segments below the prefix that the application is mounted at."""
    if not path.startswith("/"):
        return []  # `*`, or the host and port of a CONNECT
    segments = path[1:].split("/")
    root = root.rstrip("/")
    if root:
        for length in range(1, len(segments) + 1):
            if unquote("/" + "/".join(segments[:length])) == root:
                return segments[length:]
    return segments  # not below it: the host has taken the prefix off already


def _decode(what: str, segment: str) -> str:
    return decode_name(what, segment.encode("latin-1"))
