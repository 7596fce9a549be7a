"""The figures: what a classifier gets right of a set of human ratings, and what it confuses.

- three-way: of all texts, those whose most probable label is the raters';
- binary: of the texts that the raters found positive or negative, those where that side is the likelier of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from services.classification.model.sentiment import Sentiment, load_sentiment
from services.classification.training.data import LABELS, NEGATIVE, NEUTRAL, POSITIVE, Rating, label_of

BATCH = 64


@dataclass(frozen=True)
class Figures:
    """Accuracies (0..1), the sizes that they are over, and counts by [raters' label][predicted label]."""

    texts: int
    polar: int
    three_way: float
    binary: float
    confusion: tuple[tuple[int, ...], ...]


def predict(
    sentiment: Sentiment,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    on_batch: Callable[[int], None] = lambda size: None,
) -> Tensor:
    """Probabilities [len(texts), 3] in the order of `texts`; `on_batch` hears how many texts each batch held."""
    result = torch.empty(len(texts), len(sentiment.labels))
    order = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        tokens = tokenizer(
            [texts[index] for index in chosen],
            padding=True,
            truncation=True,
            max_length=sentiment.max_tokens,
            return_tensors="pt",
        )
        with torch.inference_mode():
            logits = sentiment.model(tokens["input_ids"], tokens["attention_mask"])
        result[chosen] = logits.float().softmax(1)
        on_batch(len(chosen))
    return result


def figures(ratings: Sequence[Rating], probabilities: Tensor) -> Figures:
    """Compare probabilities [len(ratings), 3] with the raters; raises ValueError when none is positive or negative."""
    truth = torch.tensor([label_of(rating.mean) for rating in ratings])
    guess = probabilities.argmax(1)
    polar = truth != NEUTRAL
    if not polar.any():
        raise ValueError("no rating is positive or negative")
    leaning = torch.where(probabilities[:, POSITIVE] > probabilities[:, NEGATIVE], POSITIVE, NEGATIVE)
    classes = range(len(LABELS))
    confusion = [[int(((truth == t) & (guess == g)).sum()) for g in classes] for t in classes]
    return Figures(
        texts=len(ratings),
        polar=int(polar.sum()),
        three_way=(guess == truth).float().mean().item(),
        binary=(leaning == truth)[polar].float().mean().item(),
        confusion=tuple(map(tuple, confusion)),
    )


def by_source(ratings: Sequence[Rating], probabilities: Tensor) -> dict[str, Figures]:
    """The figures of each source, and of `all` of them."""
    result = {"all": figures(ratings, probabilities)}
    for source in dict.fromkeys(rating.source for rating in ratings):
        rows = [index for index, rating in enumerate(ratings) if rating.source == source]
        result[source] = figures([ratings[row] for row in rows], probabilities[rows])
    return result


def measure(
    base_dir: Path,
    weights_dir: Path,
    ratings: Sequence[Rating],
    on_batch: Callable[[int], None] = lambda size: None,
) -> dict[str, Figures]:
    """The figures, by source, of the weights in `weights_dir`, loaded as the service loads them."""
    sentiment, tokenizer = load_sentiment(base_dir, weights_dir), AutoTokenizer.from_pretrained(base_dir)
    return by_source(ratings, predict(sentiment, tokenizer, [rating.text for rating in ratings], on_batch))
