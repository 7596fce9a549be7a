"""The environment of the models' libraries. Import this module before them: they read it when they are imported.

Caches lie in the mesh's state directory, because a server's user may have no home, or none that it may write to.
Variables that are set already stay as they are. Progress bars are for terminals, and a log has none.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from meshgate.state import home

_CACHES: Final = {
    "HF_HOME": "huggingface",
    "TORCH_HOME": "torch",
    "TORCH_EXTENSIONS_DIR": "torch-extensions",
    "TORCHINDUCTOR_CACHE_DIR": "compiled",
    "TRITON_CACHE_DIR": "triton",
    "CUDA_CACHE_PATH": "cuda",
    "NUMBA_CACHE_DIR": "numba",
    "XDG_CACHE_HOME": "other",
}
"""Variables to folders of `cache` in the state directory."""
_QUIET: Final = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1"}
_HUB: Final = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")


def _personal() -> Path | None:
    """Where Hugging Face's library would have its cache: in the user's own, if there is one."""
    if any(os.environ.get(name) for name in _HUB):
        return None
    found = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "huggingface"  # noqa: PTH111 - without a home it stays as it is
    return found if os.access(found, os.R_OK | os.X_OK) else None


PERSONAL: Final = _personal()
"""A cache of models that the user has beside the mesh's: models are looked for there too, and never written."""

if PERSONAL is not None and os.access(PERSONAL / "token", os.R_OK):
    os.environ.setdefault("HF_TOKEN_PATH", str(PERSONAL / "token"))
for _name, _folder in _CACHES.items():
    if _name != "HF_HOME" or not any(os.environ.get(each) for each in _HUB):
        os.environ.setdefault(_name, str(home() / "cache" / _folder))
for _name, _value in _QUIET.items():
    os.environ.setdefault(_name, _value)
