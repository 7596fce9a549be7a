"""The keys of every model's section of a configuration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self, TypeVar

from pydantic import Field, model_validator

from meshgate.runtime.config import Strict

Dtype = Literal["auto", "float32", "bfloat16"]
"""The number format of a model; `auto` is bfloat16 where its device multiplies that natively, else float32."""
Quantisation = Literal["none", "int8", "nf4"]


class SourceConfig(Strict):
    """Which model, and what may be done to get it."""

    source: str = Field(min_length=1, max_length=4096)
    """`package:NAME/FOLDER` (in an installed package), a directory, or a Hugging Face model id."""
    name: str = Field(min_length=1, max_length=256)
    """The name in calls, permissions and limits."""
    aliases: tuple[str, ...] = Field((), max_length=64)
    """Other names that calls may use. Permissions and limits never go by them."""
    revision: str | None = Field(None, min_length=1, max_length=256)
    """Of a hub id: a branch, a tag, or a commit, which alone can't change. Default: the hub's main branch."""
    download: bool = False
    """Whether a hub id that is not in the local cache is fetched at the start; HF_HUB_OFFLINE=1 forbids it anyway."""
    allow_pickle: bool = False
    """Whether weights may come as pytorch_model.bin, which is read as a pickle without code of its own, where there are
    no safetensors.
    """
    quantisation: Quantisation = "none"
    """How the weights of linear layers are kept: `int8`, or on GPUs `nf4`, both there through bitsandbytes."""
    compile: bool = False
    """Whether torch.compile makes an encoder faster, for a longer start."""

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if self.compile and self.quantisation != "none":
            raise ValueError("compile: not together with quantisation")
        return self


ModelT = TypeVar("ModelT", bound=SourceConfig)


def unique(models: Iterable[SourceConfig]) -> None:
    """Raises ValueError where two models share a name or an alias, or one has it twice."""
    names = [name for model in models for name in (model.name, *model.aliases)]
    if len(names) != len(set(names)):
        raise ValueError("names and aliases of models must differ from each other")
