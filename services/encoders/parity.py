"""Whether a model answers here as it does in transformers, found out before it serves.

A few texts go through the module as it was loaded, each alone and without padding, as those who use transformers have
it. Then they go through it in one batch, and, once it was made faster, again. A kind of model that takes padding for
tokens gets inputs of one length at a time from then on. A kind that still answers otherwise is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from meshgate.runtime.config import ConfigError
from services.cpu import cpu_share
from services.encoders.inputs import Form, form_of
from services.models import vocabulary
from services.models.starting import said
from services.text.tokens import Cut, Tokeniser, Tokens
from services.weights.load_weights import Load, Where

_TEXTS: Final = (
    "Hello",
    "The quick brown fox jumps over the lazy dog, and then it sleeps: who would have thought so?",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. 你好，世界",
    "a b",
)
_NEAR: Final = {torch.float32: 2e-3}
_ROUNDED: Final = 0.3
"""The allowed difference, relative to the largest number of an answer, in formats that round more than float32. Errors
are larger, unless they are as small as rounding.
"""
_ZERO: Final = 1e-5

Answer = Callable[[Any, Form, Sequence[Tokens]], Sequence[Tensor]]
"""The output of a module for each input, float32."""


class Parity:
    """The comparison for one model, while it is loaded."""

    def __init__(
        self, key: str, directory: Path, tokeniser: Any, reader: Tokeniser, answer: Answer, *, labels: bool = False
    ) -> None:
        """`tokeniser` is transformers' own; `labels` says that the model gives each text labels."""
        self.form = Form()
        self._key = key
        self._directory = directory
        self._tokeniser = tokeniser
        self._labels = labels
        self._answer = answer
        self._texts = reader.read(_TEXTS, Cut.END, "texts")
        self._expected: Sequence[Tensor] = ()

    @property
    def size(self) -> int:
        """How many numbers a row of an answer has."""
        return int(self._expected[0].shape[-1])

    @torch.inference_mode()
    @cpu_share.side_by_side()
    def look(self, module: Any) -> Any:
        """The module, once the form of its batches is known. Raises ConfigError where there is none."""
        try:
            return self._look(module)
        except (ConfigError, MemoryError):
            raise
        except Exception as error:  # whatever a kind of model needs that a text has not
            raise self._refusal(module, said(error)) from error

    def _look(self, module: Any) -> Any:
        module.eval()
        module.config.get_text_config().use_cache = False
        rows = getattr(_embeddings(module), "num_embeddings", None)
        if rows is not None:
            vocabulary.check(self._tokeniser, rows, self._key, self._directory)
        self.form = form_of(module, self._tokeniser, labels=self._labels)
        self._expected = [self._answer(module, self.form, [text])[0] for text in self._texts]
        if not all(bool(torch.isfinite(each).all()) for each in self._expected):
            raise ConfigError(f"{self._key}.source: the model answers a plain text with something that is no number")
        if not self._agrees(module):
            self.form = replace(self.form, alike=True)
            self.check(module)
        return module

    def around(self, load: Load, where: Where) -> Load:
        """`load`, which looks at the module before it returns it."""

        def loaded(**options: Any) -> Any:
            module = load(**options)
            return self.look(module if options else module.to(where.device))

        return loaded

    @torch.inference_mode()
    @cpu_share.side_by_side()
    def check(self, module: Any) -> None:
        """Raises ConfigError where the module answers otherwise than it did when it was loaded."""
        if not self._agrees(module):
            raise self._refusal(module, "a batch changes its answers")

    def _refusal(self, module: Any, why: str) -> ConfigError:
        return ConfigError(f"{self._key}.source: a model of kind {module.config.model_type} is not served: {why}")

    def _agrees(self, module: Any) -> bool:
        made = self._answer(module, self.form, self._texts)
        near = _NEAR.get(next(module.parameters()).dtype, _ROUNDED)
        return all(_like(each, wanted, near) for each, wanted in zip(made, self._expected, strict=True))


def _embeddings(module: Any) -> Any:
    """Those of the tokens; None where a kind has none of the usual sort."""
    try:
        return module.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        return None


def _like(made: Tensor, wanted: Tensor, near: float) -> bool:
    if made.shape != wanted.shape:
        return False
    return bool((made - wanted).abs().max() <= near * wanted.abs().max() + _ZERO)
