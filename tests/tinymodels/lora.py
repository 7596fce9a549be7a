"""Random LoRA adapters for the tiny Llama, on disk as PEFT's save_pretrained leaves them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

RANK = 4
ALPHA = 8
SIZES = {
    "self_attn.q_proj": (64, 64),
    "self_attn.v_proj": (64, 32),
    "mlp.down_proj": (128, 64),
}
LAYERS = tuple(f"model.layers.{layer}.{name}" for layer in range(2) for name in SIZES)
_PREFIX = "base_model.model."


def build_lora(
    folder: Path,
    seed: int,
    layers: Sequence[str] = LAYERS,
    ranks: dict[str, int] | None = None,
    dtype: torch.dtype = torch.float32,
    **config: Any,
) -> Path:
    """Writes an adapter to `folder` and returns it; `ranks` are those of layers that have another than RANK."""
    folder.mkdir(parents=True)
    chance = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for layer in layers:
        inputs, outputs = SIZES[".".join(layer.split(".")[-2:])]
        rank = (ranks or {}).get(layer, RANK)
        for name, shape in (("lora_A", (rank, inputs)), ("lora_B", (outputs, rank))):
            tensors[f"{_PREFIX}{layer}.{name}.weight"] = (torch.randn(shape, generator=chance) * 0.3).to(dtype)
    save_file(tensors, folder / "adapter_model.safetensors")
    write_config(folder, **config)
    return folder


def write_config(folder: Path, **changes: Any) -> None:
    """What PEFT 0.18 writes for a plain adapter, with `changes`."""
    plain: dict[str, Any] = {
        "alora_invocation_tokens": None,
        "alpha_pattern": {},
        "arrow_config": None,
        "auto_mapping": None,
        "base_model_name_or_path": "tiny",
        "bias": "none",
        "corda_config": None,
        "ensure_weight_tying": False,
        "eva_config": None,
        "exclude_modules": None,
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layer_replication": None,
        "layers_pattern": None,
        "layers_to_transform": None,
        "loftq_config": {},
        "lora_alpha": ALPHA,
        "lora_bias": False,
        "lora_dropout": 0.05,
        "megatron_config": None,
        "megatron_core": "megatron.core",
        "modules_to_save": None,
        "peft_type": "LORA",
        "peft_version": "0.18.0",
        "qalora_group_size": 16,
        "r": RANK,
        "rank_pattern": {},
        "revision": None,
        "target_modules": ["q_proj", "v_proj", "down_proj"],
        "target_parameters": None,
        "task_type": "CAUSAL_LM",
        "trainable_token_indices": None,
        "use_dora": False,
        "use_qalora": False,
        "use_rslora": False,
    }
    (folder / "adapter_config.json").write_text(json.dumps(plain | changes))


def merge(module: Any, folder: Path) -> Any:
    """Adds an adapter to the weights themselves: W + scale * BA, written down apart from what is tested."""
    how = json.loads((folder / "adapter_config.json").read_text())
    tensors = load_file(folder / "adapter_model.safetensors")
    for name in [name for name in tensors if name.endswith("lora_A.weight")]:
        layer = name.removeprefix(_PREFIX).removesuffix(".lora_A.weight")
        a, b = tensors[name].float(), tensors[name.replace("lora_A", "lora_B")].float()
        alpha = next((value for key, value in how["alpha_pattern"].items() if key in layer), how["lora_alpha"])
        scale = alpha / math.sqrt(len(a)) if how["use_rslora"] else alpha / len(a)
        with torch.no_grad():
            module.get_submodule(layer).weight.add_(scale * (b @ a))
    return module
