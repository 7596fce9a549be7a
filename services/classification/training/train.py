"""Fine-tunes every encoder layer of MiniLM, with the embeddings frozen, on soft three-way labels.

It does so in runs of different length and rate, each from the base, and averages their weights: runs that start alike
end near enough for that, and the average errs less than either and runs at the price of one ("model soup").

The loss is cross-entropy against `data.soft_label`: the raters' own uncertainty regularises better than hard labels,
and it keeps the order negative < neutral < positive, which a plain three-class loss knows nothing of.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from services.classification.model.sentiment import SentimentModel
from services.classification.training.data import SEED, Rating, soft_label

WINDOW = 50  # batches: texts are sorted by length inside a window, so that order stays random between windows


@dataclass(frozen=True)
class Run:
    """One training from the base: passes over the data, and the encoder's highest learning rate."""

    epochs: int
    rate: float


@dataclass(frozen=True)
class Recipe:
    """What decides the result besides the data."""

    runs: tuple[Run, ...] = (Run(2, 1e-4), Run(3, 1.5e-4))
    batch: int = 32
    head_rate: float = 1e-3
    warm_up: float = 0.06  # of all steps
    decay: float = 0.01
    spread: float = 0.3  # standard error assumed of a mean rating
    max_tokens: int = 96  # longer texts are cut; 1 in 2,000 is
    seed: int = SEED


@dataclass(frozen=True)
class Batch:
    """Token ids and mask, int64 [batch, length], and target probabilities [batch, classes]."""

    input_ids: Tensor
    attention_mask: Tensor
    target: Tensor


def batches(
    ratings: Sequence[Rating], tokenizer: PreTrainedTokenizerBase, recipe: Recipe, epoch: int
) -> Iterator[Batch]:
    """One epoch in an order fixed by seed and epoch; texts of like length share a batch, which cuts padding."""
    order = random.Random(recipe.seed * 1000 + epoch)  # noqa: S311 - an order, not a secret
    shuffled = list(ratings)
    order.shuffle(shuffled)
    lots: list[Sequence[Rating]] = []
    for start in range(0, len(shuffled), recipe.batch * WINDOW):
        window = sorted(shuffled[start : start + recipe.batch * WINDOW], key=lambda rating: len(rating.text))
        lots += [window[i : i + recipe.batch] for i in range(0, len(window), recipe.batch)]
    order.shuffle(lots)
    return (collate(lot, tokenizer, recipe) for lot in lots)


def collate(lot: Sequence[Rating], tokenizer: PreTrainedTokenizerBase, recipe: Recipe) -> Batch:
    """Tokenise and pad to the longest text of the lot."""
    texts = [rating.text for rating in lot]
    tokens = tokenizer(texts, padding=True, truncation=True, max_length=recipe.max_tokens, return_tensors="pt")
    target = torch.tensor([soft_label(rating.mean, recipe.spread) for rating in lot])
    return Batch(tokens["input_ids"], tokens["attention_mask"], target)


def step_count(ratings: Sequence[Rating], recipe: Recipe) -> int:
    """How many optimiser steps all runs take together."""
    return sum(_steps(ratings, recipe, run) for run in recipe.runs)


def _steps(ratings: Sequence[Rating], recipe: Recipe, run: Run) -> int:
    return run.epochs * -(-len(ratings) // recipe.batch)


def train(
    build: Callable[[], SentimentModel],
    ratings: Sequence[Rating],
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    on_step: Callable[[float], None],
) -> SentimentModel:
    """The average of the recipe's runs, each on a model fresh from `build`; `on_step` hears each step's loss."""
    models = []
    for run in recipe.runs:
        torch.manual_seed(recipe.seed)
        models.append(build())
        fine_tune(models[-1], ratings, tokenizer, recipe, run, on_step)
    return average(models)


@torch.no_grad()
def average(models: Sequence[SentimentModel]) -> SentimentModel:
    """The first of `models`, its parameters replaced by the mean over all."""
    for same in zip(*(model.parameters() for model in models), strict=True):
        same[0].copy_(torch.stack(same).mean(0))
    return models[0]


def fine_tune(
    model: SentimentModel,
    ratings: Sequence[Rating],
    tokenizer: PreTrainedTokenizerBase,
    recipe: Recipe,
    run: Run,
    on_step: Callable[[float], None],
) -> None:
    """Train `model` in place on the CPU, once."""
    model.train()
    model.encoder.embeddings.requires_grad_(False)
    optimizer = _optimizer(model, recipe, run)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _ramp(_steps(ratings, recipe, run), recipe.warm_up))
    fast = bf16_is_faster()
    for epoch in range(run.epochs):
        for batch in batches(ratings, tokenizer, recipe, epoch):
            with torch.autocast("cpu", torch.bfloat16, enabled=fast):
                logits = model(batch.input_ids, batch.attention_mask)
            loss = nn.functional.cross_entropy(logits.float(), batch.target)
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            on_step(loss.item())


def _optimizer(model: SentimentModel, recipe: Recipe, run: Run) -> torch.optim.Optimizer:
    encoder = [parameter for parameter in model.encoder.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in encoder if p.ndim > 1], "lr": run.rate, "weight_decay": recipe.decay},
        {"params": [p for p in encoder if p.ndim == 1], "lr": run.rate, "weight_decay": 0.0},
        {"params": list(model.head.parameters()), "lr": recipe.head_rate, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups)


def _ramp(steps: int, warm_up: float) -> Callable[[int], float]:
    """Factor on the learning rate: linear from 0 to 1 over the warm-up, then linear to 0 at the last step."""
    rise = max(1, round(steps * warm_up))
    return lambda step: min((step + 1) / rise, max(0.0, (steps - step) / (steps - rise + 1)))


def bf16_is_faster(size: int = 384, tries: int = 5) -> bool:
    """Whether this CPU multiplies bfloat16 natively. Without the instructions it is 20 times slower, so we measure."""
    return _seconds(torch.bfloat16, size, tries) < _seconds(torch.float32, size, tries)


def _seconds(dtype: torch.dtype, size: int, tries: int) -> float:
    matrix = torch.ones(size, size, dtype=dtype)
    matrix @ matrix  # the first call compiles a kernel
    started = time.perf_counter()
    for _ in range(tries):
        matrix @ matrix
    return time.perf_counter() - started


def tokenizer_of(base_dir: Path) -> PreTrainedTokenizerBase:
    """The tokenizer that comes with the base."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(base_dir, local_files_only=True)
    return tokenizer
