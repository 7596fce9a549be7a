"""What zero-shot gives with the model that ships, on tickets it was not tuned to; see bench/RESULTS.md."""

from __future__ import annotations

import math

import pytest

from bench import zero_shot
from services.classification.config import ZeroShotConfig


@pytest.fixture(scope="module")
def rows() -> dict[str, zero_shot.Row]:
    return {row.wording: row for row in zero_shot.evaluate()}


def test_most_of_eight_intents_are_told_apart(rows: dict[str, zero_shot.Row]) -> None:
    assert min(row.accuracy for row in rows.values()) > 0.75  # one in eight is chance
    assert rows["a description"].accuracy > rows["the name alone"].accuracy


def test_the_default_scale_is_the_best_calibrated_of_those_measured(rows: dict[str, zero_shot.Row]) -> None:
    losses = rows["a description"].log_loss
    default = ZeroShotConfig.model_validate({}).scale
    assert losses[default] == min(losses.values()) < math.log(8) / 3
