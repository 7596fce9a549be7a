"""What the last batches say of the next ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.batching.latency_model import LatencyModel


def test_before_the_first_batch_nothing_is_said_to_take_long() -> None:
    assert LatencyModel(100).seconds(1000) == 0


@given(st.floats(0, 0.1), st.floats(1e-6, 1e-3))
def test_a_steady_model_is_known_exactly(fixed: float, each: float) -> None:
    pace = LatencyModel(4096)
    for tokens in (64, 512, 4096, 1024, 2048):
        pace.learn(tokens, fixed + each * tokens)
    assert pace.seconds(1000) == pytest.approx(fixed + each * 1000, rel=1e-3, abs=1e-6)
    assert pace.seconds(8 * 4096) == pytest.approx(8 * fixed + each * 8 * 4096, rel=1e-3, abs=1e-6)


def test_small_batches_alone_do_not_make_large_ones_look_slow() -> None:
    pace = LatencyModel(4096)
    for _ in range(100):
        pace.learn(10, 0.010)
    assert pace.seconds(4096) == pytest.approx(0.010)


def test_a_model_that_slows_down_is_found_out() -> None:
    pace = LatencyModel(1000)
    for factor in (1.0, 10.0):
        for tokens in [100, 1000] * 40:
            pace.learn(tokens, factor * tokens / 1000)
    assert pace.seconds(1000) == pytest.approx(10.0, rel=0.05)


@given(st.lists(st.tuples(st.integers(1, 4096), st.floats(0, 10)), min_size=1, max_size=30), st.integers(1, 10**6))
def test_an_estimate_is_never_negative(batches: list[tuple[int, float]], tokens: int) -> None:
    pace = LatencyModel(4096)
    for padded, seconds in batches:
        pace.learn(padded, seconds)
    assert pace.seconds(tokens) >= -1e-6
