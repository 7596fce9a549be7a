"""The kinds of decoder that are served. A kind is what a checkpoint's config.json calls its `model_type`.

The tests show of each that it says here, in pieces, in a batch and after a shared beginning, what it says in
transformers alone (tests/kinds, `make test-kinds`). docs/reference/kinds/decoders.md is made from this table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from meshgate.runtime.config import ConfigError

SERVED: Final = frozenset(
    (
        "afmoe",
        "apertus",
        "arcee",
        "aria_text",
        "axk1",
        "beam",
        "bert",
        "bert-generation",
        "big_bird",
        "biogpt",
        "bitnet",
        "camembert",
        "codegen",
        "cohere",
        "cohere2",
        "cohere2_moe",
        "ctrl",
        "cwm",
        "data2vec-text",
        "deepseek_v2",
        "deepseek_v3",
        "diffllama",
        "doge",
        "dots1",
        "electra",
        "ernie",
        "ernie4_5",
        "exaone4",
        "exaone_moe",
        "falcon",
        "flex_olmo",
        "flint",
        "gemma",
        "gemma2",
        "gemma3",
        "gemma3_text",
        "gemma4_text",
        "gemma4_unified_text",
        "glm",
        "glm4",
        "glm4_moe",
        "glm4_moe_lite",
        "gpt2",
        "gpt_bigcode",
        "gpt_neo",
        "gpt_neox",
        "gpt_neox_japanese",
        "gpt_oss",
        "gptj",
        "granite",
        "granite_swa",
        "granitemoe",
        "granitemoe_swa",
        "granitemoeshared",
        "helium",
        "hrm_text",
        "hunyuan_v1_dense",
        "hunyuan_v1_moe",
        "hy_v3",
        "hyperclovax",
        "internlm3",
        "iquestcoder",
        "jais2",
        "jetmoe",
        "kolibri1",
        "laguna",
        "lfm2",
        "lfm2_moe",
        "llama",
        "longcat_flash",
        "megatron-bert",
        "mellum",
        "mimo_v2_flash",
        "minicpm3",
        "minimax_m2",
        "minimax_m3_vl_text",
        "ministral",
        "ministral3",
        "mistral",
        "mixtral",
        "modernbert-decoder",
        "moshi",
        "mpt",
        "nanochat",
        "nemotron",
        "olmo",
        "olmo2",
        "olmo3",
        "olmoe",
        "opt",
        "persimmon",
        "phi",
        "phi3",
        "phimoe",
        "qwen2",
        "qwen2_moe",
        "qwen3",
        "qwen3_moe",
        "rembert",
        "roberta",
        "roberta-prelayernorm",
        "seed_oss",
        "smollm3",
        "solar_open",
        "stablelm",
        "starcoder2",
        "vaultgemma",
        "whisper",
        "xglm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "youtu",
    )
)
_BEHIND_PADDING: Final = frozenset(
    ("camembert", "data2vec-text", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod")
)
"""They count positions from behind the padding token's number."""


def check(config: Any, key: str, where: Path) -> None:
    """Raises ConfigError, naming the section `key` and the kind, for a kind that is not served."""
    kind = str(config.model_type)
    if kind not in SERVED:
        raise ConfigError(
            f"{key}.source: {where}: models of the kind {kind} are not served: see docs/reference/kinds/decoders.md"
        )
    if kind == "falcon" and config.alibi:
        raise ConfigError(
            f"{key}.source: {where}: falcon models with alibi are not served, those with rotary embeddings are"
        )


def first_position(config: Any) -> int:
    """The number of a text's first position."""
    if config.model_type not in _BEHIND_PADDING:
        return 0
    return int(config.pad_token_id or 0) + 1
