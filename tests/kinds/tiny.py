"""Tiny random models of any kind that transformers can make: its configuration class, made small."""

from __future__ import annotations

from typing import Any, Final

import torch
from transformers import CONFIG_MAPPING, PreTrainedConfig

VOCABULARY: Final = 400
_POSITIONS: Final = 192

_SMALL: Final[dict[str, Any]] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 64,
    "max_position_embeddings": _POSITIONS,
    "n_positions": _POSITIONS,
    "n_ctx": _POSITIONS,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_inner": 64,
    "dff": 64,
    "d_model": 32,
    "d_ff": 64,
    "d_kv": 8,
    "d_head": 8,
    "d_inner": 64,
    "num_layers": 2,
    "num_decoder_layers": 2,
    "num_heads": 4,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "ffn_dim": 64,
    "embedding_size": 32,
    "emb_dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "dim": 32,
    "hidden_dim": 64,
    "word_embed_proj_dim": 32,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "sliding_window": 64,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "mamba_d_state": 8,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "n_mamba_heads": 2,
    "mamba_headdim": 16,
    "mamba_ngroups": 1,
    "mamba_dt_rank": 4,
    "use_mamba_kernels": False,
}
"""What is set where a kind's configuration has it."""


def configuration(kind: str, overrides: dict[str, Any], **more: Any) -> Any:
    """The tiny configuration of a kind."""
    return _made(CONFIG_MAPPING[kind], {**overrides, **more})


def _made(cls: Any, given: dict[str, Any]) -> Any:
    plain = cls()
    own = set(plain.to_dict()) | set(getattr(cls, "attribute_map", {}))
    taken = {name: value for name, value in _SMALL.items() if name in own}
    for name in getattr(cls, "sub_configs", {}):
        child = getattr(plain, name, None)
        if isinstance(child, PreTrainedConfig):
            taken[name] = _made(type(child), given.get(name, {})).to_dict()
    settled = {name: value for name, value in given.items() if not isinstance(value, dict) or name not in taken}
    taken = {name: value for name, value in taken.items() if name not in _aliases(cls)}
    return cls(**{**taken, **settled})


def _aliases(cls: Any) -> set[str]:
    """Names that stand for another, which is set too."""
    names = getattr(cls, "attribute_map", {})
    return {alias for alias, name in names.items() if name in _SMALL}


def module(auto: Any, config: Any) -> Any:
    """A random model, the same each time; its weights are large enough that texts differ."""
    torch.manual_seed(7)
    made = auto.from_config(config)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1 and parameter.is_floating_point():
                parameter.mul_(2.0)
    return made.eval()
