"""From a model's section of the configuration to a module whose weights are as it says, with the quality they kept."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from meshgate.runtime.config import ConfigError
from services.models.config import SourceConfig
from services.weights import compiling, fused_linear, gpu_quantisation, int8, packing, unpadded
from services.weights.quality import Figure, QualityProbe

_log = logging.getLogger(__name__)

_FOLLOWING: Final = ("dynamic", "longrope")


class Weights(NamedTuple):
    """What was made of them, mostly for ListModels."""

    quantisation: str = ""
    quality: float | None = None
    """See quality.py; None where nothing is quantised."""
    serial: bool = False
    """Whether no more than one batch may run at a time."""


class Where(NamedTuple):
    """On what, and in which format, a module is opened."""

    device: torch.device
    dtype: torch.dtype


Load = Callable[..., Any]
"""Makes the module; what it is given by name is for from_pretrained."""


def check(settings: SourceConfig, key: str, device: torch.device) -> None:
    """Raises ConfigError for what this machine can't do, before anything is loaded."""
    if settings.compile:
        compiling.check(key, device)
    if settings.quantisation == "none":
        return
    if device.type == "cpu":
        if settings.quantisation != "int8":
            raise ConfigError(f"{key}.quantisation: {settings.quantisation} is for GPUs; on a CPU there is int8")
    elif device.type == "cuda":
        gpu_quantisation.check(key)
    else:
        raise ConfigError(f"{key}.quantisation: on {device.type} there is none")


def load_weights(
    settings: SourceConfig, key: str, where: Where, load: Load, sources: Sequence[Path], yardstick: QualityProbe
) -> tuple[Any, Weights]:
    """The module, ready to run, and what became of its weights. `sources` are the files or directories they came from.
    Raises ConfigError, and whatever `load` raises.
    """
    check(settings, key, where.device)
    if settings.quantisation == "none":
        module, weights = _placed(load(), where), Weights()
    else:
        module, weights = _quantised(settings, key, where, load, sources, yardstick)
    if settings.compile:
        compiling.compiled(module)
    else:
        unpadded.unpad(module)
        fused_linear.join_siblings(module)
        packing.pack(module)
    return module, weights._replace(serial=settings.compile or _changes(module))


def _quantised(
    settings: SourceConfig, key: str, where: Where, load: Load, sources: Sequence[Path], yardstick: QualityProbe
) -> tuple[Any, Weights]:
    """Of the module as it was no more than its answers are kept, so that there is never more than one of it."""
    figure = Figure(sources, settings.quantisation, *where, yardstick.tokens)
    quality, began = figure.kept(), time.monotonic()
    if quality is not None:
        return _made(settings, key, where, load), Weights(settings.quantisation, quality)
    plain = _placed(load(), where)
    before = _answer(yardstick, plain)
    if where.device.type != "cpu":
        plain = None  # it comes quantised, and this one's memory is free before
    module = _made(settings, key, where, load, plain)
    quality = yardstick.agreement(before, _answer(yardstick, module))
    figure.keep(quality)
    seconds = round(time.monotonic() - began, 2)
    told = {"model": settings.name, "quantisation": settings.quantisation, "quality": quality, "seconds": seconds}
    _log.info("quantised and measured", extra=told)
    return module, Weights(settings.quantisation, quality)


def _made(settings: SourceConfig, key: str, where: Where, load: Load, plain: Any = None) -> Any:
    """The quantised module; on a CPU out of the plain one, where that is there."""
    if where.device.type != "cpu":
        return load(**gpu_quantisation.options(settings.quantisation, *where)).eval()
    module = _placed(load(), where) if plain is None else plain
    if not int8.quantise(module.base_model):
        raise ConfigError(f"{key}.quantisation: the model has no linear layers")
    return module


def _placed(module: Any, where: Where) -> Any:
    return module.to(where.device).eval()


def _changes(module: Any) -> bool:
    """Whether running a module changes it: rotary embeddings that follow the longest input, as transformers has them
    (modeling_rope_utils.dynamic_rope_update).
    """
    kinds = {str(getattr(each, "rope_type", "")) for each in module.modules()}
    return any(word in kind for kind in kinds for word in _FOLLOWING)


@torch.inference_mode()
def _answer(yardstick: QualityProbe, module: Any) -> Tensor:
    return yardstick.answer(module).cpu()
