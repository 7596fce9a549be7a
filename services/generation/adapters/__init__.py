"""LoRA adapters: small changes of a model's weights (Hu et al. 2021), of one tenant or for all, named call by call.

What is on disk decides who may name what (`shelf.py`), every number is checked before it is used (`recipe.py`,
`lora.py`), those used lately stay in memory (`loaded.py`), and rows of one batch have one each (`adapting.py`).
"""

from services.generation.adapters.adapter_factory import opened
from services.generation.adapters.loaded_adapters import Adapters
from services.generation.adapters.lora_layers import Adapting

__all__ = ["Adapters", "Adapting", "opened"]
