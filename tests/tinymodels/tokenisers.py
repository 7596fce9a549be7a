"""Tokenisers of every family, trained on a few lines, as AutoTokenizer reads them from a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

TEXTS: Final = (
    "the quick brown fox jumps over the lazy dog, and a café is naïve.",
    "You are a helpful assistant. system user assistant model end start",
    "我喜欢编程。 Hello world! 0123456789 {}[]()<>|:;'\"/_-",
    "a model of a few hundred kilobytes; it's said that they don't know",
)
_Fast: Any = PreTrainedTokenizerFast
_ByT5: Any = ByT5Tokenizer
_NAMES: Final = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
_PIECES: Final = ("<unk>", "<s>", "</s>", "<pad>")


def byte_level() -> Tokenizer:
    """GPT-2's way and that of most who came after."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=340, special_tokens=[*_PIECES], initial_alphabet=alphabet, show_progress=False),
    )
    return made


def _pairs(fallback: bool) -> Tokenizer:
    special = [*_PIECES, *(f"<0x{byte:02X}>" for byte in range(256) if fallback)]
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=fallback))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    steps = [decoders.Replace("\u2581", " "), *([decoders.ByteFallback()] if fallback else ()), decoders.Fuse()]
    made.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + 130, special_tokens=special, show_progress=False, limit_alphabet=60
    )
    made.train_from_iterator(["\u2581" + text.replace(" ", "\u2581") for text in TEXTS], trainer)
    return _only_special(made, _PIECES)


def byte_fallback() -> Tokenizer:
    """Llama 2's: pairs of SentencePiece's, with a token for each byte."""
    return _pairs(fallback=True)


def no_fallback() -> Tokenizer:
    """The same without tokens for bytes: what it does not know is lost."""
    return _pairs(fallback=False)


def metaspace() -> Tokenizer:
    """Llama 2's as newer files have it: a blank is put before the first word alone."""
    made = byte_fallback()
    made.normalizer = normalizers.Sequence([])
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return made


def unigram() -> Tokenizer:
    """T5's and XGLM's. Its control tokens are pieces like any other, which a text can be made of."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC()])
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=260, special_tokens=[*_PIECES], unk_token="<unk>", show_progress=False)
    made.train_from_iterator(TEXTS, trainer)
    return made


def word_piece() -> Tokenizer:
    """BERT's, which makes all letters small."""
    letters = sorted({letter for text in TEXTS for letter in text.lower() if not letter.isspace()})
    words = ("the", "model", "fox", "over", "user", "system")
    pieces = [*_PIECES, *words, *letters, *(f"##{letter}" for letter in letters)]
    made = Tokenizer(models.WordPiece({piece: place for place, piece in enumerate(pieces)}, unk_token="<unk>"))
    made.normalizer = normalizers.BertNormalizer(strip_accents=False)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return made


FAMILIES: Final[Mapping[str, Callable[[], Tokenizer]]] = {
    each.__name__: each for each in (byte_level, byte_fallback, no_fallback, metaspace, unigram, word_piece)
}
"""All but ByT5's, which is written in Python."""


def save(
    family: str, folder: Path, markers: tuple[str, ...] = (), plain: tuple[str, ...] = (), template: str = ""
) -> Any:
    """A tokeniser of a family, saved and read again. `markers` are added as special tokens, which only its file calls
    special, `plain` as tokens that are not.
    """
    made: Any = _ByT5() if family == "byt5" else _Fast(tokenizer_object=FAMILIES[family](), **_NAMES)
    kept = [AddedToken(name, special=True, normalized=False) for name in markers]
    if family == "byt5":
        made.add_tokens(kept, special_tokens=True)
    else:
        made.backend_tokenizer.add_special_tokens(kept)
    made.add_tokens([AddedToken(name, normalized=False) for name in plain])
    if template:
        made.chat_template = template
    made.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def _only_special(made: Tokenizer, names: tuple[str, ...]) -> Tokenizer:
    """Without the mark of a special token for the others: tokens for bytes have none."""
    state = json.loads(made.to_str())
    state["added_tokens"] = [each for each in state["added_tokens"] if each["content"] in names]
    return Tokenizer.from_str(json.dumps(state))
