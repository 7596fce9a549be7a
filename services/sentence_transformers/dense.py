"""Dense layers after the pooling, as sentence-transformers has them (its base/modules/dense.py): a linear layer, a
function of each number, and perhaps what went in added to it. They run in float32 on the CPU: a row an input is little.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from meshgate.runtime.config import ConfigError
from meshgate.runtime.config.problems import problems

Step = Callable[[Tensor], Tensor]
"""Vectors, float32 [inputs, dimensions], to others."""

_FUNCTIONS: Final[Mapping[str, type[nn.Module]]] = {
    "torch.nn.modules.linear.Identity": nn.Identity,
    "torch.nn.modules.activation.Tanh": nn.Tanh,
    "torch.nn.modules.activation.GELU": nn.GELU,
    "torch.nn.modules.activation.ReLU": nn.ReLU,
    "torch.nn.modules.activation.SiLU": nn.SiLU,
    "torch.nn.modules.activation.Sigmoid": nn.Sigmoid,
}
"""Those whose name says all of them."""
_VECTOR: Final = "sentence_embedding"
"""The name of the pooled vector in sentence-transformers; a layer of another input is for each token."""


class _Config(BaseModel):
    """A layer's config.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    in_features: int = Field(gt=0, le=1_048_576)
    out_features: int = Field(gt=0, le=1_048_576)
    bias: bool = True
    activation_function: str = "torch.nn.modules.activation.Tanh"
    module_input_name: str = _VECTOR
    module_output_name: str | None = None
    use_residual: bool = False


class Dense(nn.Module):
    """One layer, without its weights."""

    def __init__(self, config: _Config) -> None:
        super().__init__()
        sizes = (config.in_features, config.out_features)
        self.linear = nn.Linear(*sizes, bias=config.bias)
        self._function = _FUNCTIONS[config.activation_function]()
        self._adds = config.use_residual
        if self._adds and config.in_features != config.out_features:
            self.residual = nn.Linear(*sizes, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """[inputs, in] to [inputs, out]."""
        made: Tensor = self._function(self.linear(vectors))
        if not self._adds:
            return made
        return made + (self.residual(vectors) if hasattr(self, "residual") else vectors)


def steps(folder: Path, after: Sequence[str | None], dimensions: int, key: str, *, pickles: bool) -> list[Step]:
    """The steps on vectors of so many `dimensions`; `after` is as Card has it. Raises ConfigError, and the errors
    of reading files.
    """
    made: list[Step] = []
    for name in after:
        if name is None:
            made.append(functional.normalize)
            continue
        layer = _layer(folder / name, f"{key}.source: {name}", pickles=pickles)
        if layer.linear.in_features != dimensions:
            raise ConfigError(f"{key}.source: {name}: it takes {layer.linear.in_features} numbers of {dimensions}")
        made.append(layer)
        dimensions = layer.linear.out_features
    return made


def width(made: Sequence[Step], dimensions: int) -> int:
    """How many numbers the vectors have in the end."""
    return next((each.linear.out_features for each in reversed(made) if isinstance(each, Dense)), dimensions)


def _layer(folder: Path, where: str, *, pickles: bool) -> Dense:
    config = _config(json.loads((folder / "config.json").read_text(encoding="utf-8")), where)
    with torch.device("meta"):  # nothing is made as large as a configuration says, only as large as the file is
        layer = Dense(config)
    weights = _weights(folder, where, pickles=pickles)
    try:
        layer.load_state_dict(weights, assign=True)
    except RuntimeError as error:  # its text has several lines
        raise ConfigError(f"{where}: its weights are not those that its config.json says") from error
    return layer.float().eval()


def _config(said: Any, where: str) -> _Config:
    try:
        config = _Config.model_validate(said)
    except ValidationError as error:
        raise ConfigError(f"{where}: config.json: {problems(error, _Config)[0]}") from error
    if config.activation_function not in _FUNCTIONS:
        raise ConfigError(f"{where}: its function is not served: {config.activation_function}")
    if config.module_input_name != _VECTOR or config.module_output_name not in (None, _VECTOR):
        raise ConfigError(f"{where}: it is not for the pooled vector, so it is not served")
    return config


def _weights(folder: Path, where: str, *, pickles: bool) -> dict[str, Tensor]:
    file = folder / "model.safetensors"
    if file.is_file():
        return load_file(file)
    file = folder / "pytorch_model.bin"
    if not file.is_file():
        raise ConfigError(f"{where}: model.safetensors is missing")
    if not pickles:
        raise ConfigError(
            f"{where}: {file.name} is a pickle, which can hold a program: convert it, or set allow_pickle"
        )
    found: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return found
