"""Event ids as text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_swarm.errors import InvalidPosition
from trio_swarm.journal.event import EventId

numbers = st.integers(0, 2**64 - 1)


@given(numbers, numbers)
def test_round_trip(ms, counter):
    """What is written is read."""
    assert EventId(ms, counter) == EventId.parse(str(EventId(ms, counter)))


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=2))
def test_order(pair):
    """Milliseconds first, then the counter."""
    assert (pair[0] < pair[1]) == (EventId(*pair[0]) < EventId(*pair[1]))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1-",
        "-1",
        "1-2-3",
        "01-2",
        "1-02",
        "1 - 2",
        "1-2\n",
        "+1-2",
        "\N{ARABIC-INDIC DIGIT ONE}-2",
        "1-x",
        f"{2**64}-0",
        f"0-{2**64}",
    ],
)
def test_what_is_no_id(text):
    """Anything else is refused, and never guessed at."""
    with pytest.raises(InvalidPosition, match="is not an event id"):
        EventId.parse(text)
