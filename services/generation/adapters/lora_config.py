"""adapter_config.json: how an adapter was made, as far as it matters to who applies it.

Which layers it changes is what its numbers are named after, so `target_modules` and its kin say nothing here. What we
don't know, and is switched on, may be what makes it another kind of adapter: it is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.generation.adapters.adapter_errors import unusable

ValueT = TypeVar("ValueT")

_PLAIN: Final = re.compile(r"\^?[A-Za-z0-9_.]{1,256}", re.ASCII)
"""PEFT takes any expression for a layer. A stranger's expression can take for ever to match, so it is a name here."""
_PATTERNS: Final = 4096
_INERT: Final = frozenset(
    (
        "auto_mapping",
        "corda_config",
        "eva_config",
        "exclude_modules",
        "fan_in_fan_out",  # of the layer's weight: we ask the layer, and never see that
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_dropout",  # of training
        "megatron_config",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "target_modules",
        "target_parameters",
    )
)
"""What changes nothing, or is told by the numbers."""
_OTHER_KINDS: Final = (
    "alora_invocation_tokens",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "trainable_token_indices",
    "use_dora",
    "use_qalora",
)
"""What is refused by its name; anything else that we don't know is refused without."""


class LoraConfig(BaseModel):
    """What is read of it. PEFT's LoraConfig has the fields and their meaning."""

    model_config = ConfigDict(extra="allow", frozen=True)

    peft_type: Literal["LORA"]
    task_type: Literal["CAUSAL_LM"] | None = None
    base_model_name_or_path: str | None = None
    bias: Literal["none"] = "none"
    r: int = Field(8, ge=1)
    lora_alpha: float = Field(8, allow_inf_nan=False)
    use_rslora: bool = False
    rank_pattern: dict[str, int] | None = Field(None, max_length=_PATTERNS)
    alpha_pattern: dict[str, float] | None = Field(None, max_length=_PATTERNS)
    init_lora_weights: bool | Literal["gaussian", "eva", "orthogonal"] | None = True
    """The ways of beginning that leave the model's own weights as they were; the others changed those, too."""

    def rank(self, layer: str) -> int:
        """The rank of a layer's pair."""
        return _matching(self.rank_pattern or {}, layer, self.r)

    def scale(self, layer: str) -> float:
        """What B(Ax) is multiplied by. Rank-stabilised LoRA divides by the root of the rank (Kalajdzievski 2023)."""
        rank = max(1, self.rank(layer))
        alpha = _matching(self.alpha_pattern or {}, layer, self.lora_alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def read(content: bytes) -> LoraConfig:
    """Raises InvalidArgument (ADAPTER_UNUSABLE)."""
    try:
        found = LoraConfig.model_validate_json(content)
    except ValidationError as error:
        raise unusable(_what(error)) from None
    strange = {name for name, value in (found.model_extra or {}).items() if _on(value)} - _INERT
    if strange:
        known = sorted(strange.intersection(_OTHER_KINDS))
        raise unusable(f"{known[0] if known else 'something in its configuration'} is not supported")
    for pattern in (*(found.rank_pattern or ()), *(found.alpha_pattern or ())):
        if not _PLAIN.fullmatch(pattern):
            raise unusable("rank_pattern and alpha_pattern have to name layers, not match them")
    return found


def _what(error: ValidationError) -> str:
    """The first thing that is wrong, by our own name for it and never by what was there."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    named = field if field in LoraConfig.model_fields else ""
    return f"{named} is missing or not supported" if named else "its configuration is not JSON"


def _on(value: Any) -> bool:
    return value not in (None, False, 0, "", "none") and value != [] and value != {}


def _matching(patterns: Mapping[str, ValueT], layer: str, default: ValueT) -> ValueT:
    """The value of the first name that a layer's ends with; one that begins with ^ is all of it."""
    for pattern, value in patterns.items():
        if layer == pattern.removeprefix("^") or (not pattern.startswith("^") and layer.endswith(f".{pattern}")):
            return value
    return default
