"""LoRA adapters: small changes of a model's weights (Hu et al. 2021), of one tenant or for all, named call by call.

The folders on disk decide which tenant may name which adapter (`adapter_store.py`). Every number is checked before it
is used (`lora_config.py`, `lora.py`). Recently used adapters stay in memory (`loaded_adapters.py`), and each row of a
batch can have its own (`lora_layers.py`).
"""

from services.generation.adapters.adapter_factory import open_adapters
from services.generation.adapters.loaded_adapters import LoadedAdapters
from services.generation.adapters.lora_layers import LoraLayers

__all__ = ["LoadedAdapters", "LoraLayers", "open_adapters"]
