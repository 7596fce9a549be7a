"""Tiny random decoders of every kind that transformers knows, made from the names that their configurations use."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, Final

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY: Final = 128
CONTEXT: Final = 64
WINDOW: Final = 48
KINDS: Final = tuple(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))

_WIDTHS: Final = ("hidden_size", "n_embd", "d_model", "dim", "hidden_dim", "embedding_size", "emb_dim")
_INNER: Final = ("intermediate_size", "n_inner", "ffn_dim", "ffn_hidden_size", "dff", "d_ff", "decoder_ffn_dim")
_LAYERS: Final = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "decoder_layers", "encoder_layers")
_HEADS: Final = ("num_attention_heads", "n_head", "num_heads", "n_heads", "decoder_attention_heads")
_PLACES: Final = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
_WINDOWS: Final = ("sliding_window", "sliding_window_size", "window_size", "attention_window", "attention_window_size")
_EXPERTS: Final = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
SIZES: Final[Mapping[str, Any]] = {
    **dict.fromkeys((*_WIDTHS, "word_embed_proj_dim"), 32),
    **dict.fromkeys((*_INNER, "encoder_ffn_dim"), 64),
    **dict.fromkeys(_LAYERS, 2),
    **dict.fromkeys((*_HEADS, "encoder_attention_heads", *_EXPERTS), 4),
    **dict.fromkeys(_PLACES, CONTEXT),
    **dict.fromkeys(_WINDOWS, WINDOW),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 32),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "head_dim"), 8),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 16),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "first_k_dense_replace", "type_vocab_size"), 1),
    "vocab_size": VOCABULARY,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "rotary_dim": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "is_decoder": True,
}
"""Whatever of these a configuration has."""

_WITHOUT_SHARED_KEYS: Final = (
    "axk1",
    "deepseek_v2",
    "deepseek_v3",
    "dots3_note_text",
    "glm4_moe_lite",
    "longcat_flash",
    "minicpm3",
    "youtu",
)
_GEMMA3: Final = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": CONTEXT,
    "sliding_window": WINDOW,
    "layer_types": ["sliding_attention", "full_attention"],
}
_VISION: Final = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
MORE: Final[Mapping[str, Mapping[str, Any]]] = {
    **{kind: {"num_key_value_heads": 4} for kind in _WITHOUT_SHARED_KEYS},
    "gemma4_text": {"hidden_size_per_layer_input": 0},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gemma3": {"text_config": _GEMMA3, "vision_config": _VISION},
    "kimi_linear": {"layer_types": ["full_attention"] * 2},
    "lfm2_moe": {"layer_types": ["full_attention"] * 2},
    "longcat_flash": {"num_key_value_heads": 4, "zero_expert_num": 1, "moe_topk": 2},
}
"""What a kind needs beyond that, by its name."""


def build(kind: str, **more: Any) -> Any:
    """A decoder of a kind, float32, with weights of which every one changes the answer. The same each time."""
    wanted = CONFIG_MAPPING[kind]
    names = {*inspect.signature(wanted.__init__).parameters, *getattr(wanted, "__dataclass_fields__", {})}
    sizes = {name: value for name, value in SIZES.items() if name in names}
    config = wanted(**sizes | dict(MORE.get(kind, {})) | more)
    make: Any = AutoModelForCausalLM.from_config
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return spread(make(config, dtype=torch.float32)).eval()


def spread(module: Any) -> Any:
    """Random weights, large enough that outputs differ from one prompt to the next."""
    with torch.no_grad():
        for name, weights in module.named_parameters():
            if weights.dim() > 1:
                weights.normal_(0.0, 0.25)
            else:
                weights.normal_(1.0 if "norm" in name or ".ln" in name else 0.0, 0.1)
    return module
