"""LoRA adapters: small changes of a model's weights (Hu et al. 2021), of one tenant or for all, named call by call.

What is on disk decides who may name what (`shelf.py`), every number is checked before it is used (`recipe.py`,
`lora.py`), those used lately stay in memory (`loaded.py`), and rows of one batch have one each (`adapting.py`).
"""

from services.generation.adapters.adapting import Adapting
from services.generation.adapters.loaded import Adapters
from services.generation.adapters.opening import opened

__all__ = ["Adapters", "Adapting", "opened"]
