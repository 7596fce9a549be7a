"""The check that a tokeniser exists, is complete, and fits the model beside it.

transformers makes an empty tokeniser if there are no files, and one that knows only letters if merges are missing.
A token without an embedding in the model fails in the middle of a call.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from transformers import AutoTokenizer

from meshgate.runtime.config import ConfigError
from services.models.starting import starting

_WHOLE: Final = "tokenizer.json"
_NOT_NEEDED: Final = frozenset((_WHOLE, "tokenizer_config.json", "target_vocab.json", "normalizer.json"))
_ANY: Final = ("*.json", "*.txt", "*.model", "*.spm", "*.tiktoken")
_OTHERS: Final = frozenset(("config.json", "generation_config.json", "manifest.json", "model.safetensors.index.json"))
_LONE: Final = ("*.model", "*.tiktoken", "tekken.json")
"""Files that a tokeniser can be made of alone, whatever its class calls them."""
_WORDS: Final = ("hello", "quarterly", "0123", "Übung", "你好", "こんにちは", "привет", "नमस्ते")
_LEAST_PART: Final = 0.5
"""Of a model's vocabulary: models leave some of it empty, but not this much."""


class Checked(Protocol):
    """The part of a transformers tokeniser that is looked at."""

    vocab_files_names: Mapping[str, str]

    def get_vocab(self) -> Mapping[str, int]: ...

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


def load(key: str, directory: Path) -> Any:
    """The tokeniser in a model's directory. Raises ConfigError, naming the section `key`, where it can't be made."""
    if not _likely(directory):
        raise ConfigError(f"{key}.source: {directory}: the tokeniser is missing: there is no {_WHOLE}")
    with starting(key, f"{directory}: the tokeniser"):
        return AutoTokenizer.from_pretrained(directory)


def _likely(directory: Path) -> bool:
    """Whether there is a file that may be a tokeniser's."""
    return any(file.name not in _OTHERS for pattern in _ANY for file in directory.glob(pattern))


def check(tokenizer: Any, rows: int, key: str, directory: Path) -> None:
    """Raises ConfigError, naming the section `key`, for a tokeniser whose files are not all in `directory` or that does
    not go with a model of `rows` embeddings.
    """
    problem = _files(tokenizer, directory) or _words(tokenizer) or _size(tokenizer, rows)
    if problem:
        raise ConfigError(f"{key}.source: {directory}: {problem}")


def _files(tokenizer: Checked, directory: Path) -> str:
    """The missing files of a tokeniser. A class that names none (ByT5) is known by its configuration."""
    names = {str(name) for name in tokenizer.vocab_files_names.values()}
    if (directory / _WHOLE).is_file() or any(next(directory.glob(each), None) for each in _LONE):
        return ""
    needed = (names - _NOT_NEEDED) or ({_WHOLE} if names else {"tokenizer_config.json"})
    missing = _absent(needed, directory)
    return f"the tokeniser is not whole: {' and '.join(missing)} (or {_WHOLE}) is missing" if missing else ""


def _absent(names: Collection[str], directory: Path) -> list[str]:
    return sorted(name for name in names if not (directory / name).is_file())


def _words(tokenizer: Checked) -> str:
    """Whether the tokeniser knows one word from another."""
    ids = {tuple(tokenizer.encode(word, add_special_tokens=False)) for word in _WORDS}
    return "" if len(ids) > 1 else "the tokeniser gives all words the same ids: its vocabulary is not there"


def _size(tokenizer: Checked, rows: int) -> str:
    vocabulary = tokenizer.get_vocab()
    last = max(vocabulary.values(), default=-1)
    if last >= rows:
        return f"the tokeniser has ids up to {last:,}, and the model embeddings for {rows:,} (up to {rows - 1:,})"
    if len(vocabulary) < rows * _LEAST_PART:
        return f"the tokeniser has {len(vocabulary):,} tokens of the model's {rows:,}: it is another model's"
    return ""
