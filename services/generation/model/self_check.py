"""A check of a model before it serves: prompts in pieces and rows side by side get the scores that transformers gives.

kinds.py has the kinds that are known to. Here each model that is loaded shows it for itself, because a kind's
configurations are many.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from meshgate.runtime.config import ConfigError
from services.generation.model.causal_model import CausalModel

_LENGTHS: Final = (21, 6)
"""Of two texts that run side by side."""
_STEPS: Final = 3
_APART: Final = {torch.float32: 0.01}
_APART_ROUNDED: Final = 0.25
"""How far scores may lie apart, as a part of what they vary by. Formats of sixteen bits round; another model's scores
lie apart by more than 1.
"""


def check(causal: CausalModel, key: str, where: Path) -> None:
    """Raises ConfigError, naming the section `key`, for a model whose scores are not those of transformers alone."""
    module = causal.module
    apart = _apart(module, causal.context)
    if not apart <= _APART.get(module.dtype, _APART_ROUNDED):
        raise ConfigError(
            f"{key}.source: {where}: a {module.config.model_type} model of this configuration gets other scores in a "
            f"batch than alone (apart by {apart:.2g}): it is not served"
        )


@torch.inference_mode()
def _apart(module: Any, context: int) -> float:
    """How far the scores lie apart where that is most; NaN where there is one."""
    lengths = [min(length, context - _STEPS) for length in _LENGTHS]
    vocabulary = int(module.config.get_text_config().vocab_size)
    texts = [_text(length + _STEPS, vocabulary, seed) for seed, length in enumerate(lengths)]
    wanted = [_alone(module, text)[-_STEPS - 1 :] for text in texts]
    found = _together(CausalModel(module, len(texts), context), texts, lengths)
    differences = [_difference(one, other) for one, other in zip(wanted, found, strict=True)]
    return float("nan") if any(each != each for each in differences) else max(differences)


def _text(length: int, vocabulary: int, seed: int) -> list[int]:
    chance = random.Random(seed)  # noqa: S311 - not a secret
    return [chance.randrange(vocabulary) for _ in range(length)]


def _alone(module: Any, text: Sequence[int]) -> Tensor:
    """The scores after each token of a text, [tokens, vocabulary]."""
    ids = torch.tensor([text], device=module.device)
    logits: Tensor = module(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
    return logits[0].float()


def _together(model: CausalModel, texts: Sequence[Sequence[int]], lengths: Sequence[int]) -> list[Tensor]:
    """The same of the last tokens, as they are served: the beginnings in two pieces, the others a step at a time."""
    after = [
        [_in_pieces(model, row, text[:length])] for row, (text, length) in enumerate(zip(texts, lengths, strict=True))
    ]
    for step in range(_STEPS):
        tokens = [text[length + step] for text, length in zip(texts, lengths, strict=True)]
        scores = model.decode(tokens, [length + step for length in lengths])
        for row, each in enumerate(after):
            each.append(scores[row])
    return [torch.stack(each) for each in after]


def _in_pieces(model: CausalModel, row: int, text: Sequence[int]) -> Tensor:
    half = len(text) // 2
    if half:
        model.prefill(row, text[:half], 0)
    return model.prefill(row, text[half:], half)


def _difference(wanted: Tensor, found: Tensor) -> float:
    varies = (wanted - wanted.mean(-1, keepdim=True)).norm()
    return float((wanted - found).norm() / varies.clamp(min=1e-6))
