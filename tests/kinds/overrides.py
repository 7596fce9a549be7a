"""What a kind's configuration needs beside its sizes to be tiny, or to be made at all."""

from __future__ import annotations

from typing import Any, Final

_ROPE: Final = {"rope_type": "default", "rope_theta": 10000.0}
_LATENT: Final = {"num_key_value_heads": 4, "head_dim": 8}

OVERRIDES: Final[dict[str, dict[str, Any]]] = {
    "axk1": _LATENT,
    "axk2": _LATENT,
    "deepseek_v2": _LATENT,
    "deepseek_v3": _LATENT,
    "minicpm3": _LATENT,
    "mistral4": {**_LATENT, "qk_head_dim": 12, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "rope_parameters": None},
    "esmc": {"num_key_value_heads": 4},
    "cohere_compass_text": {"layer_types": ["full_attention"] * 2, "rope_parameters": {"full_attention": _ROPE}},
    "funnel": {"block_sizes": [1, 1], "num_decoder_layers": 1, "architectures": ["FunnelModel"]},
    "neomme": {"head_dim": 16},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2},
    "gptj": {"rotary_dim": 4},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1},
    "layoutlmv3": {"coordinate_size": 4, "shape_size": 8},
    "lilt": {"hidden_size": 48, "channel_shrink_ratio": 4, "num_attention_heads": 4},
    "mt5": {"decoder_start_token_id": 0},
    "t5": {"decoder_start_token_id": 0},
    "umt5": {"decoder_start_token_id": 0},
    "qwen3_5": {"text_config": {"layer_types": ["linear_attention", "full_attention"]}},
    "qwen3_5_text": {"layer_types": ["linear_attention", "full_attention"]},
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention"]},
    "reformer": {
        "axial_pos_embds_dim": [16, 16],
        "axial_pos_shape": [8, 16],
        "attn_layers": ["local", "lsh"],
        "num_hashes": 1,
        "is_decoder": False,
    },
    "xmod": {"default_language": "en_XX", "languages": ["en_XX", "de_DE"]},
    "perceiver": {
        "num_latents": 8,
        "d_latents": 32,
        "num_blocks": 1,
        "num_self_attends_per_block": 1,
        "num_self_attention_heads": 2,
        "num_cross_attention_heads": 2,
    },
    "zamba": {"num_hidden_layers": 4, "layers_block_type": ["linear_attention", "hybrid"] * 2},
    "zamba2": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "hybrid_layer_ids": [1, 3],
    },
    "bloom": {"n_layer": 2},
    "canine": {"bos_token_id": 0xE000, "eos_token_id": 0xE001, "pad_token_id": 0, "vocab_size": None},
}
