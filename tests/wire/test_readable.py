"""What every reader can take: nesting and numbers, told exactly, whatever stands inside strings."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_swarm.wire.readable import MAX_DEPTH, why_unreadable

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('[]{}"\\eE1 '),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}"\\e', max_size=3), inner, max_size=3),
    max_leaves=20,
)


@pytest.mark.parametrize("number", ["1e309", "-1e309", "1E+309", "9" * 309, "1" + "0" * 309 + ".5", "9" * 250 + "e99"])
def test_a_number_beyond_a_double(number):
    """However it is written, and wherever it stands."""
    for text in (number, f"[1,{number}]", f'{{"a":{number}}}'):
        assert why_unreadable(text) == "a number is too large: it does not fit a double"


@pytest.mark.parametrize("text", ["1e308", "-1e308", "9" * 308, "1e-999", "0." + "0" * 500 + "1", "1e0003"])
def test_a_number_that_fits(text):
    """Long is not large, and what is too small is 0."""
    assert why_unreadable(text) is None


@pytest.mark.parametrize("text", ['"1e999"', '"' + "9" * 500 + '"', '["e999","E+400"]', '{"1e999":1}'])
def test_numbers_in_strings_are_text(text):
    """They are no numbers."""
    assert why_unreadable(text) is None


@given(
    st.lists(
        st.builds(
            "{}{}{}{}".format,
            st.sampled_from(["", "-"]),
            st.sampled_from(["0", "7", "9" * 199, "9" * 200, "1" + "0" * 250, "9" * 308, "9" * 309]),
            st.sampled_from(["", ".5", "." + "9" * 400]),
            st.sampled_from(
                ["", "e5", "e99", "E+58", "e-400", "e308", "E309", "e+0001", "e" + "0" * 250 + "1", "e-" + "9" * 250]
            ),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_numbers_are_judged_as_floats_are(numbers):
    """However they are written and combined."""
    too_large = any(abs(float(number)) == float("inf") for number in numbers)
    assert (why_unreadable(f"[{','.join(numbers)}]") is not None) == too_large


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[{"[":', "}]")])
def test_nesting_has_a_limit(opening, closing):
    """At it, and one beyond; brackets in strings do not count."""
    levels = MAX_DEPTH // (2 if len(closing) == 2 else 1)
    assert why_unreadable(opening * levels + "1" + closing * levels) is None
    deeper = opening * levels + "[1]" + closing * levels
    assert why_unreadable(deeper) == f"the JSON is nested too deeply: at most {MAX_DEPTH} levels"


@given(VALUES)
def test_whatever_is_ordinary_passes(value):
    """Also with any number of brackets and quotes in strings, side by side."""
    text = json.dumps(value)
    assert why_unreadable(text) is None
    assert why_unreadable(json.dumps([value] * 200)) is None
    assert why_unreadable("[" * MAX_DEPTH + text + "]" * MAX_DEPTH) is None or isinstance(value, list | dict)
