"""Checks of every field of EmbeddingService, and the plan that comes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from meshgate.errors import InvalidArgument
from meshgate.v1 import embedding_pb2 as pb
from services.common import checks
from services.embedding.config import PROMPT_NAME_BYTES
from services.encoders.pooling import Pooling
from services.text.tokens import Cut

_POOLINGS: Final = {pb.POOLING_MEAN: Pooling.MEAN, pb.POOLING_CLS: Pooling.CLS, pb.POOLING_LAST: Pooling.LAST}
_CUTS: Final = {pb.TRUNCATION_START: Cut.START, pb.TRUNCATION_END: Cut.END}


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of one model."""

    max_batch: int
    dimensions: int
    pooling: Pooling
    prompts: dict[str, str]
    default_prompt: str = ""
    """The name of the one that a call has which names none."""
    normalised: bool = True
    """Whether vectors are scaled to norm 1 where a call does not say."""
    kept: int | None = None
    """How many dimensions a call gets that does not say; None is all."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A checked request."""

    inputs: list[str]
    """With the prompt before each."""
    dimensions: int
    normalise: bool
    pooling: Pooling
    cut: Cut
    encoding: pb.EmbeddingEncoding.ValueType
    yields: bool


def plan(request: pb.EmbedRequest, bounds: Bounds, *, bulk: bool = False) -> Plan:
    """Raises InvalidArgument, naming the field. The model was found before."""
    checks.texts("inputs", request.inputs, bounds.max_batch)
    options = request.options
    checks.known("options.pooling", options.pooling, pb.Pooling)
    checks.known("options.truncation", options.truncation, pb.Truncation)
    checks.known("options.encoding", options.encoding, pb.EmbeddingEncoding)
    prompt = _prompt(options.prompt_name, bounds)
    return Plan(
        inputs=[prompt + text for text in request.inputs],
        dimensions=_dimensions(options, bounds),
        normalise=options.normalise if options.HasField("normalise") else bounds.normalised,
        pooling=_POOLINGS.get(options.pooling, bounds.pooling),
        cut=_CUTS.get(options.truncation, Cut.REFUSE),
        encoding=options.encoding,
        yields=checks.is_batch(options.priority, bulk=bulk),
    )


def _dimensions(options: pb.EmbedOptions, bounds: Bounds) -> int:
    if not options.HasField("dimensions"):
        return min(bounds.kept or bounds.dimensions, bounds.dimensions)
    checks.in_range("options.dimensions", options.dimensions, 1, bounds.dimensions)
    return options.dimensions


def _prompt(name: str, bounds: Bounds) -> str:
    checks.size("options.prompt_name", name, 0, PROMPT_NAME_BYTES)
    if name and name not in bounds.prompts:
        known = ", ".join(sorted(bounds.prompts)) or "none"
        raise InvalidArgument.of("options.prompt_name", f"not a prompt of this model; it has: {known}")
    chosen = name or bounds.default_prompt
    return bounds.prompts[chosen] if chosen else ""
