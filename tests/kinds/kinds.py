"""All kinds of encoders, classifiers and taggers that transformers lists, each with one of the tokeniser families."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForSequenceClassification, AutoModelForTextEncoding, AutoTokenizer
from transformers import AutoModelForTokenClassification as _Tags
from transformers.models.auto import modeling_auto as lists

from tests.kinds import tiny, tokenisers
from tests.kinds.overrides import OVERRIDES

CLASSIFIERS: Final = list(lists.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES)
TAGGERS: Final = list(lists.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES)
ENCODERS: Final = sorted(
    {
        *CLASSIFIERS,
        *TAGGERS,
        *lists.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        *lists.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES,
    }
)
"""What can take a text: each has a head for texts or for tokens, guesses masked words, or is named for its texts."""
ALONE: Final = frozenset({"t5", "mt5", "umt5", "t5gemma"})
TEXTS: Final = (
    "Hello",
    "Ann met Bob in the meshgate office, and then both of them went to Paris for a week.",
    "A quick, brown fox: 12 dogs?",
    "Zoë naïve",
)
PAIRS: Final = ("yes", "They were there in the spring, all of them.", "no", "Who?")
TYPED: Final = frozenset(
    {"bert", "bros", "canine", "convbert", "electra", "ernie", "fnet", "layoutlm", "markuplm", "megatron-bert"}
    | {"mobilebert", "nomic_bert", "squeezebert"}
)
"""Kinds whose own tokenisers say which of two texts a token is of."""
_FAMILIES: Final = list(tokenisers.FAMILIES)
_TRAINED: Final[dict[str, Any]] = {}


def tokeniser_of(kind: str, number: int) -> Any:
    """One of the families by turns; for kinds that are for letters, theirs."""
    if kind == "canine":
        return tokenisers.letters(kind)
    family = _FAMILIES[number % len(_FAMILIES)]
    if family not in _TRAINED:
        _TRAINED[family] = tokenisers.trained(family)
    return _TRAINED[family]


def saved(folder: Path, kind: str, number: int, head: str) -> tuple[Any, Any]:
    """A tiny model in a folder, and the module and the tokeniser as transformers has them."""
    tokeniser = tokeniser_of(kind, number)
    labels = {} if head == "encoder" else {"num_labels": 3, "id2label": {0: "O", 1: "B-PER", 2: "I-PER"}}
    config = tiny.configuration(kind, OVERRIDES.get(kind, {}), **labels)
    if kind in ALONE and head == "encoder":
        config.is_encoder_decoder = False
    module = tiny.module(_auto(kind, head), config)
    module.save_pretrained(folder)
    tokeniser.save_pretrained(folder)
    return module, AutoTokenizer.from_pretrained(folder)


def _auto(kind: str, head: str) -> Any:
    if head == "encoder":
        return AutoModelForTextEncoding if kind in ALONE else AutoModel
    return AutoModelForSequenceClassification if head == "classifier" else _Tags


@torch.inference_mode()
def expected(module: Any, tokeniser: Any, *texts: str) -> Tensor:
    """What transformers says of a text, or of a pair, alone."""
    read = tokeniser(*texts, return_tensors="pt", return_token_type_ids=module.config.model_type in TYPED)
    made = module(**read)
    found: Tensor = made.logits if hasattr(made, "logits") else made.last_hidden_state
    return found[0]
