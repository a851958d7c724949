"""Where a request goes: read from the raw path, because an id is one percent-encoded segment that may hold a `/`.

The decoded path that ASGI also gives cannot be used: in it `%2F` has already become a slash, and bytes that are no
UTF-8 have become something else. Where the application is mounted below a prefix (`root_path`), the prefix is taken
off first.
"""

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import quote, unquote, unquote_to_bytes

import attrs

from trio_swarm.errors import InvalidName
from trio_swarm.wire.names import check_id, check_kind

Action = Literal["events", "publish", "call", "history", "socket", "healthz", "readyz", "elsewhere"]

_FIXED: dict[tuple[str, ...], Action] = {
    ("v1", "ws"): "socket",
    ("healthz",): "healthz",
    ("readyz",): "readyz",
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
    kind, id_ = _decode("kind", segments[1]), _decode("id", segments[2])
    check_kind(kind)
    check_id(id_)
    return Target(action, kind, id_, _decode("method", segments[4]) if action == "call" else "")


def _below(path: str, root: str) -> list[str]:
    """The raw segments below the prefix that the application is mounted at."""
    if not path.startswith("/"):
        return []  # `*`, or a proxy's absolute form
    segments = path[1:].split("/")
    root = root.rstrip("/")
    if root:
        for length in range(1, len(segments) + 1):
            if unquote("/" + "/".join(segments[:length])) == root:
                return segments[length:]
    return segments  # not below it: the host has taken the prefix off already


def _decode(what: str, segment: str) -> str:
    try:
        return unquote_to_bytes(segment.encode("latin-1")).decode()
    except UnicodeDecodeError:
        raise InvalidName(what, segment, "it is not UTF-8") from None
