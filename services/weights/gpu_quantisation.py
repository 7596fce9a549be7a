"""Quantisation on a GPU: what transformers offers through bitsandbytes, where that is installed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Final

import torch
from transformers import BitsAndBytesConfig

from meshgate.runtime.config import ConfigError
from services.models.config import Quantisation

_NEEDED: Final = ("bitsandbytes", "accelerate")


def check(key: str) -> None:
    """Raises ConfigError where a library is missing."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(f"{key}.quantisation: on a GPU it needs {' and '.join(missing)}, not installed")


def options(quantisation: Quantisation, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What from_pretrained is given so that the weights come quantised, and straight to their device."""
    made: Any = BitsAndBytesConfig
    if quantisation == "nf4":
        config = made(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    else:
        config = made(load_in_8bit=True)
    return {"quantization_config": config, "device_map": {"": device}}
