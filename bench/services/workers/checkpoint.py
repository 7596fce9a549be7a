"""A model and its tokeniser from a directory, as transformers' own examples load them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


class Loaded(NamedTuple):
    """On its device."""

    module: Any
    tokenizer: Any


def load() -> Loaded:
    """What the command line names. It never ends by itself: as many tokens are made as were asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--dtype", required=True)
    flags = parser.parse_args()
    module: Any = AutoModelForCausalLM.from_pretrained(
        flags.model, dtype=getattr(torch, flags.dtype), attn_implementation="sdpa"
    )
    module = module.to(flags.device).eval()
    module.generation_config.eos_token_id = None
    module.generation_config.do_sample = False
    tokenizer: Any = AutoTokenizer.from_pretrained(flags.model, padding_side="left")
    return Loaded(module, tokenizer)
