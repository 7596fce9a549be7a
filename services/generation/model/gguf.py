"""GGUF files to model directories.

transformers reads GGUF inside from_pretrained, and there it insists on accelerate, which nothing else here needs. The
reader itself does not: it is called directly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, modeling_gguf_pytorch_utils
from transformers.utils import logging

# What transformers leaves untyped.
_from_config: Any = AutoModelForCausalLM.from_config
_read: Any = modeling_gguf_pytorch_utils.load_gguf_checkpoint
_logging: Any = logging


def quieten() -> None:
    """Errors alone in the log, and no progress bars."""
    _logging.set_verbosity_error()
    _logging.disable_progress_bar()


def convert(gguf: Path, directory: Path) -> None:
    """Writes the model, in bfloat16, its tokeniser and its chat template. Raises ValueError for a GGUF that lacks
    weights of its architecture.
    """
    quieten()
    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    AutoTokenizer.from_pretrained(**where).save_pretrained(directory)
    config = AutoConfig.from_pretrained(**where)
    with torch.device("meta"):
        model = _from_config(config, dtype=torch.bfloat16)
    read = _read(str(gguf), return_tensors=True, model_to_load=model, torch_dtype=torch.bfloat16)
    absent = set(model.load_state_dict(read["tensors"], strict=False, assign=True).missing_keys)
    model.tie_weights()
    lacking = sorted(name for name in absent if model.get_parameter(name).is_meta)
    if lacking:
        raise ValueError(f"the GGUF file lacks {len(lacking):,} weights of its architecture: {', '.join(lacking[:3])}")
    model.save_pretrained(directory)
