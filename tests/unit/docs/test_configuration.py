"""The configuration reference has every key of every process, and each says what it means."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from meshgate.runtime.config.schema import place_of, sections_of
from tools import fresh_reference


def named(model: type[BaseModel]) -> set[str]:
    """Every key of a configuration and of the sections in it."""
    inner = [each for field in model.model_fields.values() for each in sections_of(place_of(field))]
    return set(model.model_fields).union(*(named(each) for each in inner))


@pytest.mark.parametrize("name", fresh_reference.KINDS)
def test_every_key_is_in_it_and_says_what_it_means(name: str) -> None:
    page = "".join(fresh_reference.sections(fresh_reference.KINDS[name], ""))
    for key in named(fresh_reference.KINDS[name]):
        assert f"| `{key}` |" in page or f"{key}]" in page or f"{key}." in page, key
    mute = [line for line in page.splitlines() if line.startswith("| `") and line.endswith("|  |")]
    assert mute == []


def test_the_committed_page_is_fresh() -> None:
    assert fresh_reference.PAGE.read_text(encoding="utf-8") == fresh_reference.page()
