"""The shipped sentiment classifier: whole, small, refused when altered, and as good as its card says."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from services.classification.model.sentiment import (
    BASE,
    CONFIG,
    WEIGHTS,
    AdapterError,
    Sentiment,
    installed_base,
    load_sentiment,
    shipped_dir,
    unpack,
)
from services.classification.training import data, evaluate
from services.classification.training.compress import pack

OURS = [
    ("I love this, it works perfectly and everyone is happy.", "positive"),
    ("What a wonderful evening, thank you so much!", "positive"),
    ("The film is a delight from the first scene to the last.", "positive"),
    ("Easy to set up, and the picture quality is excellent.", "positive"),
    ("not bad at all, I would buy it again :)", "positive"),
    ("This is the worst service I have ever had.", "negative"),
    ("It broke after two days and support never answered.", "negative"),
    ("A dull, lifeless mess of a movie.", "negative"),
    ("I am so sad and tired today :(", "negative"),
    ("The war has killed thousands of innocent people.", "negative"),
    ("The battery is not good.", "negative"),
    ("The meeting starts at three o'clock on Tuesday.", "neutral"),
    ("The box contains a cable and a manual.", "neutral"),
    ("He moved from Boston to Chicago in 1998.", "neutral"),
]


@pytest.fixture(scope="module")
def sentiment() -> Sentiment:
    return load_sentiment(installed_base(), shipped_dir())


def test_what_is_shipped_is_whole_small_and_labelled(sentiment: Sentiment) -> None:
    weights = (shipped_dir() / WEIGHTS).read_bytes()
    config = json.loads((shipped_dir() / CONFIG).read_text())
    assert hashlib.sha256(weights).hexdigest() == config["weights_sha256"]
    assert sum(file.stat().st_size for file in shipped_dir().iterdir()) <= 8_000_000
    assert sentiment.labels == tuple(config["labels"]) == data.LABELS
    assert not sentiment.model.training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_plain_sentences_are_classified_right(dtype: torch.dtype) -> None:
    loaded = load_sentiment(installed_base(), shipped_dir(), dtype)
    tokenizer = AutoTokenizer.from_pretrained(installed_base())
    guesses = evaluate.predict(loaded, tokenizer, [text for text, _ in OURS]).argmax(1)
    wrong = [
        (text, data.LABELS[guess])
        for (text, label), guess in zip(OURS, guesses, strict=True)
        if data.LABELS[guess] != label
    ]
    assert not wrong


def test_padding_changes_no_answer(sentiment: Sentiment) -> None:
    tokenizer = AutoTokenizer.from_pretrained(installed_base())
    short, long = OURS[1][0], " ".join(text for text, _ in OURS)
    alone = evaluate.predict(sentiment, tokenizer, [short])[0]
    padded = evaluate.predict(sentiment, tokenizer, [short, long])[0]
    assert torch.allclose(alone, padded, atol=1e-4)


def test_packing_loses_at_most_half_a_step_and_keeps_zeros() -> None:
    change = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    change[3] = 0.0
    packed, scale = pack(change)
    assert packed.shape == (6, 5)
    lost = (unpack(packed, scale) - change).abs()
    assert (lost <= scale.float().unsqueeze(1) * 0.51).all()
    assert not lost[3].any()


@pytest.mark.parametrize("altered", [WEIGHTS, BASE])
def test_altered_weights_or_another_base_are_refused(altered: str, tmp_path: Path) -> None:
    for directory in (installed_base(), shipped_dir()):
        shutil.copytree(directory, tmp_path / directory.name)
    path = next(tmp_path.rglob(altered))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(AdapterError, match=altered):
        load_sentiment(tmp_path / installed_base().name, tmp_path / shipped_dir().name)


@pytest.mark.timeout(600)  # half a minute on two idle cores
def test_the_held_out_figures_are_reached() -> None:
    sdist = Path(os.environ.get("MESHGATE_SENTIMENT_CACHE", "build/sentiment")) / data.SDIST
    if not sdist.exists():
        pytest.skip(f"{sdist} is not here: `make train-sentiment` fetches it, MESHGATE_SENTIMENT_CACHE says where")
    held_out = data.split(data.read_ratings(sdist)).held_out
    found = evaluate.measure(installed_base(), shipped_dir(), held_out)["all"]
    assert found.binary >= 0.89
    assert found.three_way >= 0.78
