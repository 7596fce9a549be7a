"""The pass through models of Llama's kind on a CPU, in as few operators as there can be.

With few rows a step of transformers' own modules takes longer than multiplying by the weights: fifty operators a layer,
each with its call from Python. Here there are some thirty: layers that are given the same input are one
(`services.weights.fused_linear`), the residual is added with the product before it, positions turn queries and keys
together, and heads that share keys are one longer query to them, so that no key is copied. What comes out is the same,
but for rounding.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from transformers import Cache

from services.weights.attention import causal_attention, pays
from services.weights.fused_linear import Part, product
from services.weights.packing import fitted

STEP: Final = 128
"""What prompts see grows by so many positions: what multiplies them is made for each number (weights/packing.py)."""
_KINDS: Final = frozenset({"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"})


class Rotation(NamedTuple):
    """By how much positions turn what is in them (RoPE, Su et al. 2021): [rows, count, 1, head size] each."""

    cosine: Tensor
    sine: Tensor
    """Its first half negated, so that halves that change places need not be."""


class AttentionView(NamedTuple):
    """What queries see."""

    mask: Tensor
    """Added to scores, [rows or 1, 1, queries, length]."""
    known: int
    """So many positions, the first, all of them see."""


class LlamaPass:
    """The layers of one module, whose weights are joined. For the thread that owns it."""

    def __init__(self, module: Any) -> None:
        """See `fits`. The module stays usable."""
        base = module.model
        self._embed = base.embed_tokens.weight.detach()
        self._rotary = base.rotary_emb
        self._layers = [_Layer(layer, index) for index, layer in enumerate(base.layers)]
        self._norm = _Norm(base.norm)
        self._head = module.lm_head
        self._changeable = [each for each in module.modules() if hasattr(each, "in_features")]

    @property
    def changed(self) -> bool:
        """Whether a layer has another `forward` for now, which only the module itself calls (see adapters)."""
        return any("forward" in each.__dict__ for each in self._changeable)

    def logits(self, tokens: Tensor, positions: Tensor, mask: Tensor, cache: Cache) -> Tensor:
        """Scores after the last token of each row, float32 [rows, vocabulary], of ids and positions [rows, count], the
        last there are; `mask` is true where a query may look, [rows or 1, 1, count, length].
        """
        count, more = tokens.numel(), fitted(tokens.numel()) - tokens.numel()
        states = self._embed.index_select(0, functional.pad(tokens.flatten(), (0, more)))
        turn = self._turn(positions)
        sight = self._sight(mask, positions)
        for layer in self._layers:
            states = layer(states, turn, sight, cache)
        last = states if tokens.shape[1] == 1 else states[:count].view(*tokens.shape, -1)[:, -1]
        made: Tensor = self._head(self._norm(last))[: len(tokens)].float()
        return made

    def _sight(self, mask: Tensor, positions: Tensor) -> AttentionView:
        added = torch.zeros(mask.shape, dtype=self._embed.dtype).masked_fill_(~mask, float("-inf"))
        if positions.shape[1] > 1:  # of one position all heads see the same
            added = added.repeat(1, 1, self._layers[0].sharing, 1)
        return AttentionView(added, int(positions.min()))

    def _turn(self, positions: Tensor) -> Rotation:
        cosine, sine = self._rotary(self._embed, position_ids=positions)
        half = sine.shape[-1] // 2
        return Rotation(cosine[:, :, None], torch.cat([-sine[..., :half], sine[..., half:]], -1)[:, :, None])


class _Norm:
    """RMSNorm (Zhang and Sennrich 2019), in float32 and rounded where transformers rounds it."""

    def __init__(self, norm: Any) -> None:
        self._weight = norm.weight.detach()
        self._small = torch.tensor(norm.variance_epsilon)

    def __call__(self, states: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(states, 2, -1, keepdim=True, dtype=torch.float32)
        scale = torch.addcmul(self._small, size, size, value=1 / states.shape[-1]).rsqrt_()
        return (states * scale).to(states.dtype).mul_(self._weight)


class _Layer:
    def __init__(self, layer: Any, index: int) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._index = index
        self._before, self._between = _Norm(layer.input_layernorm), _Norm(layer.post_attention_layernorm)
        self._inputs, self._output = attention.q_proj.whole.product, product(attention.o_proj)
        self._wide, self._narrow = mlp.gate_proj.whole.product, product(mlp.down_proj)
        self._size, self._scale = attention.head_dim, attention.scaling
        self._keys = attention.k_proj.out_features // self._size
        self._queries = attention.q_proj.out_features // self._size
        self.sharing = self._queries // self._keys
        """Heads that look at the same keys, as one longer query."""

    def __call__(self, states: Tensor, turn: Rotation, sight: AttentionView, cache: Cache) -> Tensor:
        """Tokens [rows x count, dimensions] to the same; those beyond that are there to be multiplied (packing.fitted)
        and attend to nothing.
        """
        states = self._output.added(self._attend(self._inputs(self._before(states)), turn, sight, cache), states)
        gates, ups = self._wide(self._between(states)).chunk(2, -1)
        return self._narrow.added(functional.silu(gates).mul_(ups), states)

    def _attend(self, inputs: Tensor, turn: Rotation, sight: AttentionView, cache: Cache) -> Tensor:
        """Queries, keys and values of the tokens, as they come out of one product, to [rows x count, dimensions]."""
        rows, count = turn.cosine.shape[:2]
        heads = inputs[: rows * count].view(rows, count, -1, self._size)
        turned = _turned(heads[:, :, : self._queries + self._keys], turn)
        new = turned[:, :, self._queries :].transpose(1, 2), heads[:, :, self._queries + self._keys :].transpose(1, 2)
        keys, values = cache.update(*new, self._index)
        made = self._looked(self._grouped(turned[:, :, : self._queries]), keys, values, sight)
        made = made.view(rows, self._keys, -1, count, self._size).permute(0, 3, 1, 2, 4).reshape(rows * count, -1)
        more = len(inputs) - len(made)
        return functional.pad(made, (0, 0, 0, more)) if more else made

    def _grouped(self, queries: Tensor) -> Tensor:
        """[rows, count, heads, size] to [rows, heads of keys, heads that share one x count, size]."""
        rows, count = queries.shape[:2]
        apart = queries.reshape(rows, count, self._keys, -1, self._size).permute(0, 2, 3, 1, 4)
        return apart.reshape(rows, self._keys, -1, self._size)

    def _looked(self, queries: Tensor, keys: Tensor, values: Tensor, sight: AttentionView) -> Tensor:
        mask = sight.mask
        several = len(queries) == 1 and mask.shape[2] > 1
        if several and pays(queries, queries.shape[1] * queries.shape[2] * keys.shape[2]):
            return causal_attention(queries[0], keys[0], values[0], mask[0, 0, :, sight.known :], self._scale)
        return functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=self._scale)


def _turned(heads: Tensor, turn: Rotation) -> Tensor:
    """Heads [rows, count, heads, size] at their positions."""
    halves = torch.roll(heads, heads.shape[-1] // 2, -1)
    return torch.addcmul(heads * turn.cosine, halves, turn.sine)


def fits(module: Any) -> bool:
    """Whether a module is of this kind, and its layers are joined."""
    if type(module).__name__ not in _KINDS or module.device.type != "cpu" or module.config.hidden_act != "silu":
        return False
    return all(
        isinstance(layer.self_attn.q_proj, Part) and isinstance(layer.mlp.gate_proj, Part)
        for layer in module.model.layers
    )
