"""The application of the embedding service."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import grpc

from meshgate.v1 import embedding_pb2_grpc, models_pb2, models_pb2_grpc
from services.common.encoder_app import EncoderApp, subprocess_host
from services.embedding import model_proxy
from services.embedding.config import EmbeddingConfig, ModelConfig
from services.embedding.model_proxy import Item, ModelProxy, Vector
from services.embedding.servicer import EmbeddingServicer, Models, Served
from services.embedding.validate import Bounds
from services.model_process import Host
from services.models.listing import ModelServicer
from services.models.model_table import ModelTable
from services.models.reloader import Reloader
from services.text.tokens import Cut

_PROBE: Final = "The quick brown fox jumps over the lazy dog."
_LOAD: Final = "services.embedding.model_worker:load"


class App(EncoderApp[EmbeddingConfig, ModelTable[Served], Item, Vector]):
    """The embedding service."""

    name = "embedding"

    def __init__(self, config: EmbeddingConfig, path: Path | None = None, host: Host | None = None) -> None:
        """`path` is the configuration file to watch; None watches none. `host` runs the models; None runs them in this
        process.
        """
        super().__init__(config, config.engine, model_proxy.run, path, host)
        self._reloader = Reloader[ModelConfig, Served](self._load)

    async def reload(self, config: EmbeddingConfig) -> None:
        """Serves the models of a configuration and no others. Raises ConfigError; the models in service then stay."""
        self._slot.served = ModelTable(await self._reloader.load(config.sections))

    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """Adds the servicers and returns their full service names."""
        embedding_pb2_grpc.add_EmbeddingServiceServicer_to_server(EmbeddingServicer(self._slot), server)
        models_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(lambda: self._slot.get().cards), server)
        return ("meshgate.v1.EmbeddingService", "meshgate.v1.ModelService")

    async def _start_models(self) -> None:
        self._start_host()
        await self.reload(self._config)
        self._start_batcher(self._slot.get().default.model.facts.threads)

    def _trial_input(self) -> Item:
        return model_proxy.sound(_DefaultModel(self._slot))

    def _load(self, config: ModelConfig, key: str) -> Served:
        engine = self._config.engine
        loaded = ModelProxy(self._host.load(_LOAD, config, key, engine.threads))
        card = loaded.facts.card
        bounds = Bounds(
            max_batch=engine.max_batch,
            dimensions=loaded.facts.dimensions,
            pooling=card.pooling,
            prompts={**card.prompts, **config.prompts},
            default_prompt=card.default_prompt,
            normalised=card.normalised,
            kept=card.dimensions,
        )
        return Served(
            loaded, self._batcher, bounds, _card(config, loaded, bounds, default=key == "model"), self._preparing
        )


class _DefaultModel:
    """The model that is the default at the time of the run."""

    def __init__(self, slot: Models) -> None:
        self._slot = slot

    def run(self, batch: Sequence[Item]) -> list[Vector]:
        """Runs a plain text in place of each input: not every kind of model accepts a fixed list of token ids."""
        model = self._slot.get().default.model
        tokens = model.tokeniser.read([_PROBE] * len(batch), Cut.END, "inputs")
        return model.run([replace(item, tokens=each) for item, each in zip(batch, tokens, strict=True)])


def build(config: EmbeddingConfig, path: Path | None = None) -> App:
    """The service of a configuration, with its models in a process of their own. Loads nothing yet. Needs a running
    event loop.
    """
    return App(config, path, subprocess_host(App.name, config.engine))


def _card(config: ModelConfig, loaded: ModelProxy, bounds: Bounds, *, default: bool) -> models_pb2.Model:
    card = models_pb2.Model(
        name=config.name,
        aliases=config.aliases,
        capabilities=[models_pb2.CAPABILITY_EMBED],
        default=default,
        max_input_tokens=loaded.tokeniser.max_tokens,
        max_batch=bounds.max_batch,
        dimensions=bounds.dimensions,
        prompt_names=sorted(bounds.prompts),
        dtype=loaded.facts.dtype,
        device=loaded.facts.device,
        quantisation=loaded.facts.quantisation,
        quality=loaded.facts.quality,
    )
    if bounds.default_prompt:
        card.default_prompt_tokens = loaded.tokeniser.count(bounds.prompts[bounds.default_prompt])
    card.loaded_at.FromSeconds(int(time.time()))
    return card
