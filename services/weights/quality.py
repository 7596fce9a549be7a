"""What quantisation left of a model's quality: how much its answers to texts of ours agree with those it gave before.

A figure of our own for this very checkpoint, from 0 to 1, and not one of a paper's. It is measured when the model is
first loaded so, and kept under $MESHGATE_HOME/cache/quality from then on. What is kept is a number; nobody's answers
depend on it, so it has no digest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from meshgate.runtime.config import home

_log = logging.getLogger(__name__)

_VERSION: Final = 1  # of what is measured: raise it and old figures are not used


class QualityProbe(NamedTuple):
    """What is asked of a model, before and after, and how much two of its answers agree, from 0 to 1."""

    answer: Callable[[Any], Tensor]
    agreement: Callable[[Tensor, Tensor], float]
    tokens: int
    """Where what is asked is cut."""


def texts() -> list[str]:
    """Ours, one a line: prose, questions, opinions, code, in several languages."""
    return files(__package__).joinpath("texts.txt").read_text(encoding="utf-8").splitlines()


def same(before: Tensor, after: Tensor) -> float:
    """The part of the places where both say the same."""
    return float((before == after).double().mean())


def cosine(before: Tensor, after: Tensor) -> float:
    """The mean cosine of vectors [texts, dimensions]; opposite counts as nothing in common."""
    return max(0.0, float(functional.cosine_similarity(before.double(), after.double(), dim=1).mean()))


def labels(before: Tensor, after: Tensor) -> float:
    """The part of the texts (or tokens) whose likeliest label is the same, of logits [..., labels]. Of a single score,
    how near it stayed as a probability.
    """
    if before.shape[-1] == 1:
        return 1.0 - float((before.double().sigmoid() - after.double().sigmoid()).abs().mean())
    return same(before.argmax(-1), after.argmax(-1))


class Figure:
    """Where the figure of a model in one quantisation is kept."""

    def __init__(self, sources: Iterable[Path], *facts: object, cache: Path | None = None) -> None:
        """`sources` are the files or directories of the weights; `facts` is all else that the figure depends on."""
        seen = [_seen(file) for source in sources for file in _weights(source)]
        text = json.dumps([_VERSION, torch.__version__, seen, [str(fact) for fact in facts], texts()])
        digest = hashlib.sha256(text.encode()).hexdigest()
        self._place = (cache or home() / "cache") / "quality" / f"{digest[:32]}.json"

    def kept(self) -> float | None:
        """What was measured before, if it was."""
        try:
            found = json.loads(self._place.read_bytes())["quality"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return float(found) if isinstance(found, int | float) and 0 <= found <= 1 else None

    def keep(self, quality: float) -> None:
        """For the next start. Where that can't be written it is measured again."""
        try:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self._place.parent, prefix=".part-", delete=False) as part:
                json.dump({"quality": quality}, part)
            Path(part.name).replace(self._place)
        except OSError as error:
            _log.warning("a measured quality could not be kept: %s", error.strerror)


def _weights(source: Path) -> list[Path]:
    if source.is_file():
        return [source]
    return sorted(file for file in source.iterdir() if file.suffix in (".safetensors", ".bin"))


def _seen(file: Path) -> tuple[str, int, int]:
    found = file.stat()
    return str(file.resolve()), found.st_size, found.st_mtime_ns
