"""Markers of control tokens in texts, pairs and labels are text, with every family of tokenisers."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.classification.model.entailment import Pairs
from services.text import characters, load_tokeniser
from services.text.preparing import whole
from services.text.tokens import Cut, Tokeniser
from services.weights import quality
from tests.kinds import tokenisers

CONTROL = {0, 1, 2, 4}
MARKERS = [word for number, word in enumerate(tokenisers.SPECIAL) if number in CONTROL]
AROUND = ("{}", "a{}b", "a {} b", "{0}{0}", "wörld {0}\n{0}")


@pytest.fixture(scope="module", params=tokenisers.FAMILIES)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Tokeniser]]:
    """transformers' own, and ours, which went through a pipe on its way."""
    folder: Path = tmp_path_factory.mktemp("tokeniser")
    tokenisers.save(tokenisers.trained(request.param), folder)
    plain, backend = load_tokeniser.load(folder, "model")
    yield plain, Tokeniser(pickle.loads(pickle.dumps(backend)), 128)


def test_ordinary_text_has_the_ids_of_transformers(both: tuple[Any, Tokeniser]) -> None:
    plain, ours = both
    texts = [*quality.texts()[:40], "meshgate", "a meshgate, two meshgates", "Hello [world] <b> /s", "北京 é"]
    ids = [tokens.ids for tokens in ours.read(texts, Cut.REFUSE, "texts")]
    assert ids == [plain(text)["input_ids"] for text in texts]


@pytest.mark.parametrize("marker", MARKERS)
def test_a_marker_in_a_text_is_text(both: tuple[Any, Tokeniser], marker: str) -> None:
    _, ours = both
    for tokens in ours.read([each.format(marker) for each in AROUND], Cut.REFUSE, "texts"):
        assert (tokens.ids[0], tokens.ids[-1]) == (0, 2)
        assert CONTROL.isdisjoint(tokens.ids[1:-1])
        assert len(tokens.ids) > 3


@pytest.mark.parametrize("marker", MARKERS)
def test_a_marker_splits_no_pair(both: tuple[Any, Tokeniser], marker: str) -> None:
    _, ours = both
    texts = [each.format(marker) for each in AROUND]
    paired = [*whole(ours.steps(texts, texts, Cut.REFUSE, "texts")), *Pairs(ours, texts, texts, Cut.REFUSE).each()]
    for tokens in paired:
        assert [number for number in tokens.ids if number in CONTROL] == [0, 2, 2, 2]


def test_tokenisers_of_letters_have_no_markers() -> None:
    for kind in ("canine", "byt5"):
        plain = tokenisers.letters(kind)
        ours = Tokeniser(characters.backend(plain), 128)
        [tokens] = ours.read(["a</s><pad>[SEP]é 北"], Cut.REFUSE, "texts")
        [pair] = whole(ours.steps(["aé"], ["北京"], Cut.REFUSE, "texts"))
        assert len(tokens.ids) > 15
        assert pair.ids == plain("aé", "北京")["input_ids"]
        assert [each.ids for each in ours.read(["aé", "北 京"], Cut.REFUSE, "")] == plain(["aé", "北 京"])["input_ids"]
