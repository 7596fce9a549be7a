"""Turns a fine-tuned model into the few MB that are shipped: `adapter.py` backwards."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from services.classification.model.sentiment import BASE, CONFIG, WEIGHTS, ZERO, SentimentModel

MAX_TOKENS = 256  # what the base was trained up to
LIMIT = 8_000_000  # bytes
STEPS = 7  # either side of zero


def updates_of(tuned: SentimentModel, base: dict[str, Tensor]) -> dict[str, Tensor]:
    """What to add to the base to get `tuned`: the encoder's matrices in 4 bits, the rest whole in float16."""
    updates: dict[str, Tensor] = {}
    for name, parameter in tuned.named_parameters():
        value = parameter.detach().float()
        if name.startswith("head."):
            updates[f"{name}.delta"] = value.half()  # a new head is all zeros
        elif not name.startswith("encoder.embeddings."):
            updates |= _update(name, value - base[name.removeprefix("encoder.")].float())
    return updates


def _update(name: str, change: Tensor) -> dict[str, Tensor]:
    if change.ndim == 1:
        return {f"{name}.delta": change.half()}
    packed, scale = pack(change)
    return {f"{name}.packed": packed, f"{name}.scale": scale}


def pack(change: Tensor) -> tuple[Tensor, Tensor]:
    """Round each row of a float matrix [rows, columns] to 15 even steps; `adapter.unpack` undoes it.

    Returns two columns a byte, uint8 [rows, columns / 2], and the size of a step, float16 [rows].
    """
    scale = (change.abs().amax(1) / STEPS).clamp(min=torch.finfo(torch.float16).tiny).half()
    steps = (change / scale.float().unsqueeze(1)).round().clamp(-STEPS, STEPS).to(torch.int16) + ZERO
    return (steps[:, 0::2] | steps[:, 1::2] << 4).to(torch.uint8), scale


def ship(out: Path, base_dir: Path, updates: dict[str, Tensor], labels: tuple[str, ...], facts: dict[str, Any]) -> None:
    """Write weights and config.json to `out`; raises ValueError when they outgrow what the repository may carry."""
    content = save(updates)
    if len(content) > LIMIT:
        raise ValueError(f"{len(content)} bytes are more than {LIMIT}")
    config = {
        "base": "sentence-transformers/all-MiniLM-L6-v2",
        "base_sha256": _sha256((base_dir / BASE).read_bytes()),
        "weights_sha256": _sha256(content),
        "labels": list(labels),
        "max_tokens": MAX_TOKENS,
        **facts,
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / WEIGHTS).write_bytes(content)
    (out / CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
