"""The configuration reference has every key of every process, and each says what it means."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from meshgate.runtime.config.schema import place_of, sections_of
from tools.reference import configuration


def named(model: type[BaseModel]) -> set[str]:
    """Every key of a configuration and of the sections in it."""
    inner = [each for field in model.model_fields.values() for each in sections_of(place_of(field))]
    return set(model.model_fields).union(*(named(each) for each in inner))


@pytest.mark.parametrize("name", configuration.KINDS)
def test_every_key_is_in_it_and_says_what_it_means(name: str) -> None:
    page = configuration.pages()[f"configuration-{name}.md"]
    for key in named(configuration.KINDS[name]):
        assert f"`{key}` |" in page or f"{key}]" in page or f"{key}." in page, key
    mute = [line for line in page.splitlines() if line.startswith("| <a") and line.endswith("| |")]
    assert mute == []
