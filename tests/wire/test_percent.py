"""Names from URLs: decoded once and strictly."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_swarm.errors import InvalidName
from trio_swarm.wire.percent import decode_name


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_comes_back(text):
    """Each byte encoded."""
    encoded = "".join(f"%{byte:02x}" for byte in text.encode())
    assert decode_name("id", encoded.encode()) == text


def test_it_is_decoded_once():
    """What was encoded twice is still encoded."""
    assert decode_name("id", b"%252e") == "%2e"


@pytest.mark.parametrize("raw", [b"%", b"a%2", b"%zz", b"%%41", b"%u0041", b"%+1"])
def test_a_stray_percent(raw):
    """There is one spelling of a percent sign, `%25`."""
    with pytest.raises(InvalidName, match="two hexadecimal digits"):
        decode_name("id", raw)


@pytest.mark.parametrize("raw", [b"%ff", b"%c3", b"%c0%ae", b"%ed%a0%80", b"\xff"])
def test_what_is_not_utf8(raw):
    """Overlong forms and surrogates too."""
    with pytest.raises(InvalidName, match="not UTF-8"):
        decode_name("id", raw)
