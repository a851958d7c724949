"""Percent-encoding as URLs carry names: decoded once, strictly.

The standard library lets `%zz` stand as it is, so that two spellings would name one object; here it is an error.
"""

import re
from urllib.parse import unquote_to_bytes

from trio_swarm.errors import InvalidName

_STRAY = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def decode_name(what: str, raw: bytes) -> str:
    """The text of one encoded name.

    Raises:
        InvalidName: a `%` without two hexadecimal digits, or bytes that are not UTF-8.
    """
    if _STRAY.search(raw) is not None:
        raise InvalidName(what, raw.decode("latin-1"), "a % comes before two hexadecimal digits")
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise InvalidName(what, raw.decode("latin-1"), "it is not UTF-8") from None
