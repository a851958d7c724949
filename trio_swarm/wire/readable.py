"""What clients may send so that every reader can take it: no deeper, and no larger numbers, than JSON parsers agree on.

An event's data travels unchanged to readers of all languages. What only some of them can parse would be one client's
means against all the others: a nesting of 900 arrays ends a parser that stops at 128, `1e999` one that knows doubles.
The text is JSON already, checked by the parser, which also refuses lone surrogates; what is asked here is asked
quickly, and precisely only where something looks suspicious.
"""

import math
import re
from itertools import accumulate
from typing import Final

MAX_DEPTH: Final = 100  # the strictest parser in wide use stops at 128, and an envelope adds levels

# Nothing without one of these is beyond a double: 199 digits and an exponent of 99 make 1e298. Three searches, each for
# what begins with one certain letter or is rare, are quicker than one.
_DIGITS = 200
_LONG_DIGITS = re.compile(rf"(?<![0-9])[0-9]{{{_DIGITS}}}")
_LONG_EXPONENTS = (re.compile(r"e\+?[0-9]{3}"), re.compile(r"E\+?[0-9]{3}"))
# The numbers themselves, from their first digit on; nothing is looked at twice, however long it is.
_LARGE = re.compile(
    r"(?<![0-9.eE+-])-?(?:"
    rf"[0-9]{{{_DIGITS},}}+(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?"
    r"|[0-9]++(?:\.[0-9]++)?[eE]\+?[0-9]{3,}+)"
)

_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = tuple(1 if byte in b"[{" else -1 for byte in range(256))


def why_unreadable(text: str) -> str | None:
    """Why some reader could not take this JSON; None when all can."""
    if text.count("[") + text.count("{") > MAX_DEPTH and _is_deeper(text):
        return f"the JSON is nested too deeply: at most {MAX_DEPTH} levels"
    if _may_be_too_large(text) and not _fits_doubles(text):
        return "a number is too large: it does not fit a double"
    return None


def _is_deeper(text: str) -> bool:
    brackets = _STRING.sub("", text).encode().translate(None, _NO_BRACKETS)
    return max(accumulate(map(_STEPS.__getitem__, brackets)), default=0) > MAX_DEPTH


def _may_be_too_large(text: str) -> bool:
    if len(text) >= _DIGITS and _LONG_DIGITS.search(text) is not None:
        return True
    return any(exponent.search(text) is not None for exponent in _LONG_EXPONENTS)


def _fits_doubles(text: str) -> bool:
    return all(math.isfinite(float(number[0])) for number in _LARGE.finditer(_STRING.sub('""', text)))
