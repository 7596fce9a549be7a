"""Rows of one batch with adapters of their own: each is what merged weights say, and nothing is left behind."""

from __future__ import annotations

import copy
import random
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from services.generation.adapters.adapter_store import AdapterStore
from services.generation.adapters.lora import LoRA, LoraLoader
from services.generation.adapters.lora_layers import LoraLayers
from services.generation.engine.interface import Job, Sampling
from services.generation.model.causal_model import CausalModel
from services.generation.scheduler.scheduler import Scheduler
from services.generation.scheduler.sequence import GenerationRequest
from services.generation.text.detokenise import TokenBytes
from services.weights import int8, packing
from tests.support.fixtures.generation import Heard, Letters
from tests.tinymodels.llama import CONTEXT, VOCABULARY, build_tiny_llama
from tests.tinymodels.lora import LAYERS, build_lora, merge

GREEDY = Sampling(temperature=0.0)
LAYER = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory: Path = build_tiny_llama(tmp_path_factory.mktemp("tiny"))
    loaded: Any = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="sdpa")
    return loaded.eval()


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adapters") / "acme"


@pytest.fixture(scope="module")
def adapters(module: Any, shelf: Path) -> dict[str, LoRA]:
    """As different as adapters come: all layers; one rank and scale for each layer; half of the layers, by the root."""
    build_lora(shelf / "a", 1)
    build_lora(shelf / "b", 2, ranks={LAYER: 7}, rank_pattern={f"^{LAYER}": 7}, alpha_pattern={"v_proj": 3})
    build_lora(shelf / "c", 3, layers=LAYERS[:3], use_rslora=True, lora_alpha=5, dtype=torch.bfloat16)
    return {name: load(module, shelf, name) for name in "abc"}


def load(module: Any, shelf: Path, name: str) -> LoRA:
    reads = AdapterStore(shelf.parent, None, 1_000_000)
    fitting = LoraLoader(LoraLayers(module).sizes, module.dtype, module.device, rank=8)
    return fitting.fit(reads.read(reads.look(shelf.name, name)))


def prompts(count: int) -> list[list[int]]:
    chance = random.Random(5)
    return [[chance.randrange(3, VOCABULARY) for _ in range(chance.randrange(1, 60))] for _ in range(count)]


def run(module: Any, jobs: list[Job], rows: int = 8) -> list[list[int]]:
    model = CausalModel(module, rows, CONTEXT)
    scheduler = Scheduler(
        model, TokenBytes(Letters(), VOCABULARY), model.end_tokens, prefill_tokens=16, adapter_layers=LoraLayers(module)
    )
    heard = [Heard() for _ in jobs]
    for job, one in zip(jobs, heard, strict=True):
        scheduler.add(GenerationRequest(job, one, 0.0))
    while not scheduler.idle():
        scheduler.step()
    return [one.tokens[0] for one in heard]


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_an_adapter_is_what_merged_weights_are(module: Any, adapters: dict[str, LoRA], shelf: Path, name: str) -> None:
    merged = merge(copy.deepcopy(module), shelf / name)
    plain = [Job(prompt, 30, GREEDY) for prompt in prompts(6)]
    adapted = [Job(prompt, 30, GREEDY, adapter=adapters[name]) for prompt in prompts(6)]
    assert run(module, adapted) == run(merged, plain) != run(module, plain)


@pytest.mark.parametrize("rows", [8, 3])
def test_rows_of_one_batch_are_what_each_is_alone(module: Any, adapters: dict[str, LoRA], rows: int) -> None:
    chosen = [None, adapters["a"], adapters["b"], None, adapters["a"], adapters["c"], adapters["b"], adapters["b"]]
    jobs = [
        Job(prompt, 10 + 7 * (place % 3), GREEDY, adapter=adapter)  # they leave at different times
        for place, (prompt, adapter) in enumerate(zip(prompts(8), chosen, strict=True))
    ]
    alone = [run(module, [job])[0] for job in jobs]
    assert run(module, jobs, rows) == alone
    assert len({tuple(each) for each in alone}) == 8


def test_candidates_of_one_call_have_its_adapter(module: Any, adapters: dict[str, LoRA]) -> None:
    model = CausalModel(module, 2, CONTEXT)
    scheduler = Scheduler(
        model, TokenBytes(Letters(), VOCABULARY), model.end_tokens, 16, adapter_layers=LoraLayers(module)
    )
    heard, job = Heard(), Job(prompts(1)[0], 20, GREEDY, candidates=3, adapter=adapters["a"])
    scheduler.add(GenerationRequest(job, heard, 0.0))
    while not scheduler.idle():
        scheduler.step()
    assert list(heard.tokens.values()) == run(module, [Job(job.prompt, 20, GREEDY, adapter=adapters["a"])]) * 3


