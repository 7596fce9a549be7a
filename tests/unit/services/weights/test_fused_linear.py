"""Layers with the same input are one, and each of them still says its own."""

from __future__ import annotations

import threading
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from services.weights import fused_linear
from services.weights.fused_linear import Part
from services.weights.int8 import Int8Linear


class Attention(nn.Module):
    """What a model calls them."""

    def __init__(self, *, biases: tuple[bool, bool, bool] = (True, True, True), dtype: Any = torch.float32) -> None:
        super().__init__()
        self.q_proj = nn.Linear(64, 48, biases[0])
        self.k_proj = nn.Linear(64, 16, biases[1])
        self.v_proj = nn.Linear(64, 16, biases[2])
        self.to(dtype)

    def forward(self, states: Tensor) -> list[Tensor]:
        return [self.q_proj(states), self.k_proj(states), self.v_proj(states)]


@pytest.fixture(autouse=True)
def frozen() -> Any:
    torch.manual_seed(5)
    with torch.inference_mode():
        yield


def same(made: list[Tensor], wanted: list[Tensor], close: float = 1e-5) -> None:
    for each, other in zip(made, wanted, strict=True):
        torch.testing.assert_close(each, other, atol=close, rtol=close)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("bias", [True, False])
def test_parts_say_what_the_layers_said(dtype: Any, close: float, bias: bool) -> None:
    module = Attention(biases=(bias, bias, bias), dtype=dtype)
    batches = [torch.randn(*shape, 64).to(dtype) for shape in ((1,), (3, 5), (40,))]
    before = [module(states) for states in batches]
    fused_linear.join_siblings(module)
    assert all(isinstance(each, Part) for each in (module.q_proj, module.k_proj, module.v_proj))
    for states, wanted in zip(batches, before, strict=True):
        same(module(states), wanted, close)


def test_sizes_are_those_of_the_layers() -> None:
    module: Any = Attention()
    fused_linear.join_siblings(module)
    sizes = [(each.in_features, each.out_features) for each in (module.q_proj, module.k_proj, module.v_proj)]
    assert sizes == [(64, 48), (64, 16), (64, 16)]
    assert {name for name, _ in module.named_modules()} == {"", "q_proj", "k_proj", "v_proj"}, "no further layers"


def test_a_part_is_asked_of_its_own_input_whatever_was_before() -> None:
    module = Attention()
    one, other = torch.randn(2, 64), torch.randn(2, 64)
    wanted = [module.q_proj(one), module.v_proj(other), module.k_proj(one)]
    fused_linear.join_siblings(module)
    same([module.q_proj(one), module.v_proj(other), module.k_proj(one)], wanted)


def test_what_is_added_to_a_part_reaches_no_other() -> None:
    module, states = Attention(), torch.randn(4, 64)
    wanted = module(states)
    fused_linear.join_siblings(module)
    module.q_proj(states).add_(100)
    same([module.k_proj(states), module.v_proj(states)], wanted[1:])


def test_a_part_that_is_asked_again_does_not_say_what_was_added_to_it() -> None:
    module: Any = Attention()
    states = torch.randn(4, 64)
    wanted = module.q_proj(states)
    fused_linear.join_siblings(module)
    module.q_proj(states).add_(100)
    torch.testing.assert_close(module.q_proj(states), wanted)


def test_nothing_of_a_batch_is_kept_once_all_parts_were_asked() -> None:
    module: Any = Attention()
    fused_linear.join_siblings(module)
    states = torch.randn(4, 64)
    inputs, made = weakref.ref(states), [weakref.ref(each) for each in module(states)]
    del states
    assert inputs() is None
    assert all(each() is None for each in made)


def test_eight_bits_are_joined_as_they_are() -> None:
    module: Any = Attention()
    for name in ("q_proj", "k_proj", "v_proj"):
        setattr(module, name, Int8Linear.of(getattr(module, name)))
    states = torch.randn(3, 64)
    wanted = module(states)
    fused_linear.join_siblings(module)
    assert module.k_proj.whole.product.linear.weight.dtype is torch.int8
    same(module(states), wanted)


def test_what_is_not_alike_is_left_alone() -> None:
    uneven, other = Attention(biases=(True, False, True)), Attention()
    other.v_proj = nn.Linear(32, 16)
    mixed = Attention()
    mixed.v_proj.bfloat16()
    for module in (uneven, other, mixed):
        fused_linear.join_siblings(module)
        assert type(module.q_proj) is nn.Linear


def test_threads_that_ask_in_turns_get_their_own() -> None:
    module: Any = Attention()
    inputs = [torch.randn(3, 64), torch.randn(3, 64)]
    wanted = [module(each) for each in inputs]
    fused_linear.join_siblings(module)
    turn, made = threading.Barrier(2), dict[int, list[Tensor]]()

    @torch.inference_mode()
    def ask(index: int) -> None:
        parts = list[Tensor]()
        for layer in (module.q_proj, module.k_proj, module.v_proj):
            turn.wait(10)
            parts.append(layer(inputs[index]))
        made[index] = parts

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(10)
    same(made[0], wanted[0])
    same(made[1], wanted[1])
    whole = module.q_proj.whole
    assert whole._newest.inputs is None
