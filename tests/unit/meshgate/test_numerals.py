"""Numbers as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgate.numerals import written


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1_048_576, "1,048,576"),
        (0.5, "0.5"),
        (1e-6, "0.000001"),
        (7, "7"),
        (2.0, "2"),
        (-1.5, "-1.5"),
        (float("inf"), "inf"),
    ],
)
def test_they_have_commas_and_no_exponent(value: float, text: str) -> None:
    assert written(value) == text


@given(st.integers(-(10**18), 10**18))
def test_a_whole_number_is_itself_again(value: int) -> None:
    assert int(written(value).replace(",", "")) == value
