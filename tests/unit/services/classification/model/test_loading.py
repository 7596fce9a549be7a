"""What goes wrong alone, and what stops the start with the name of the file."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from meshgate.errors import Internal
from meshgate.runtime.config import ConfigError
from services.classification.config import SHIPPED, ClassifierConfig, EngineConfig
from services.classification.model import loading, sentiment
from services.classification.model.classifier import Classifier
from services.classification.model_proxy import Scores
from services.text.tokens import Tokens
from tests.support.fixtures.classification_service import build, classify, configured, running


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models"))


async def test_an_input_that_the_model_cannot_do_fails_alone(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared: list[int] = []
    whole = Classifier.rows

    def picky(self: Classifier, batch: Sequence[Tokens]) -> list[Scores]:
        if any(tokens.length == 9 for tokens in batch):
            shared.append(len(batch))
            raise ValueError("not this one")
        return whole(self, batch)

    async with running(configured(models, tmp_path)) as servicer:
        alone = await classify(servicer, "colour", "good")
        monkeypatch.setattr(Classifier, "rows", picky)
        texts = ("good", "badness", *["good"] * 8)  # one letter a token, and two special ones
        outcomes = await asyncio.gather(*(classify(servicer, "colour", text) for text in texts), return_exceptions=True)
        assert max(shared) > 1  # it had batch-mates
        assert isinstance(outcomes[1], Internal)
        assert "not this one" not in str(outcomes[1])
        scores = [each.score for each in outcomes[0].results[0].labels]  # type: ignore[union-attr]  # not an error
        assert scores == pytest.approx([each.score for each in alone.results[0].labels], abs=1e-6)
        assert all(outcome == outcomes[0] for outcome in outcomes[2:])
        assert (await classify(servicer, "colour", "good")).results


def damaged(content: str | None, **changes: Any) -> str:
    """The sentiment model's configuration, changed; a None leaves the key out."""
    if content is not None:
        return content
    facts = json.loads((sentiment.shipped_dir() / sentiment.CONFIG).read_text()) | changes
    return json.dumps({key: value for key, value in facts.items() if value is not None})


@pytest.mark.parametrize(
    "content",
    [
        damaged(""),
        damaged("{"),
        damaged("[]"),
        damaged("{}"),
        damaged(None, base_sha256=None),
        damaged(None, weights_sha256=None),
        damaged(None, labels=None),
        damaged(None, labels="positive"),
        damaged(None, max_tokens="many"),
    ],
)
def test_a_damaged_configuration_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    shutil.copytree(sentiment.shipped_dir(), tmp_path / "sentiment")
    monkeypatch.setattr(sentiment, "shipped_dir", lambda: tmp_path / "sentiment")
    (tmp_path / "sentiment" / sentiment.CONFIG).write_text(content)
    with pytest.raises(ConfigError, match=str(tmp_path / "sentiment" / sentiment.CONFIG)):
        loading.load_classifier(ClassifierConfig(source=SHIPPED, name="sentiment"), EngineConfig(device="cpu"))


def test_weights_that_are_not_those_it_was_built_with_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(sentiment.shipped_dir(), tmp_path / "sentiment")
    monkeypatch.setattr(sentiment, "shipped_dir", lambda: tmp_path / "sentiment")
    (tmp_path / "sentiment" / sentiment.WEIGHTS).write_bytes(b"")
    with pytest.raises(ConfigError, match=sentiment.WEIGHTS):
        loading.load_classifier(ClassifierConfig(source=SHIPPED, name="sentiment"), EngineConfig(device="cpu"))


@pytest.mark.parametrize(
    ("name", "content"), [("config.json", b"{"), ("model.safetensors", b"x" * 64), ("model.safetensors", None)]
)
def test_a_damaged_checkpoint_stops_the_start(models: Path, tmp_path: Path, name: str, content: bytes | None) -> None:
    folder = tmp_path / "classifier"
    shutil.copytree(models / "classifier", folder)
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    with pytest.raises(ConfigError, match=str(folder)):
        loading.load_classifier(ClassifierConfig(source=str(folder), name="colour"), EngineConfig(device="cpu"))
