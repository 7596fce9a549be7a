"""A module held against itself: what it says through our engine, and what it says alone in transformers."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from services.generation.engine.interface import Job, Sampling
from services.generation.model import self_check
from services.generation.model.causal_model import CausalModel, usable_context
from services.generation.model.prefix_cache import BLOCK, Prefixes
from services.generation.scheduler.scheduler import Stepper
from services.generation.scheduler.sequence import Group
from services.generation.text.detokenise import TokenBytes
from tests.generation_doubles import Heard, Letters

GREEDY = Sampling(temperature=0.0)
MOST = 6


def hold(module: Any, wanted: int = 64) -> None:
    """Prompts of other lengths, read in pieces of seven tokens, side by side, the last after a shared beginning; one
    of them runs up to the end of the context.
    """
    context = usable_context(module.config, wanted)
    model = CausalModel(module, 3, context)
    self_check.check(model, "model", Path("tiny"))
    model.warm_up()
    asked = prompts(int(module.config.get_text_config().vocab_size), context)
    assert heard(model, asked) == [alone(module, prompt, min(MOST, context - len(prompt))) for prompt in asked]


def prompts(vocabulary: int, context: int) -> list[list[int]]:
    """The last begins as the first does, as far as a shared beginning goes; the second leaves one place."""
    chance = random.Random(7)
    lengths = (min(BLOCK + 4, context - MOST), context - 1, 3, 17, min(BLOCK + 8, context - MOST))
    made = [[chance.randrange(3, min(vocabulary, 128)) for _ in range(length)] for length in lengths]
    made[-1][:BLOCK] = made[0][:BLOCK]
    return made


def heard(model: CausalModel, asked: list[list[int]]) -> list[list[int]]:
    """What each prompt is answered with."""
    size = max(model.vocabulary_size, 128)
    stepper = Stepper(
        model, TokenBytes(Letters(), size), frozenset(), prefill_tokens=7, prefixes=Prefixes(model, 1_000)
    )
    listeners = [Heard() for _ in asked]
    groups = [Group(Job(each, MOST, GREEDY, tenant="a"), one, 0.0) for each, one in zip(asked, listeners, strict=True)]
    for group in groups[:-1]:
        stepper.add(group)
    finish(stepper)
    stepper.add(groups[-1])
    finish(stepper)
    assert groups[-1].cached == (BLOCK if len(asked[0]) > BLOCK else 0)
    assert not any(each.error for each in listeners)
    return [each.tokens[0] for each in listeners]


def finish(stepper: Stepper) -> None:
    while not stepper.idle():
        stepper.step()


@torch.inference_mode()
def alone(module: Any, prompt: list[int], most: int) -> list[int]:
    """The likeliest tokens after a prompt, each from all that stands before it, without a cache."""
    text = list(prompt)
    for _ in range(most):
        ids = torch.tensor([text])
        logits = module(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits
        text.append(int(logits[0, -1].argmax()))
    return text[len(prompt) :]
