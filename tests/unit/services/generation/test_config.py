"""The configuration of the generation service: a key that was renamed is read under its old name for one release."""

from __future__ import annotations

import logging

import pytest
from pydantic import ValidationError

from services.generation.config import EngineConfig


def test_reserved_rows_are_read_under_their_old_name_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert EngineConfig.model_validate({"guest_rows": 3, "max_batch": 8}).reserved_rows == 3
    assert "guest_rows is the old name of engine.reserved_rows" in caplog.text


def test_the_new_name_is_read_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert EngineConfig.model_validate({"reserved_rows": 3}).reserved_rows == 3
    assert not caplog.text


def test_both_names_together_are_an_error() -> None:
    with pytest.raises(ValidationError, match="remove guest_rows"):
        EngineConfig.model_validate({"guest_rows": 3, "reserved_rows": 3})


def test_the_range_holds_under_the_old_name_too() -> None:
    with pytest.raises(ValidationError, match="reserved_rows"):
        EngineConfig.model_validate({"guest_rows": -1})
