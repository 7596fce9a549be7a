"""The check that a model has every one of its weights from its files, and that its files hold no others.

transformers fills a weight that is not in the files with random numbers, and leaves out a tensor that the model does
not have. It says both only in a log line. Here either one stops the start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from meshgate.runtime.config import ConfigError

UNUSED: Final = (
    r"(^|\.)(position_ids|inv_freq|masked_bias|num_batches_tracked)$",
    r"(^|\.)(attn|attention|self_attention)\.bias$",  # the causal mask of GPT-2, GPT-Neo and GPT-NeoX
    r"(^|\.)pooler\.",
)
"""Patterns of the tensors that may be missing from the files, or be there without need: no answer depends on them."""
_NAMED: Final = 3
"""How many tensors an error names."""

Load = Callable[..., Any]
"""A model's `from_pretrained`, with the directory and its options filled in."""


def complete(load: Load, key: str, directory: Path, unused: Sequence[str] = ()) -> Load:
    """`load`, which from now on raises ConfigError when files and configuration disagree about a tensor. `key` is the
    model's section; `unused` are patterns of tensors beyond UNUSED that no answer depends on.
    """
    allowed = re.compile("|".join((*UNUSED, *unused)))

    def loaded(**options: Any) -> Any:
        module, found = load(output_loading_info=True, ignore_mismatched_sizes=True, **options)
        problems = _problems(found, allowed)
        if problems:
            raise ConfigError(f"{key}.source: {directory}: {'; '.join(problems)}")
        return module

    return loaded


def _problems(found: dict[str, Any], allowed: re.Pattern[str]) -> list[str]:
    """What is wrong, from transformers' loading information."""
    missing = _but(allowed, found["missing_keys"])
    unexpected = _but(allowed, found["unexpected_keys"])
    shapes = [f"{named(name)} ({_shape(has)} instead of {_shape(wants)})" for name, has, wants in _mismatched(found)]
    told = (
        ("the files lack", [named(name) for name in missing]),
        ("the configuration has no place for", [named(name) for name in unexpected]),
        ("the configuration wants another shape of", shapes),
    )
    return [f"{what} {_listed(names)}" for what, names in told if names]


def _mismatched(found: dict[str, Any]) -> list[tuple[str, Iterable[int], Iterable[int]]]:
    return sorted(found["mismatched_keys"], key=lambda each: str(each[0]))


def _but(allowed: re.Pattern[str], names: Iterable[str]) -> list[str]:
    return sorted(name for name in names if not allowed.search(name))


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def named(name: str, most: int = 120) -> str:
    """A name from a file as it may stand in a log: printable, and not too long."""
    shown = ascii(name)[1:-1]
    return shown if len(shown) <= most else f"{shown[:most]}..."


def _shape(sizes: Iterable[int]) -> str:
    return " x ".join(str(size) for size in sizes) or "one number"
