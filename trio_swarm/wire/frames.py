"""WebSocket frames as a server writes them (RFC 6455, section 5): whole, unmasked, without extensions.

Only writing: what clients send is read by the ASGI host. A text frame is the same bytes for every client, so it is
made once and shared; that is the reason for this file.
"""

import struct

_TEXT = 0x81  # FIN and the opcode
_CLOSE = 0x88
_PING = 0x89
_MAX_CONTROL_PAYLOAD = 125
_MAX_REASON = _MAX_CONTROL_PAYLOAD - 2

_MEDIUM = struct.Struct("!BBH").pack
_LARGE = struct.Struct("!BBQ").pack
_CODE = struct.Struct("!H").pack


def text_frame(payload: bytes) -> bytes:
    """One text message; `payload` is UTF-8."""
    size = len(payload)
    if size < 126:
        return b"\x81%c%b" % (size, payload)
    if size < 65_536:
        return _MEDIUM(_TEXT, 126, size) + payload
    return _LARGE(_TEXT, 127, size) + payload


def ping_frame(payload: bytes = b"") -> bytes:
    """A ping.

    Raises:
        ValueError: the payload is longer than the 125 bytes of a control frame.
    """
    return _control(_PING, payload)


def close_frame(code: int, reason: str = "") -> bytes:
    """A close; the reason is cut to what fits, never inside a character.

    Raises:
        ValueError: no endpoint may send this code.
    """
    if code in {1004, 1005, 1006, 1015} or not 1000 <= code <= 4999:
        raise ValueError(f"{code} is no close code that may be sent")
    text = reason.encode(errors="replace")
    if len(text) > _MAX_REASON:
        text = text[:_MAX_REASON].decode(errors="ignore").encode()
    return _control(_CLOSE, _CODE(code) + text)


def _control(opcode: int, payload: bytes) -> bytes:
    if len(payload) > _MAX_CONTROL_PAYLOAD:
        raise ValueError(f"a control frame holds {_MAX_CONTROL_PAYLOAD} bytes, not {len(payload)}")
    return b"%c%c%b" % (opcode, len(payload), payload)
