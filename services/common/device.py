"""The device that a model runs on, and its dtype."""

from __future__ import annotations

import torch

from meshgate.runtime.config import ConfigError
from services.models.config import Dtype


def device_of(name: str, key: str = "model") -> torch.device:
    """The device of a name; `auto` is the first GPU, else the CPU. `key` is the section that names it.

    Raises ConfigError for a device that this machine, or this build of torch, does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(name)
        if found.type in _kinds():
            return torch.empty(0, device=found).device
    except (RuntimeError, AssertionError):  # torch says the first of a name, the second where it was built without
        pass
    raise ConfigError(f"{key}.device: {name!r} is not on this machine: set {' or '.join(('auto', *_kinds()))}")


def _kinds() -> tuple[str, ...]:
    """The kinds of devices that models can run on here."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return ("cpu", accelerator.type) if accelerator is not None else ("cpu",)


def dtype_of(name: Dtype, device: torch.device) -> torch.dtype:
    """The dtype of a name; `auto` is bfloat16 where the device multiplies it natively, else float32.

    A CPU without native bfloat16 emulates it, several times slower than float32 beyond a few rows.
    """
    if name == "auto":
        return torch.bfloat16 if _multiplies_bfloat16(device) else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def _multiplies_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    flags = torch.cpu.get_capabilities()
    return device.type == "cpu" and any(flags.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16"))
