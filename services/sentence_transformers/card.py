"""The properties of a model from sentence-transformers' files beside it.

They list the modules that a text passes. Meshgate runs the encoder, a pooling and Dense layers (`dense.py`). Scaling to
norm 1 at the end is a caller's choice. A model with another module would give wrong vectors, so it is refused. Each key
of these files is served, or refused by its name, or has no part in a vector (`backend`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from meshgate.runtime.config import ConfigError
from services.encoders.pooling import Pooling
from services.sentence_transformers import transformer_config
from services.sentence_transformers.transformer_config import read

_OURS: Final = "sentence_transformers."
"""Where the types of modules are from; those of others are code that comes beside a model."""
_AFTER: Final = frozenset(("Normalize", "Dense", "Dropout"))
"""The modules that may follow the pooling. Dropout does nothing outside training."""
_VECTOR: Final = "sentence_embedding"
_MODES: Final = {
    "mean": Pooling.MEAN,
    "cls": Pooling.CLS,
    "lasttoken": Pooling.LAST,
    "max": Pooling.MAX,
    "mean_sqrt_len_tokens": Pooling.SQRT,
    "weightedmean": Pooling.WEIGHTED,
}
_FLAGS: Final = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
"""How modes were written before sentence-transformers 5.4: a flag for each."""
_SCALED: Final = frozenset((None, "cosine"))
"""Similarities for which a vector's length says nothing."""
_UNSCALED: Final = frozenset(("dot", "dot_score", "euclidean", "manhattan"))


@dataclass(frozen=True)
class Card:
    """The properties, with defaults for missing files."""

    pooling: Pooling = Pooling.MEAN
    max_tokens: int | None = None
    """None where the tokeniser's own limit holds."""
    lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str = ""
    """Its name; a call that names none has it."""
    after: Sequence[str | None] = ()
    """The steps after the pooling: the folder of a Dense layer, or None for a scaling to norm 1 between two."""
    normalised: bool = True
    """Whether vectors are scaled to norm 1 where a call does not say: not those that are compared by a dot product or a
    distance.
    """
    dimensions: int | None = None
    """How many of a vector's numbers are kept where a call does not say; None is all."""


def read_card(folder: Path, key: str) -> Card:
    """Reads them for the model of the section `key`. Raises ConfigError for what we don't serve, and ValueError for
    what is no JSON.
    """
    where = f"{key}.source"
    place, after = _places(folder, where)
    said = read(folder / "config_sentence_transformers.json")
    _check_kind(said, where)
    prompts = {str(name): str(text) for name, text in (said.get("prompts") or {}).items() if text is not None}
    encoder = transformer_config.read_transformer(folder, where)
    return Card(
        pooling=_pooling(folder, place, where),
        max_tokens=encoder.max_tokens,
        lower_case=encoder.lower_case,
        prompts=prompts,
        default_prompt=_default_prompt(said, prompts, where),
        after=_trimmed(after),
        normalised=_compared_by_angle(said, where) or after[-1:] == [None],
        dimensions=_dimensions(said, where),
    )


def _trimmed(after: Sequence[str | None]) -> list[str | None]:
    """Without the scaling in the end."""
    kept = list(after)
    while kept and kept[-1] is None:
        kept.pop()
    return kept


def _check_kind(said: Mapping[str, Any], where: str) -> None:
    kind = said.get("model_type")
    if kind not in (None, "SentenceTransformer"):
        raise ConfigError(f"{where}: config_sentence_transformers.json: a model_type of {kind!r} is not served")


def _default_prompt(said: Mapping[str, Any], prompts: Mapping[str, str], where: str) -> str:
    name = said.get("default_prompt_name")
    if name is not None and name not in prompts:
        raise ConfigError(f"{where}: config_sentence_transformers.json: default_prompt_name: no such prompt: {name!r}")
    return name or ""


