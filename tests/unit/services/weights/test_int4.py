"""Weights that are four bits are found, and multiplied as what they are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from services.weights import int4, packing
from services.weights.packing import PackedLinear

pytestmark = pytest.mark.skipif(not int4.native(), reason="torch has no fast kernel for four bits here")
NATIVE = pytest.mark.skipif(not packing.native(), reason="this CPU multiplies no bfloat16")


def exact(outputs: int, inputs: int) -> Tensor:
    """Weights as GGUF's Q4_1 has them: in groups of 32 sixteen numbers, of which the first and the last are there."""
    torch.manual_seed(11)
    steps = torch.randint(0, 16, (outputs, inputs // 32, 32))
    steps[..., 3], steps[..., 17] = 0, 15
    scale = torch.rand(outputs, inputs // 32, 1) * 0.02 + 0.001
    return (steps * scale - scale * torch.randint(4, 12, scale.shape)).flatten(1)


def apart(made: Tensor, wanted: Tensor) -> float:
    return float((made.float() - wanted.float()).norm() / wanted.float().norm())


@pytest.mark.parametrize("shape", [(16, 32), (48, 96), (2048 + 16, 64)])
def test_they_are_found_and_are_as_near_as_bfloat16(shape: tuple[int, int]) -> None:
    weight = exact(*shape)
    short = int4.pack_int4(weight.bfloat16())
    assert short is not None
    assert apart(short.multiply(torch.eye(shape[1]).bfloat16()).T, weight) < 3 * apart(weight.bfloat16(), weight)


def test_a_group_that_is_one_number_all_over() -> None:
    weight = exact(16, 64)
    weight[4] = 0
    weight[5, :32] = 0.25
    short = int4.pack_int4(weight.bfloat16())
    assert short is not None
    made = short.multiply(torch.eye(64).bfloat16()).T
    assert made[4].abs().max() == 0
    assert torch.equal(made[5, :32], torch.full((32,), 0.25).bfloat16())


def test_others_are_not() -> None:
    ordinary = torch.randn(64, 64).bfloat16()
    assert int4.pack_int4(ordinary) is None
    one = exact(64, 64).bfloat16()
    one[63, 40] += (one[63].max() - one[63].min()) * 0.03
    assert int4.pack_int4(one) is None, "a single weight of another kind"
    close = (1 + 0.2 * torch.rand(64, 64)).bfloat16()
    assert int4.pack_int4(close) is None, "so near to each other that any number would pass for a step"
    broken = exact(64, 64).bfloat16()
    broken[7, 7] = torch.nan
    assert int4.pack_int4(broken) is None
    assert int4.pack_int4(exact(20, 64).bfloat16()) is None, "a number of outputs that the kernel can't do"
    assert int4.pack_int4(torch.randn(16, 40).bfloat16()) is None, "no whole groups"


@NATIVE
@pytest.mark.parametrize("bias", [True, False])
def test_few_rows_and_many_multiply_the_same_weights(bias: bool) -> None:
    with torch.inference_mode():
        layer = nn.Linear(96, 48, bias).bfloat16()
        layer.weight.copy_(exact(48, 96))
        packed, inputs = PackedLinear(layer), torch.randn(2, 16, 96).bfloat16()
        wanted = layer(inputs)
        other = torch.randn_like(wanted)
        rows = [inputs[:, start : start + 2] for start in range(0, 16, 2)]
        few = torch.cat([packed(each) for each in rows], 1)
        added = torch.cat([packed.added(each, other[:, 2 * i : 2 * i + 2]) for i, each in enumerate(rows)], 1)
    assert few.shape == wanted.shape
    assert 0 < apart(few, wanted) < 1e-2, "another kernel, the same weights"
    assert apart(packed(inputs), wanted) < 1e-2
    assert apart(added, wanted.float() + other.float()) < 1e-2
    assert apart(packed.added(inputs, other), wanted.float() + other.float()) < 1e-2


def test_where_the_kernel_is_slow_they_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert int4.pack_int4(exact(16, 32).bfloat16()) is None
