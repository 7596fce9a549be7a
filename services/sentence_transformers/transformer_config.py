"""The encoder's settings in sentence_bert_config.json: its length, its letter case, and its arguments."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from meshgate.runtime.config import ConfigError

_NAMES: Final = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""The files in the order of sentence-transformers, which reads the first that exists."""
_ARGUMENTS: Final[Mapping[str, Collection[str]]] = {
    "model": frozenset(("trust_remote_code", "torch_dtype", "dtype", "attn_implementation", "use_safetensors")),
    "config": frozenset(("trust_remote_code", "use_cache")),
    "processor": frozenset(("trust_remote_code", "use_fast", "model_max_length", "padding_side")),
}
"""Arguments that are served, or have no part in a vector. Others change the model."""
_OLD: Final = {"processor": "tokenizer"}
_ONLY: Final[Mapping[str, Collection[Any]]] = {
    "transformer_task": (None, "feature-extraction"),
    "module_output_name": (None, "token_embeddings"),
    "query_length": (None,),
    "document_length": (None,),
    "query_expansion": (None,),
    "tokenizer_name_or_path": (None,),
}
"""Keys that are served with these values only."""
_STATES: Final = ("last_hidden_state", ["last_hidden_state"])


class Transformer(NamedTuple):
    """The settings of the encoder."""

    max_tokens: int | None
    lower_case: bool


def read(path: Path) -> dict[str, Any]:
    """The object in a file of JSON; empty where there is no such file, or something else in it."""
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}


def read_transformer(folder: Path, where: str) -> Transformer:
    """Raises ConfigError, with the file and the key, for what is not served, and ValueError for what is no JSON."""
    name = next((each for each in _NAMES if (folder / each).is_file()), _NAMES[0])
    said, where = read(folder / name), f"{where}: {name}"
    for key, values in _ONLY.items():
        if said.get(key) not in values:
            raise ConfigError(f"{where}: {key} of {said[key]!r} is not served")
    _check_modality(said.get("modality_config"), where)
    if said.get("processing_kwargs"):
        raise ConfigError(f"{where}: processing_kwargs is not served")
    limits = [said.get("max_seq_length"), _arguments(said, where).get("model_max_length")]
    return Transformer(_length(limits, where), _lower(said.get("do_lower_case"), where))


def _check_modality(said: Any, where: str) -> None:
    """Texts are to go through the whole model, and its last states are to be pooled."""
    if said is None:
        return
    text = said.get("text") if isinstance(said, dict) else None
    served = isinstance(text, dict) and text.get("method") == "forward" and text.get("method_output_name") in _STATES
    if not served:
        raise ConfigError(f"{where}: modality_config: the way of a text through it is not served")


def _arguments(said: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Those of the tokeniser. Raises ConfigError for any that change the model."""
    found: dict[str, Any] = {}
    for part, served in _ARGUMENTS.items():
        for key in (f"{_OLD.get(part, part)}_args", f"{part}_kwargs"):
            given = said.get(key) or {}
            other = sorted(set(given) - set(served))
            if other:
                raise ConfigError(f"{where}: {key}.{other[0]} is not served")
            found |= given if part == "processor" else {}
    return found


def _length(limits: list[Any], where: str) -> int | None:
    given = [limit for limit in limits if limit is not None]
    if any(isinstance(limit, bool) or not isinstance(limit, int) or limit < 1 for limit in given):
        raise ConfigError(f"{where}: max_seq_length: {given[0]!r} is no number of tokens")
    return given[-1] if given else None


def _lower(said: Any, where: str) -> bool:
    if said not in (None, True, False):
        raise ConfigError(f"{where}: do_lower_case: {said!r} is neither true nor false")
    return bool(said)
