"""Every kind of encoder, classifier and tagger, held against transformers: alone, in pairs, and in a batch of others.

A kind that is not answered for as transformers does has to be refused when it is loaded, in one line with its section
and its kind.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from meshgate.runtime.config import ConfigError
from services.classification.config import ClassifierConfig, EngineConfig
from services.classification.model import loading
from services.embedding import model
from services.embedding.config import ModelConfig
from services.encoders.encoder import first_batches
from services.text.preparing import whole
from services.text.tokens import Cut
from tests.kinds import encoder_page as page
from tests.kinds import kinds
from tests.kinds.conftest import Tally

Rows = list[torch.Tensor]
_NEAR = 2e-3
_FOUND: dict[str, dict[str, str]] = defaultdict(dict)


@pytest.mark.parametrize(("number", "kind"), enumerate(kinds.ENCODERS), ids=kinds.ENCODERS)
def test_an_encoder(number: int, kind: str, tmp_path: Path, tally: Tally) -> None:
    def load() -> Callable[..., Rows]:
        loaded = model.load(ModelConfig(source=str(tmp_path), name="m", dtype="float32", device="cpu"), "models.3")
        loaded.warm_up()
        return lambda texts: loaded.encoder.states(loaded.tokeniser.read(texts, Cut.REFUSE, "texts"))

    held("encoder", kind, number, tmp_path, load, tally)


@pytest.mark.parametrize(("number", "kind"), enumerate(kinds.CLASSIFIERS), ids=kinds.CLASSIFIERS)
def test_a_classifier(number: int, kind: str, tmp_path: Path, tally: Tally) -> None:
    held("classifier", kind, number, tmp_path, lambda: classifier(tmp_path), tally)


@pytest.mark.parametrize(("number", "kind"), enumerate(kinds.TAGGERS), ids=kinds.TAGGERS)
def test_a_tagger(number: int, kind: str, tmp_path: Path, tally: Tally) -> None:
    held("tagger", kind, number, tmp_path, lambda: classifier(tmp_path), tally)


def classifier(folder: Path) -> Callable[..., Rows]:
    engine = EngineConfig(device="cpu", dtype="float32")
    loaded = loading.load_classifier(ClassifierConfig(source=str(folder), name="m"), engine, "models.3")
    for batch in first_batches(loaded.tokeniser, compiled=False):
        loaded.rows(batch)

    def answer(texts: list[str], pairs: list[str] | None = None) -> Rows:
        tokens = whole(loaded.tokeniser.steps(texts, pairs, Cut.REFUSE, "texts"))
        return [torch.from_numpy(np.asarray(row)) for row in loaded.rows(tokens)]

    return answer


def held(
    head: str, kind: str, number: int, folder: Path, load: Callable[[], Callable[..., Rows]], tally: Tally
) -> None:
    """One kind against transformers."""
    try:
        module, tokeniser = kinds.saved(folder, kind, number, head)
    except Exception as error:  # transformers can't make it small, or lacks a package for it
        _FOUND[head][kind] = page.UNMADE
        pytest.skip(f"transformers does not make it: {type(error).__name__}")
    try:
        answer = load()
    except ConfigError as refused:
        said = str(refused)
        assert said.startswith("models.3.source: ")
        assert kind in said
        assert "\n" not in said
        _FOUND[head][kind] = said.partition("is not served: ")[2] or said.partition(": ")[2]
        tally(head, kind, False)
        return
    texts, pairs = list(kinds.TEXTS), list(kinds.PAIRS)
    same(answer(texts), [kinds.expected(module, tokeniser, text) for text in texts])
    if head == "classifier":
        both = [*zip(texts, pairs, strict=True)]
        same(answer(texts, pairs), [kinds.expected(module, tokeniser, *each) for each in both])
        mixed: list[Any] = [(texts[0],), both[1], (texts[2],), both[3]]
        wanted = [kinds.expected(module, tokeniser, *each) for each in mixed]
        same(answer(texts, ["", pairs[1], "", pairs[3]]), wanted)
    _FOUND[head][kind] = page.SERVED
    tally(head, kind, True)


def same(made: Rows, wanted: Rows) -> None:
    """Equal but for rounding, and not all alike."""
    for one, other in zip(made, wanted, strict=True):
        assert one.shape == other.shape
        assert float((one - other).abs().max()) <= _NEAR * float(other.abs().max()) + 1e-5


def test_the_page_says_what_was_found() -> None:
    whole = {"encoder": kinds.ENCODERS, "classifier": kinds.CLASSIFIERS, "tagger": kinds.TAGGERS}
    if any(set(_FOUND[sort]) != set(names) for sort, names in whole.items()):
        pytest.skip("not every kind has run, or one has failed")
    wanted = page.settled(_FOUND)
    assert page.PAGE.read_text(encoding="utf-8") == wanted
