"""What sentence-transformers' files beside a model say of it.

They list the modules that a text passes. What we run is the encoder, a pooling and Dense layers (`dense.py`); scaling
to norm 1 in the end is a caller's choice. A model with anything else would answer with vectors that are not its own, so
it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from meshgate.runtime.config import ConfigError
from services.pooling import Pooling

_OURS: Final = "sentence_transformers."
"""Where the types of modules are from; those of others are code that comes beside a model."""
_AFTER: Final = frozenset(("Normalize", "Dense", "Dropout"))
"""What may follow the pooling. Dropout does nothing where nobody trains."""
_MODES: Final = {"mean": Pooling.MEAN, "cls": Pooling.CLS, "lasttoken": Pooling.LAST}
_FLAGS: Final = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
}
"""How modes were written before sentence-transformers 5.4: a flag for each."""


@dataclass(frozen=True)
class Card:
    """What the files say; the usual where there are none."""

    pooling: Pooling = Pooling.MEAN
    max_tokens: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    after: Sequence[str | None] = ()
    """What follows the pooling: the folder of a Dense layer, or None where vectors are scaled to norm 1 between two."""


def read_card(folder: Path, key: str) -> Card:
    """Reads them for the model of the section `key`. Raises ConfigError for a module or a pooling that we don't have,
    and ValueError for what is no JSON.
    """
    place, after = _places(folder, key)
    return Card(
        pooling=_pooling(_read(folder / place / "config.json"), key),
        max_tokens=_read(folder / "sentence_bert_config.json").get("max_seq_length"),
        prompts=_read(folder / "config_sentence_transformers.json").get("prompts") or {},
        after=after,
    )


def _places(folder: Path, key: str) -> tuple[str, list[str | None]]:
    """Where the pooling is described, and what follows it. Raises ConfigError for a module that we don't have, or have
    elsewhere.
    """
    pooling, after = "", list[str | None]()
    for module in _modules(folder):
        kind, path = str(module["type"]), str(module["path"])
        name = kind.rpartition(".")[2]
        served = name in _AFTER if pooling else name in ("Transformer", "Pooling")
        if not kind.startswith(_OURS) or not served:
            raise ConfigError(f"{key}.source: the model has a module that is not served: {path or '.'} ({kind})")
        if name == "Pooling":
            pooling = Path(path).name
        elif name in ("Dense", "Normalize"):
            after.append(Path(path).name if name == "Dense" else None)
    while after and after[-1] is None:
        after.pop()
    return pooling or "1_Pooling", after


def _modules(folder: Path) -> list[dict[str, Any]]:
    path = folder / "modules.json"
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ValueError("modules.json is no list of modules")
    return found


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {}


def _pooling(config: Mapping[str, Any], key: str) -> Pooling:
    asked = _asked(config)
    if len(asked) != 1 or asked[0] not in _MODES:
        raise ConfigError(f"{key}.source: the model's pooling is not served: {', '.join(asked)}")
    if config.get("include_prompt") is False:
        raise ConfigError(f"{key}.source: the model's pooling is not served: it leaves the prompt out")
    return _MODES[asked[0]]


def _asked(config: Mapping[str, Any]) -> list[str]:
    """The modes that are asked for; more than one are concatenated."""
    mode = config.get("pooling_mode")
    if mode is not None:
        return [str(each) for each in mode] if isinstance(mode, list) else [str(mode)]
    flags = [name for name, on in config.items() if name.startswith("pooling_mode_") and on is True]
    return [_FLAGS.get(name, name) for name in flags] or ["mean"]
