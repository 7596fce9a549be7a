"""A tokeniser from a model's directory, as texts are read with it. One that can't be read as transformers does is
refused.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Final

from tokenizers.normalizers import Lowercase
from tokenizers.normalizers import Sequence as Normalizers

from meshgate.runtime.config import ConfigError
from services.models import vocabulary
from services.text import characters
from services.text.literal import literal

_PLAIN: Final = ("Hello world", "A quick, brown fox; 12 dogs.", "Straße café 北京")


def load(directory: Path, key: str) -> tuple[Any, Any]:
    """The tokeniser of transformers, and what a `Tokeniser` is made of. Raises ConfigError, and what reading raises."""
    tokeniser = vocabulary.load(key, directory)
    made = characters.backend(tokeniser)
    return tokeniser, _fast(tokeniser, key) if made is None else made


def _fast(tokeniser: Any, key: str) -> Any:
    kind = type(tokeniser).__name__
    if getattr(tokeniser, "backend_tokenizer", None) is None:
        raise ConfigError(f"{key}.source: a tokeniser of kind {kind} has no fast form, so it is not served")
    expected = [tokeniser(text, add_special_tokens=False)["input_ids"] for text in _PLAIN]
    named = (tokeniser.bos_token, tokeniser.eos_token, tokeniser.sep_token, tokeniser.cls_token, tokeniser.pad_token)
    backend = literal(tokeniser.backend_tokenizer, [name for name in named if name]).backend
    if [each.ids for each in backend.encode_batch(_PLAIN, add_special_tokens=False)] != expected:
        raise ConfigError(f"{key}.source: a tokeniser of kind {kind} does more than its fast form: it is not served")
    return backend


def lower_cased(backend: Any) -> Any:
    """The same for small letters alone, as sentence-transformers has it: they are made small before all else."""
    if isinstance(backend, characters.Characters):
        return dataclasses.replace(backend, lower_case=True)
    first = backend.normalizer
    if "Lowercase(" not in repr(first):
        backend.normalizer = Lowercase() if first is None else Normalizers([Lowercase(), first])
    return backend
