"""The configuration of the generation service."""

from __future__ import annotations

import logging
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from meshgate.runtime.config import ConfigPath, Strict
from services.common.config_base import EngineLimits, ServiceConfig, named_sections
from services.models.config import SourceConfig, unique

_log = logging.getLogger(__name__)


class AdaptersConfig(Strict):
    """LoRA adapters that calls may name, for one model."""

    directory: ConfigPath
    """Of the tenants' own: in it a folder for each tenant, and in that one for each adapter."""
    shared: ConfigPath | None = None
    """Of those that are for all tenants: a folder for each adapter."""
    preload: tuple[str, ...] = Field((), max_length=1024)
    """Loaded with the model: `tenant/name`, or `name` for one that is shared. Others are when they are first named."""
    bases: tuple[str, ...] = Field((), max_length=64)
    """What an adapter may name as the model that it was made for; anything where there are none."""
    rank: int = Field(64, ge=1, le=1024)
    """The highest."""
    file_bytes: int = Field(268_435_456, ge=1024, le=17_179_869_184)
    """The most that an adapter's numbers take on disk."""
    memory_bytes: int = Field(1_073_741_824, ge=1024, le=1_099_511_627_776)
    """The most that all loaded adapters take together; those used longest ago make room."""
    per_tenant: int = Field(16, ge=1, le=10_000)
    """How many of a tenant may be loaded at once."""


class ModelConfig(SourceConfig):
    """Which model, and how it is run. Its source may also be `packaged` (SmolLM2-135M-Instruct from PyPI), or a .gguf
    file.
    """

    source: str = Field("packaged", min_length=1, max_length=4096)
    name: str = Field("SmolLM2-135M-Instruct", min_length=1, max_length=256)
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """`auto` is bfloat16 where the device multiplies it natively, else float32."""
    device: str = Field("auto", min_length=1, max_length=64)
    """`auto` is the first GPU, else `cpu`; or what torch.device takes."""
    max_context: int = Field(2048, ge=16, le=1_048_576)
    """Tokens, input and output together, or each of an encoder-decoder; no more than the model was trained for is
    used.
    """
    max_output_tokens: int = Field(1024, ge=1, le=1_048_576)
    """The most tokens of one candidate."""
    adapters: AdaptersConfig | None = None
    """Without it there are none; not where tensor_parallel is more than 1."""


class EngineConfig(EngineLimits):
    """How many sequences share a model. Each model has an engine of its own."""

    max_batch: int = Field(32, ge=1, le=1024)
    """Sequences (candidates) advanced together. The cache takes memory for max_batch + 1 contexts as they fill."""
    max_queue: int = Field(64, ge=0, le=100_000)
    """Sequences that may wait beyond those that run. One tenant alone gets three quarters of both together."""
    queue_tokens: int = Field(131_072, ge=1, le=1_073_741_824)
    """The maximum number of prompt tokens in progress; one tenant alone gets three quarters."""
    reserved_rows: int = Field(1, ge=0, le=1024)
    """The last free rows of the batch, for interactive calls of tenants that have none in it. A batch of one row
    reserves none. The old name `guest_rows` is read for one release.
    """
    prefill_tokens: int = Field(128, ge=1, le=1_048_576)
    """The maximum number of prompt tokens that are prefilled between two decode steps. A higher value prefills faster;
    a lower value keeps streams smooth.
    """
    prefix_cache_bytes: int = Field(134_217_728, ge=0, le=1_099_511_627_776)
    """Of a model and device, for the beginnings that prompts of one tenant share; 0 keeps none."""
    tensor_parallel: int = Field(1, ge=1, le=64)
    """Processes that hold a part of the model each, one a GPU; more than one are started by torchrun."""

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, given: Any) -> Any:
        """Reads `reserved_rows` from its old name, for one release."""
        if not isinstance(given, dict) or "guest_rows" not in given:
            return given
        if "reserved_rows" in given:
            raise ValueError("guest_rows is the old name of reserved_rows: remove guest_rows")
        _log.warning("engine.guest_rows is the old name of engine.reserved_rows: rename it before the next release")
        renamed = {name: value for name, value in given.items() if name != "guest_rows"}
        return {**renamed, "reserved_rows": given["guest_rows"]}


class GenerationConfig(ServiceConfig):
    """The configuration file of the service."""

    model: ModelConfig = ModelConfig.model_validate({})
    """The default."""
    models: tuple[ModelConfig, ...] = Field((), max_length=64)
    """Others beside it; not where tensor_parallel is more than 1."""
    engine: EngineConfig = EngineConfig.model_validate({})

    @property
    def sections(self) -> dict[str, ModelConfig]:
        """Every model by its key in this configuration; the default first."""
        return named_sections(self.model, self.models)

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        unique(self.sections.values())
        if self.models and self.engine.tensor_parallel > 1:
            raise ValueError("with engine.tensor_parallel there is one model")
        if self.model.quantisation != "none" and self.engine.tensor_parallel > 1:
            raise ValueError("model.quantisation: not with engine.tensor_parallel")
        for key, section in self.sections.items():
            if section.compile:
                raise ValueError(f"{key}.compile: only encoders (embedding, classification) are compiled")
        if self.engine.tensor_parallel > 1 and self.model.adapters is not None:
            raise ValueError("with engine.tensor_parallel there are no adapters")
        return self
