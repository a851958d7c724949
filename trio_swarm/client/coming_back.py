"""Whether to come back to a service that did not answer as hoped, and when. Pure.

A service says it in the status of a response, in a close code, in `Retry-After`, in `retry:` and at the end of a close
reason. What it asks for is the least that is waited; the draw of the backoff comes on top, for all who were sent away
were told the same number.
"""

import re
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from http import HTTPStatus

import msgspec

from trio_swarm.errors import ServiceRefused, ServiceUnavailable

AT_MOST_S = 600.0  # a service may ask for more; a client that waits longer without a word looks dead

_PASSING = {408, 425, 429}
_LASTING = {501, 505}  # of those that are the server's fault
_PHRASES = {int(status): status.phrase for status in HTTPStatus}
# Of the passing ones, those that say that nothing was done: the others may come from a proxy, or from the middle of it.
_NOT_DONE = {
    "busy",
    "limit",
    "not_running",
    "object_failed",
    "shutting_down",
    "too_many_connections",
    "too_many_objects",
    "too_many_subscriptions",
    "too_many_tasks",
}
_REFUSED_CLOSES = {1003, 1007, 1009}  # and from 4500 on, all of ours
_RETRY_MS = re.compile(r"retry_ms=([0-9]{1,18})\s*$")

# What a message over a WebSocket is answered with when later it may work; over HTTP the status says that.
_PASSING_CODES = {
    "busy",
    "closed",
    "feed_unavailable",
    "internal",
    "limit",
    "object_error",
    "object_failed",
    "object_restarted",
    "shutting_down",
    "storage_error",
    "too_many_connections",
    "too_many_objects",
    "too_many_subscriptions",
    "too_many_tasks",
    "turn_timeout",
}


class _Trouble(msgspec.Struct):
    code: str
    message: str


class _Answer(msgspec.Struct):
    error: _Trouble


def after_status(status: int, headers: Mapping[str, str], body: bytes) -> ServiceUnavailable | ServiceRefused:
    """What a response means that is not the one hoped for; `headers` have lower-case names."""
    said = _read(body)
    message = _PHRASES.get(status, "the service refused") if said is None else said.message
    if 300 <= status < 400 and "location" in headers:
        message = f"the service is elsewhere, and says {headers['location'][:200]}"
    reason = f"{message} (HTTP {status})"
    if status in _PASSING or (status >= 500 and status not in _LASTING):
        uncertain = said is None or said.code not in _NOT_DONE
        return ServiceUnavailable(reason, retry_after_s(headers), uncertain)
    return ServiceRefused(reason)


def read_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """A response's headers by their lower-case names; of several of one name the last."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}


def after_close(code: int, reason: str) -> ServiceUnavailable | ServiceRefused:
    """What the close of a WebSocket means."""
    sentence = f"the service closed with {code}" + (f" ({reason})" if reason else "")
    if code in _REFUSED_CLOSES or 4500 <= code < 5000:
        return ServiceRefused(sentence)
    asked = _RETRY_MS.search(reason)
    return ServiceUnavailable(sentence, None if asked is None else bounded(int(asked[1]) / 1000))


def after_error(code: str, message: str) -> ServiceUnavailable | ServiceRefused:
    """What an error over a WebSocket means, in answer to what was asked."""
    sentence = f"{message} ({code})"
    return ServiceUnavailable(sentence) if code in _PASSING_CODES else ServiceRefused(sentence)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The seconds of `Retry-After`, in either of its forms; a date is counted from the service's own clock."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return bounded(float(value[:9]))
    try:
        seconds = (parsedate_to_datetime(value) - parsedate_to_datetime(headers["date"])).total_seconds()
    except (KeyError, ValueError, TypeError, OverflowError):  # there is none, or one of them is no date
        return None
    return bounded(seconds)


def bounded(seconds: float) -> float:
    """What a service asks for, within reason."""
    return min(max(seconds, 0.0), AT_MOST_S)


def _read(body: bytes) -> _Trouble | None:
    """The error in a body of ours; None for anybody else's."""
    try:
        return msgspec.json.decode(body, type=_Answer).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
