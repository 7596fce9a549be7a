"""Every kind of decoder, tiny and random, says through our engine what it says through transformers alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from meshgate.runtime.config import ConfigError
from services.generation.model import decoder_kinds
from tests.kinds import page
from tests.kinds.conftest import Tally
from tests.support.fixtures.engine_parity import hold
from tests.tinymodels import kinds as tiny

OTHERS = sorted(set(tiny.KINDS) - decoder_kinds.SERVED - {"gpt-sw3"})
"""gpt-sw3 is GPT-2 by another name."""


@pytest.mark.parametrize("kind", sorted(decoder_kinds.SERVED))
def test_it_says_what_transformers_says(kind: str, tally: Tally) -> None:
    hold(tiny.build(kind))
    tally("generation, decoders", kind, True)


@pytest.mark.parametrize("kind", OTHERS)
def test_any_other_kind_is_refused_by_its_name(kind: str, tally: Tally) -> None:
    with pytest.raises(ConfigError, match=rf"^models\.1\.source: .*the kind {kind} "):
        decoder_kinds.check(SimpleNamespace(model_type=kind), "models.1", Path("here"))
    tally("generation, decoders", kind, False)


def test_the_page_of_kinds_is_fresh() -> None:
    """`python -m tests.kinds.page` writes it anew."""
    assert page.PLACE.read_text(encoding="utf-8") == page.text()
