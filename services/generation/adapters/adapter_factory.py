"""Adapters of a model, as its configuration says."""

from __future__ import annotations

import logging
from typing import Any

from meshgate.errors import MeshError
from meshgate.runtime.config import ConfigError
from services.generation.adapters.adapter_store import AdapterStore
from services.generation.adapters.loaded_adapters import LoadedAdapters
from services.generation.adapters.lora import LoraLoader
from services.generation.adapters.lora_layers import LoraLayers
from services.generation.config import AdaptersConfig

_log = logging.getLogger(__name__)


def open_adapters(
    config: AdaptersConfig | None, module: Any, key: str
) -> tuple[LoraLayers | None, LoadedAdapters | None]:
    """What changes the layers of `module`, and what it changes them by; nothing where there are no adapters. Blocks
    until those to be preloaded are. Raises ConfigError, naming the model's section `key`.
    """
    if config is None:
        return None, None
    for name, directory in (("directory", config.directory), ("shared", config.shared)):
        if directory is not None and not directory.is_dir():
            raise ConfigError(f"{key}.adapters.{name}: {directory}: no such directory")
    adapter_layers = LoraLayers(module)
    fitting = LoraLoader(adapter_layers.sizes, module.dtype, module.device, config.rank, config.bases)
    shelf = AdapterStore(config.directory, config.shared, config.file_bytes)
    adapters = LoadedAdapters(shelf, fitting, memory=config.memory_bytes, per_tenant=config.per_tenant)
    for entry in config.preload:
        _preload(adapters, entry, key)
    return adapter_layers, adapters


def _preload(adapters: LoadedAdapters, entry: str, key: str) -> None:
    """One that can't be loaded is its owner's to mend, and says so when it is named: it does not stop the start."""
    tenant, _, name = entry.rpartition("/")
    try:
        adapters.preload(tenant, name)
    except MeshError as error:
        _log.warning("%s.adapters.preload: %s: %s", key, entry, error.message)
