"""Small tokenisers of each family, trained on a few lines, with `<s>`, `<pad>`, `</s>`, `<unk>` and `<mask>` as 0 to 4
and a word that was added.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, ByT5Tokenizer, CanineTokenizer, PreTrainedTokenizerFast

from services.weights import quality
from tests.kinds.tiny import VOCABULARY

SPECIAL: Final = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
ADDED: Final = "meshgate"
_SIZE: Final = VOCABULARY - 8
_Fast: Any = PreTrainedTokenizerFast  # transformers leaves these untyped
_Canine: Any = CanineTokenizer


def _wordpiece() -> tuple[Tokenizer, Any]:
    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return made, trainers.WordPieceTrainer(vocab_size=_SIZE, special_tokens=SPECIAL, show_progress=False)


def _bytes() -> tuple[Tokenizer, Any]:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return made, trainers.BpeTrainer(
        vocab_size=_SIZE, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )


def _pieces() -> tuple[Tokenizer, Any]:
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    fallback = [f"<0x{number:02X}>" for number in range(256)]
    return made, trainers.BpeTrainer(vocab_size=_SIZE, special_tokens=[*SPECIAL, *fallback], show_progress=False)


def _unigram() -> tuple[Tokenizer, Any]:
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    return made, trainers.UnigramTrainer(
        vocab_size=_SIZE, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )


FAMILIES: Final[dict[str, Callable[[], tuple[Tokenizer, Any]]]] = {
    "word pieces": _wordpiece,
    "bytes": _bytes,
    "sentence pieces": _pieces,
    "unigram": _unigram,
}


def trained(family: str) -> Any:
    """A tokeniser of transformers."""
    made, trainer = FAMILIES[family]()
    made.train_from_iterator([*quality.texts()] * 3, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B:1 </s>:1", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    made.add_tokens([AddedToken(ADDED, normalized=False)])
    names = dict(zip(("bos", "pad", "eos", "unk", "mask"), SPECIAL, strict=True))
    wrapped = {f"{name}_token": word for name, word in names.items()}
    return _Fast(tokenizer_object=made, cls_token="<s>", sep_token="</s>", model_max_length=128, **wrapped)


def letters(kind: str) -> Any:
    """A tokeniser without a vocabulary."""
    return _Canine(model_max_length=160) if kind == "canine" else ByT5Tokenizer(extra_ids=0)


def read(folder: Path) -> Any:
    """The tokeniser of a folder, as transformers has it."""
    return AutoTokenizer.from_pretrained(folder)


def save(tokeniser: Any, folder: Path) -> None:
    """Into a model's directory."""
    tokeniser.save_pretrained(folder)
