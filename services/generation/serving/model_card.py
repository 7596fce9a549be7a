"""The entry of a model in ListModels."""

from __future__ import annotations

import time

from meshgate.v1 import models_pb2 as pb
from services.generation.engine.loaded_model import LoadedModel
from services.generation.serving.limits import Limits


def card(limits: Limits, causal: LoadedModel, *, chat: bool, default: bool, adapters: bool = False) -> pb.Model:
    """The card of a model that is ready to serve, with every limit of it.

    `adapters` is whether it may have adapters; which ones depends on the caller.
    """
    made = pb.Model(
        name=limits.name,
        aliases=limits.aliases,
        capabilities=[pb.CAPABILITY_GENERATE, *([pb.CAPABILITY_CHAT] if chat else [])],
        default=default,
        max_input_tokens=limits.context,
        max_source_tokens=limits.source,
        max_output_tokens=limits.max_output_tokens,
        max_candidates=limits.max_candidates,
        dtype=causal.dtype,
        device=causal.device,
        quantisation=causal.weights.quantisation,
        quality=causal.weights.quality,
        more_adapters=adapters,
    )
    made.loaded_at.FromSeconds(int(time.time()))
    return made
