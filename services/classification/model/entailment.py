"""Zero-shot by a classifier of entailment: each text is a premise, each label a hypothesis, as in the zero-shot
pipeline of transformers (Yin et al., "Benchmarking Zero-shot Text Classification", 2019).

A hypothesis is never cut: of a pair that is too long, the text loses its end.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from meshgate.errors import InvalidArgument
from services.text.tokens import Cut, Tokeniser, Tokens

Scores = NDArray[np.float32]

_ENTAILS: Final = "entail"
_CONTRADICTS: Final = ("contra", "not")
_LABELS: Final = "candidate_labels.labels"


def judges(labels: Sequence[str]) -> tuple[int, int] | None:
    """The places of entailment and contradiction among a classifier's labels; None where it has no entailment. Where no
    label says that it is the contradiction, it is the first, or the last where that is entailment.
    """
    low = [label.lower() for label in labels]
    entails = next((place for place, label in enumerate(low) if label.startswith(_ENTAILS)), None)
    if entails is None or len(labels) == 1:
        return None
    against = next((place for place, label in enumerate(low) if label.startswith(_CONTRADICTS)), None)
    return entails, against if against is not None else (len(labels) - 1 if entails == 0 else 0)


class Pairs:
    """Texts and hypotheses as they were read. What pairs them up takes memory, so how much is known before."""

    def __init__(self, reader: Tokeniser, texts: Sequence[str], hypotheses: Sequence[str], cut: Cut) -> None:
        """Raises InvalidArgument (INPUT_TOO_LONG) for what is too long, unless it can be cut."""
        self._backend, self._most = reader.backend, reader.max_tokens
        self._texts = self._backend.encode_batch(list(texts), add_special_tokens=False)
        self._hypotheses = self._backend.encode_batch(list(hypotheses), add_special_tokens=False)
        self._special = self._backend.num_special_tokens_to_add(True)
        self._alone = self._backend.num_special_tokens_to_add(False)
        self._check(cut)

    @property
    def tokens(self) -> int:
        """Of all pairs together, as the model reads them."""
        return sum(
            min(len(text) + len(hypothesis) + self._special, self._most)
            for text in self._texts
            for hypothesis in self._hypotheses
        )

    @property
    def lengths(self) -> list[int]:
        """Of each text by itself, special tokens included."""
        return [len(text) + self._alone for text in self._texts]

    @property
    def charged(self) -> int:
        """What a call pays: its texts and its labels, each once."""
        return sum(self.lengths) + sum(len(each) + self._alone for each in self._hypotheses)

    def each(self) -> Iterator[Tokens]:
        """All hypotheses for the first text, then for the second, and so on."""
        for text in self._texts:
            for hypothesis in self._hypotheses:
                yield self._pair(text, hypothesis)

    def _pair(self, text: Any, hypothesis: Any) -> Tokens:
        room = self._most - self._special - len(hypothesis)
        cut = len(text) > room
        if cut:
            text = pickle.loads(pickle.dumps(text))  # noqa: S301 - our own; cutting changes what the next pair needs
            text.truncate(room, direction=Cut.END.value)
        whole = self._backend.post_process(text, hypothesis)
        return Tokens(whole.ids, whole.type_ids, cut=cut)

    def _check(self, cut: Cut) -> None:
        longest = max(map(len, self._hypotheses))
        for index, each in enumerate(self._hypotheses):
            if len(each) + self._special >= self._most:
                raise _too_long(f"{_LABELS}[{index}]", len(each) + self._special, self._most)
        for index, text in enumerate(self._texts):
            if cut is Cut.REFUSE and len(text) + longest + self._special > self._most:
                raise _too_long(f"inputs[{index}]", len(text) + longest + self._special, self._most)


def _too_long(field: str, tokens: int, most: int) -> InvalidArgument:
    said = f"{tokens} tokens, with the label's, are too many: the model takes {most}"
    return InvalidArgument.of(field, said, reason="INPUT_TOO_LONG")


def raw(logits: Sequence[Scores], labels: int, judged: tuple[int, int], *, apart: bool) -> list[Scores]:
    """Of each text the raw score of each label: how much it is entailed, and where labels stand `apart` from each
    other, how much more that is than contradicted.
    """
    entails, against = judged
    made = np.stack(logits).reshape(-1, labels, logits[0].shape[-1])
    return list(made[..., entails] - made[..., against] if apart else made[..., entails])