def test_the_model_is_its_own_where_no_row_has_an_adapter(module: Any, adapters: dict[str, LoRA]) -> None:
    layers = [module.get_submodule(layer) for layer in LAYERS]
    adapter_layers = LoraLayers(module)
    adapter_layers.select([None, None])
    assert not any("forward" in vars(layer) for layer in layers)
    adapter_layers.select([None, adapters["c"]])
    assert ["forward" in vars(layer) for layer in layers] == [True] * 3 + [False] * 3
    adapter_layers.select([None])
    assert not any("forward" in vars(layer) for layer in layers)
    assert not any(layer._forward_hooks for layer in layers)


def test_an_idle_engine_holds_no_adapter(module: Any, shelf: Path, adapters: dict[str, LoRA]) -> None:
    again = load(module, shelf, "a")
    gone = weakref.ref(again)
    model = CausalModel(module, 2, CONTEXT)
    scheduler = Scheduler(
        model, TokenBytes(Letters(), VOCABULARY), model.end_tokens, 16, adapter_layers=LoraLayers(module)
    )
    scheduler.add(GenerationRequest(Job([5, 6], 3, GREEDY, adapter=again), Heard(), 0.0))
    del again
    while not scheduler.idle():
        scheduler.step()
    assert gone() is None


def test_numbers_of_one_adapter_reach_no_other_row(module: Any, adapters: dict[str, LoRA]) -> None:
    """However large they are: what overflows in one row is nothing to the next."""
    pairs = {layer: pair._replace(a=pair.a * 1e30, b=pair.b * 1e30) for layer, pair in adapters["a"].pairs.items()}
    huge = LoRA(-1, pairs, 0)
    adapter_layers = LoraLayers(module)
    model = CausalModel(module, 3, CONTEXT)
    alone = model.decode([5, 6, 7], [0, 0, 0])
    adapter_layers.select([None, huge, None])
    mixed = model.decode([5, 6, 7], [0, 0, 0])
    adapter_layers.select(())
    assert not mixed[1].isfinite().all()
    assert torch.equal(mixed[0], alone[0])
    assert torch.equal(mixed[2], alone[2])


def test_rows_that_are_not_the_passs_own_are_an_error(module: Any, adapters: dict[str, LoRA]) -> None:
    adapter_layers = LoraLayers(module)
    adapter_layers.select([adapters["a"], None])
    try:
        with pytest.raises(RuntimeError, match="other rows"):
            CausalModel(module, 3, CONTEXT).decode([5, 6, 7], [0, 0, 0])
    finally:
        adapter_layers.select(())


def test_experts_are_not_adapted() -> None:
    class Mixture(torch.nn.Module):
        device = torch.device("cpu")

        def __init__(self) -> None:
            super().__init__()
            self.gate = torch.nn.Linear(4, 2)
            self.experts = torch.nn.ModuleList([torch.nn.Linear(4, 4)])

    assert set(LoraLayers(Mixture()).sizes) == {"gate"}


@pytest.mark.parametrize("weights", [packing.pack, int8.quantise])
def test_layers_whose_weights_have_another_form_take_adapters_too(
    module: Any, adapters: dict[str, LoRA], weights: Callable[[Any], Any]
) -> None:
    served = copy.deepcopy(module).to(torch.bfloat16)
    weights(served)
    layer: Any = served.get_submodule(LAYER)
    if type(layer) is nn.Linear:
        pytest.skip("this CPU has no bfloat16 to pack weights for")
    states = torch.randn(2, 3, layer.in_features, dtype=torch.bfloat16)
    before = layer(states)
    a, b = (part.to(torch.bfloat16) for part in adapters["a"].pairs[LAYER])
    adapter_layers = LoraLayers(served)
    adapter_layers.select([LoRA(0, {LAYER: adapters["a"].pairs[LAYER]._replace(a=a, b=b)}, 0), None])
    after = layer(states)
    torch.testing.assert_close(after[0], before[0] + states[0] @ a.T @ b.T, atol=0.05, rtol=0.05)
    assert not torch.equal(after[0], before[0])
    assert torch.equal(after[1], before[1])
