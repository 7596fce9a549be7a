"""The tiny Llama through our engine says exactly what transformers' own generate says."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config

from services.generation.engine.interface import Job, Priority, Sampling
from services.generation.model.causal_model import CausalModel, usable_context
from services.generation.model.prefix_cache import BLOCK, PrefixCache
from services.generation.scheduler.scheduler import Scheduler
from services.generation.scheduler.sequence import GenerationRequest
from services.generation.text.detokenise import TokenBytes
from tests.support.fixtures.generation import Heard, Letters
from tests.tinymodels.llama import CONTEXT, VOCABULARY, build_tiny_llama

GREEDY = Sampling(temperature=0.0)


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory: Path = build_tiny_llama(tmp_path_factory.mktemp("tiny"))
    loaded: Any = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="sdpa")
    return loaded.eval()


def prompts(count: int) -> list[list[int]]:
    chance = random.Random(5)
    return [[chance.randrange(3, VOCABULARY) for _ in range(chance.randrange(1, 150))] for _ in range(count)]


def reference(module: Any, prompt: list[int], most: int) -> list[int]:
    ids = torch.tensor([prompt])
    made = module.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=most, do_sample=False)
    tokens: list[int] = made[0, len(prompt) :].tolist()
    return tokens


def run(module: Any, jobs: list[Job], rows: int, prefill_tokens: int) -> list[Heard]:
    model = CausalModel(module, rows, CONTEXT)
    scheduler = Scheduler(model, TokenBytes(Letters(), VOCABULARY), model.end_tokens, prefill_tokens)
    heard = [Heard() for _ in jobs]
    for job, one in zip(jobs, heard, strict=True):
        scheduler.add(GenerationRequest(job, one, 0.0))
    while not scheduler.idle():
        scheduler.step()
    return heard


@pytest.mark.parametrize(("rows", "prefill_tokens"), [(8, 256), (3, 7), (1, 32)])
def test_twenty_prompts_at_once_equal_generate(module: Any, rows: int, prefill_tokens: int) -> None:
    asked = prompts(20)
    heard = run(module, [Job(prompt, 40, GREEDY) for prompt in asked], rows, prefill_tokens)
    assert [one.tokens[0] for one in heard] == [reference(module, prompt, 40) for prompt in asked]


def test_prompts_in_reading_at_once_equal_generate(module: Any) -> None:
    asked = prompts(12)
    jobs = [
        Job(
            prompt, 20, GREEDY, candidates=1 + place % 2, tenant=f"{place % 4}", priority=list(Priority)[place % 3 // 2]
        )
        for place, prompt in enumerate(asked)
    ]
    heard = run(module, jobs, 5, 16)
    for one, job in zip(heard, jobs, strict=True):
        assert one.tokens == dict.fromkeys(range(job.candidates), reference(module, list(job.prompt), 20))


def test_a_shared_beginning_changes_no_output(module: Any) -> None:
    beginning, *rest = prompts(6)
    while len(beginning) < 2 * BLOCK + 5:
        beginning += beginning
    asked = [beginning[: 2 * BLOCK + 5] + each for each in rest]
    model = CausalModel(module, 3, CONTEXT)
    model.warm_up()
    scheduler = Scheduler(
        model, TokenBytes(Letters(), VOCABULARY), model.end_tokens, 16, prefixes=PrefixCache(model, 1_000)
    )
    for place, prompt in enumerate(asked):
        heard = Heard()
        request = GenerationRequest(Job(prompt, 20, GREEDY, tenant="a"), heard, 0.0)
        scheduler.add(request)
        while not scheduler.idle():
            scheduler.step()
        assert heard.tokens[0] == reference(module, prompt, 20)
        assert request.cached == (2 * BLOCK if place else 0)


def test_calls_of_all_kinds_in_one_batch_say_what_each_says_alone(module: Any) -> None:
    rules = [
        Sampling(seed=1),
        Sampling(seed=1, temperature=0.5),
        Sampling(seed=2, top_p=0.7),
        Sampling(seed=3, top_k=20, min_p=0.02),
        Sampling(seed=4, repetition_penalty=1.3),
        GREEDY,
        Sampling(temperature=0.0, repetition_penalty=1.3),
        Sampling(seed=5, temperature=0.8, top_p=0.9, repetition_penalty=1.1),
    ]
    jobs = [Job(prompt, 30, each) for prompt, each in zip(prompts(len(rules)), rules, strict=True)]
    together = run(module, jobs, len(jobs), 64)
    assert [one.tokens[0] for one in together] == [run(module, [job], 1, 64)[0].tokens[0] for job in jobs]


def test_candidates_share_a_prompt_and_not_their_output(module: Any) -> None:
    (prompt,) = prompts(1)
    (alone,) = run(module, [Job(prompt, 30, Sampling(seed=12))], 4, 64)
    (three,) = run(module, [Job(prompt, 30, Sampling(seed=10), candidates=3)], 2, 64)
    assert three.tokens[2] == alone.tokens[0]
    assert len({tuple(tokens) for tokens in three.tokens.values()}) == 3


def test_output_up_to_the_last_place_of_the_context(module: Any) -> None:
    prompt = prompts(1)[0]
    (heard,) = run(module, [Job(prompt, CONTEXT, GREEDY)], 2, 64)
    assert heard.tokens[0] == reference(module, prompt, CONTEXT - len(prompt))


def test_the_context_is_what_the_model_was_trained_for() -> None:
    assert usable_context(LlamaConfig(max_position_embeddings=128), 2048) == 128
    assert usable_context(LlamaConfig(max_position_embeddings=4096), 2048) == 2048
    assert usable_context(MistralConfig(max_position_embeddings=4096, sliding_window=1024), 2048) == 1024
    assert usable_context(MistralConfig(max_position_embeddings=4096, sliding_window=None), 2048) == 2048
    assert usable_context(Qwen2Config(max_position_embeddings=4096, sliding_window=1024), 2048) == 2048, "it uses none"
