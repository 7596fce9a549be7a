"""torch.compile, for encoders.

Generation is not compiled: each step reads a cache that has grown by a token and is written in place, and what Inductor
makes of that is made again and again.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch

from meshgate.runtime.config import ConfigError, home

_log = logging.getLogger(__name__)


def check(key: str, device: torch.device) -> None:
    """Raises ConfigError where there is nothing to compile with."""
    if device.type == "cuda":
        if find_spec("triton") is None:
            raise ConfigError(f"{key}.compile: on a GPU it needs triton, not installed")
        return
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise ConfigError(f"{key}.compile: on a CPU it needs a C++ compiler, and there is no {compiler} (or $CXX)")


def compiled(module: Any) -> None:
    """Compiles a module in place, for inputs of every size, once it is called. What is made is kept under
    $MESHGATE_HOME: torch's own place for it is in a directory that everyone may write to.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home() / "cache" / "compiled"))
    module.compile(dynamic=True, options={"freezing": True} if _on_cpu(module) else None)


def warm(name: str, key: str, run: Callable[[], object]) -> None:
    """Runs what compiles, and says how long it took. Raises ConfigError where it can't be compiled."""
    began = time.monotonic()
    try:
        run()
    except RuntimeError as error:  # what Dynamo and Inductor raise
        _log.debug("not compiled", exc_info=error)
        raise ConfigError(f"{key}.compile: the model can't be compiled here ({type(error).__name__})") from error
    _log.info("compiled", extra={"model": name, "seconds": round(time.monotonic() - began, 2)})


def _on_cpu(module: Any) -> bool:
    return bool(next(module.parameters()).device.type == "cpu")