def _compared_by_angle(said: Mapping[str, Any], where: str) -> bool:
    name = said.get("similarity_fn_name")
    if name not in _SCALED | _UNSCALED:
        raise ConfigError(f"{where}: config_sentence_transformers.json: similarity_fn_name: {name!r} is not served")
    return name in _SCALED


def _dimensions(said: Mapping[str, Any], where: str) -> int | None:
    found = said.get("truncate_dim")
    if found is None or (isinstance(found, int) and not isinstance(found, bool) and found > 0):
        return found
    raise ConfigError(f"{where}: config_sentence_transformers.json: truncate_dim: {found!r} is no number of dimensions")


def _places(folder: Path, where: str) -> tuple[str, list[str | None]]:
    """Where the pooling is described, and what follows it. Raises ConfigError for a module that we don't have, or have
    elsewhere.
    """
    pooling, after = "", list[str | None]()
    modules = _modules(folder)
    for index, module in enumerate(modules):
        name, path = _served(module, where, first=index == 0, pooled=bool(pooling))
        if name == "Pooling":
            pooling = path
        elif name == "Dense":
            after.append(path)
        elif name == "Normalize":
            _check_normalize(folder / path, f"{where}: {path}")
            after.append(None)
    if modules and not pooling:
        raise ConfigError(f"{where}: modules.json: there is no Pooling, and without one nothing is served")
    return pooling or "1_Pooling", after


def _served(module: Mapping[str, Any], where: str, *, first: bool, pooled: bool) -> tuple[str, str]:
    """The name of a module and its folder."""
    kind, path = str(module["type"]), str(module["path"])
    name = kind.rpartition(".")[2]
    served = name in _AFTER if pooled else name == ("Transformer" if first else "Pooling")
    if not kind.startswith(_OURS) or not served:
        raise ConfigError(f"{where}: the model has a module that is not served: {path or '.'} ({kind})")
    if module.get("kwargs"):
        raise ConfigError(f"{where}: modules.json: kwargs of {path or '.'} are not served")
    if name == "Transformer" and path not in ("", "."):
        raise ConfigError(f"{where}: modules.json: the encoder is in {path}: that folder is not served")
    return name, Path(path).name


def _check_normalize(folder: Path, where: str) -> None:
    said = read(folder / "config.json")
    for key in ("module_input_name", "module_output_name"):
        if said.get(key) not in (None, _VECTOR):
            raise ConfigError(f"{where}: it is not for the pooled vector, so it is not served")


def _modules(folder: Path) -> list[dict[str, Any]]:
    path = folder / "modules.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ValueError("modules.json is no list of modules")
    return found


def _pooling(folder: Path, place: str, where: str) -> Pooling:
    config = read(folder / place / "config.json")
    asked = _asked(config) or [_usual(folder)]
    if len(asked) != 1 or asked[0] not in _MODES:
        raise ConfigError(f"{where}: the model's pooling is not served: {', '.join(asked)}")
    if config.get("include_prompt") is False:
        raise ConfigError(f"{where}: the model's pooling is not served: it leaves the prompt out")
    return _MODES[asked[0]]


def _asked(config: Mapping[str, Any]) -> list[str]:
    """The modes that are asked for; more than one are concatenated."""
    mode = config.get("pooling_mode")
    if mode is not None:
        return [str(each) for each in mode] if isinstance(mode, list) else [str(mode)]
    flags = [name for name, on in config.items() if name.startswith("pooling_mode_") and on is True]
    return [_FLAGS.get(name, name) for name in flags] or (["mean"] if config else [])


def _usual(folder: Path) -> str:
    """The default pooling of sentence-transformers: for a language model the last token, which attends to all."""
    said = read(folder / "config.json")
    architectures = said.get("architectures") or [""]
    causal = str(architectures[0]).endswith("ForCausalLM") and said.get("is_causal", True)
    return "lasttoken" if causal and not (folder / "modules.json").is_file() else "mean"
