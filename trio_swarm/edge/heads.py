"""The heads of requests that are refused before the application hears of them, and what they are told.

h11 refuses what breaks HTTP's grammar; here that gets a body that says why. Judged here is what the grammar takes and
this service does not: a body of two lengths (on which a proxy in front might not agree with us about where the next
request begins), an expectation that nobody meets, a WebSocket handshake that RFC 6455 (4.2.1) calls malformed.
"""

import base64
import binascii
import re
from typing import Final

import attrs
import h11
import msgspec

MOST_WORDS: Final = 200  # characters of h11's that are passed on: some of its sentences quote what came

MOST_EMPTY_BYTES: Final = 16  # of empty lines before a request: old clients write one behind a body

_ABSOLUTE = re.compile(rb"https?://[^/?]*", re.IGNORECASE)
_HOST = re.compile(rb"(\[[\w:.%~!$&'()*+,;=-]+\]|([\w.~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(:[0-9]*)?")  # RFC 3986, 3.2.2
_EMPTY_LINES = re.compile(rb"(?:\r?\n)*")
_ONCE = (b"upgrade", b"sec-websocket-key", b"sec-websocket-version")
_KEY_BYTES = 16

_CODES: Final = {400: "bad_request", 414: "too_large", 431: "too_large", 501: "not_implemented"}


@attrs.frozen
class Refusal:
    """The answer to a head that is not served."""

    status: int
    code: str
    message: str
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @property
    def body(self) -> bytes:
        """As JSON, like every error."""
        return msgspec.json.encode({"error": {"code": self.code, "message": self.message}})


NO_VERSION = Refusal(505, "http_version", "this service speaks HTTP/1.1")
EARLY_BYTES = Refusal(400, "bad_request", "bytes came behind an upgrade request before it was answered")
_TWO_LENGTHS = Refusal(400, "bad_request", "a request has Content-Length or Transfer-Encoding, not both")
_EXPECTATION = Refusal(417, "expectation_failed", "the only expectation that is met is 100-continue")
_HOST_IS_NONE = Refusal(400, "bad_request", "Host names no host")
_OLD_HANDSHAKE = Refusal(505, "http_version", "a WebSocket needs HTTP/1.1")
_BODY = Refusal(400, "bad_request", "an upgrade request has no body")
_KEY = Refusal(400, "bad_request", "Sec-WebSocket-Key is not the base64 of 16 bytes")
_WEBSOCKET_VERSION = Refusal(
    426, "upgrade_required", "the version of WebSocket spoken here is 13", ((b"sec-websocket-version", b"13"),)
)


def not_http(error: h11.RemoteProtocolError, received: bytes) -> Refusal:
    """What to tell a client whose bytes are no HTTP; `received` are those that h11 did not take."""
    status = error.error_status_hint
    if status == 431:
        if b"\n" not in received:
            return Refusal(414, _CODES[414], "the URL is too long")
        return Refusal(431, _CODES[431], "the head of the request is too large")
    return Refusal(status, _CODES.get(status, "bad_request"), f"this is not HTTP: {str(error)[:MOST_WORDS]}")


def behind_empty_lines(received: bytes) -> bytes:
    """What is left without the empty lines at its beginning (RFC 9112, 2.2); a CR alone may be half of one."""
    found = _EMPTY_LINES.match(received)
    return received[found.end() :] if found else received


def has_begun(received: bytes) -> bool:
    """Whether these bytes, which came behind a request, are more than empty lines that will be skipped."""
    return len(received) > MOST_EMPTY_BYTES or bool(received.strip(b"\r\n"))


def judge(request: h11.Request) -> Refusal | None:
    """What is wrong with a head that h11 has taken; None when it may be served."""
    names = {name for name, _ in request.headers}
    if b"content-length" in names and b"transfer-encoding" in names:
        return _TWO_LENGTHS
    if any(name == b"host" and _HOST.fullmatch(value) is None for name, value in request.headers):
        return _HOST_IS_NONE
    if b"expect" in names:
        values = [value.strip().lower() for name, value in request.headers if name == b"expect"]
        if values != [b"100-continue"]:
            return _EXPECTATION
    return _judge_handshake(request) if asks_for_websocket(request) else None


def asks_for_websocket(request: h11.Request) -> bool:
    """Whether this is a handshake, well-formed or not."""
    tokens: list[bytes] = []
    upgrades: list[bytes] = []
    for name, value in request.headers:  # h11 has lowered the names
        if name == b"connection":
            tokens += [token.strip() for token in value.lower().split(b",")]
        elif name == b"upgrade":
            upgrades += [token.strip() for token in value.lower().split(b",")]
    return request.method == b"GET" and b"websocket" in upgrades and b"upgrade" in tokens


def origin_form(target: bytes) -> bytes:
    """A target without the scheme and the host that RFC 9112 (3.2.2) has every server accept in front of it."""
    found = _ABSOLUTE.match(target)
    if found is None:
        return target
    rest = target[found.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest


def _judge_handshake(request: h11.Request) -> Refusal | None:
    if request.http_version != b"1.1":
        return _OLD_HANDSHAKE
    fields: dict[bytes, bytes] = {}
    for name, value in request.headers:
        if name in _ONCE and name in fields:
            return Refusal(400, "bad_request", f"{name.decode('ascii')} is given twice")
        fields[name] = value
    if b"transfer-encoding" in fields or fields.get(b"content-length", b"0").strip(b"0"):
        return _BODY
    if fields.get(b"sec-websocket-version") != b"13":
        return _WEBSOCKET_VERSION
    try:
        key = base64.b64decode(fields.get(b"sec-websocket-key", b""), validate=True)
    except binascii.Error:
        return _KEY
    return None if len(key) == _KEY_BYTES else _KEY
