"""Texts in pieces that can be tokenised one after the other, with the very tokens of the whole text.

A text of a megabyte takes a tokeniser seconds, and hundreds of bytes a token. In pieces it can be left off in between:
when its caller is gone, when another tenant's turn has come, or when it is known to be too long.

Between which characters a text may be divided depends on the tokeniser. A single space between two letters or digits
divides a text for nearly all of them: normalisers go by a character and the marks after it; the usual expressions that
split texts match nothing that goes on after a word with a space; and SentencePiece's vocabularies have no token with a
space inside. All of that is looked up in the tokeniser. One that does anything else is given texts whole.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tokenizers.pre_tokenizers import ByteLevel

from services.text.characters import Characters

PIECE: Final = 16_384
"""Characters of a piece: some ten milliseconds' worth."""
_SOON: Final = 4
"""Pieces after which a text is divided before a mark instead."""
_MARKS: Final = 512
"""The most of them that are looked at."""
_MARK: Final = "\u2581"
"""What SentencePiece writes for a space."""
_SPACE: Final = r"(?<=[^\W_]) (?=[^\W_])"
_STOP: Final = "(?<=[\u4e00-\u9fff])(?=[\u3001\u3002])"
"""After a Chinese character, before a comma or full stop of its kind."""
_SIGNS: Final = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_CHARACTER: Final = 4
"""The most bytes of a character."""
_COMPOSED: Final = 4
"""A text in NFC has at least a quarter of the bytes that it had: the most is 3.5 times, for U+1FBE and two marks."""
_COLLAPSES: Final = frozenset((" {2,}", "\\s+", "\\s{2,}"))
"""Expressions that a normaliser may put something in the place of: they match runs of spaces alone."""
_ENDS: Final = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_SMALL: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD: Final = r"[^\r\n\p{L}\p{N}]?"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_SPLITS: Final = frozenset(
    (
        r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
        *(
            rf"{_SMALL}|{_WORD}\p{{L}}+|{number}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*{_ENDS}"
            for number in (r"\p{N}", r"\p{N}{1,3}")
        ),
        rf"{_WORD}{_UPPER}*{_LOWER}+{_SMALL}?|{_WORD}{_UPPER}+{_LOWER}*{_SMALL}?|\p{{N}}{{1,3}}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*{_ENDS}",
    )
)
"""Of GPT-2; Qwen 2 and 3; Llama 3 and cl100k; o200k. None of their matches goes on after a word with a space, or after
a Chinese character with its comma, and none looks back."""
_SPACES: Final = 64
"""Spaces in a row that are let be."""
_DRAWN: Final = "\U0001f300-\U0001faff"
"""Emoji, which no normaliser changes and no splitter takes for a sign."""
_BY_LETTER: Final = frozenset(("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer"))
"""Normalisers that leave ASCII letters, digits and emoji as many as they were."""
_AT_SPACES: Final = frozenset(("BertPreTokenizer", "Whitespace", "WhitespaceSplit"))
"""Splitters to which any number of spaces is the same as one."""
_LOCAL: Final = frozenset(
    ("NFC", "NFD", "NFKC", "NFKD", "Nmt", "Lowercase", "StripAccents", "BertNormalizer", "Precompiled", "Strip")
)
"""Normalisers that change a character by itself and the marks after it, or white space at the ends."""


@dataclass(frozen=True, slots=True)
class Division:
    """How one tokeniser's texts may be divided, and how short one can be for its tokens."""

    between: re.Pattern[str] | None = None
    """Matches where; None where nothing is known to be safe."""
    gap: bool = False
    """Whether the space between two pieces belongs to neither: the tokeniser puts one before each."""
    longest: int | None = None
    """The most bytes of a text that a token stands for; None where that has no bound."""
    names: tuple[str, ...] = ()
    """Tokens that are found by their names, of which none may stand beside a place."""
    marks: tuple[str, ...] = ()
    """Of those, the ones before which a text may be divided as well, where it can't be soon elsewhere."""

    runs: re.Pattern[str] | None = None
    """Matches runs of which only the beginning matters: spaces between words, and the letters of a word that is longer
    than any that the vocabulary is looked through for.
    """
    kept: int = 0
    """So many letters of such a word."""

    def shortened(self, text: str) -> str:
        """A text of the same tokens, without what they do not depend on. Their places in it are others."""
        if self.runs is None:
            return text
        return self.runs.sub(lambda run: run[0][: 1 if run[0].isspace() else self.kept], text)

    def least(self, text: str) -> int:
        """So many tokens a text has, at the least."""
        return -(-len(text.encode()) // self.longest) if self.longest else 0

    def pieces(self, text: str) -> Iterator[str]:
        """From the beginning on."""
        start = 0
        for before, after in self._cuts(text):
            yield text[start:before]
            start = after
        yield text[start:]

    def backwards(self, text: str) -> Iterator[str]:
        """From the end on. The pieces are those of `pieces`."""
        stop = len(text)
        for before, after in reversed([(0, 0), *self._cuts(text)]):
            yield text[after:stop]
            stop = before

    def _cuts(self, text: str) -> Iterator[tuple[int, int]]:
        """Where a piece ends and the next one begins: the first place after so many characters."""
        start, marks = 0, None
        while len(text) - start > PIECE:
            cut = self._cut(text, start + PIECE)
            if self.marks and (cut is None or cut[0] > start + _SOON * PIECE):
                marks = [mark for mark in self.marks if mark in text] if marks is None else marks
                found = [place for mark in marks if (place := text.find(mark, start + PIECE)) >= 0]
                found = [place for place in found if self._first(text, place)]
                cut = min([*((place, place) for place in found), *([cut] if cut else [])], default=None)
            if cut is None:
                return
            yield cut
            start = cut[1]

    def _cut(self, text: str, start: int) -> tuple[int, int] | None:
        for found in self.between.finditer(text, start) if self.between is not None else ():
            if _plain(text, found) and not self._named(text, found):
                return found.start(), found.end() if self.gap else found.start()
        return None

    def _first(self, text: str, place: int) -> bool:
        """Whether the mark at a place is not in part another one's, which begins before it."""
        return all(text.find(mark, max(0, place - len(mark) + 1), place - 1 + len(mark)) < 0 for mark in self.marks)

    def _named(self, text: str, found: re.Match[str]) -> bool:
        return text.startswith(self.names, found.end()) or text.endswith(self.names, 0, found.start())


def _plain(text: str, found: re.Match[str]) -> bool:
    """Whether no normaliser makes spaces of the characters beside a place (U+037A is a letter, and becomes one)."""
    beside = text[found.start() - 1], text[found.end()]
    return all(each.isascii() or not re.search(r"\s", unicodedata.normalize("NFKC", each)) for each in beside)


def division(backend: Any) -> Division:
    """Of a tokenizers.Tokenizer, or of what stands in for one. Anything that is not known to be safe makes it whole."""
    if isinstance(backend, Characters):
        return Division(longest=1 if backend.as_bytes else _CHARACTER)
    try:
        known = _Known(backend)
    except Exception:  # parts written in Python can't say what they are
        return Division()
    between, gap = known.between()
    runs, kept = known.runs() if between else ("", 0)
    return Division(
        re.compile(between) if between else None,
        gap,
        known.longest(),
        known.names(),
        known.marks(),
        re.compile(runs) if runs else None,
        kept,
    )


def has_bytes(tokenizer: Any) -> bool:
    """Whether a tokeniser of transformers makes a token of each byte (ByT5)."""
    return type(tokenizer).__name__ == "ByT5Tokenizer"


def of_bytes(names: Iterable[str]) -> Division:
    """Of a tokeniser that makes a token of each byte, and of these names: between all that is in no name."""
    kept = tuple(names)
    used = "".join(sorted({re.escape(letter) for name in kept for letter in name}))
    return Division(re.compile(rf"(?<=[^\s{used}])(?=[^\s{used}])|{_SPACE}"), names=kept)


class _Known:
    """What a tokeniser is made of."""

    def __init__(self, backend: Any) -> None:
        self.model = type(backend.model).__name__
        self._dropout = getattr(backend.model, "dropout", None)
        self._word = int(getattr(backend.model, "max_input_chars_per_word", 0))
        self._falls_back = bool(getattr(backend.model, "byte_fallback", False))
        self._vocabulary: Mapping[str, int] = backend.get_vocab(with_added_tokens=False)
        self._literal = bool(getattr(backend, "encode_special_tokens", False))
        self._added = list(backend.get_added_tokens_decoder().values())
        self._normalisers = list(_parts(backend.normalizer, "normalizers"))
        self._splitters = list(_parts(backend.pre_tokenizer, "pretokenizers"))

    def between(self) -> tuple[str, bool]:
        """The expression for where a text may be divided, empty where nowhere, and whether the space is left out."""
        gap = any(each["type"] == "Prepend" for each in self._normalisers)
        if not self._safe(gap):
            return "", False
        if any(map(_divides, self._splitters)):
            alone = any(map(_isolates, self._splitters)) and not (gap or any(map(_prefixes, self._splitters)))
            return "|".join([_SPACE, *((_STOP, *self._signs()) if alone else ())]), gap
        return (_SPACE, gap) if self._no_token_crosses() else ("", False)

    def marks(self) -> tuple[str, ...]:
        """Special tokens that are found before all else, wherever their names stand."""
        special = (t for t in self._added if t.special and t.content)
        plain = tuple(t.content for t in special if not (t.lstrip or t.single_word or t.normalized))
        alone = len(plain) == len(self._added) <= _MARKS  # what they could stand inside is looked for among them
        return plain if alone and self._dropout is None and not self._literal else ()

    def runs(self) -> tuple[str, int]:
        """The expression for runs of which the beginning is enough, and how long that is: WordPiece makes one unknown
        token of a word of more than so many characters, whatever they are. Empty for other kinds.
        """
        plain = re.compile(rf"[A-Za-z0-9{_DRAWN}]+")
        named = any(plain.fullmatch(token.content) for token in self._added)
        normalised = all(each["type"] in _BY_LETTER for each in self._normalisers)
        split = all(each["type"] in _AT_SPACES for each in self._splitters) and self._splitters
        if self.model != "WordPiece" or not self._word or named or not normalised or not split:
            return "", 0
        most = self._word + 1
        return rf"[A-Za-z0-9]{{{most},}}|[{_DRAWN}]{{{most},}}|[ \t\r\n]{{{_SPACES},}}", most

    def longest(self) -> int | None:
        """The most bytes that a token stands for: where every byte, or every character, comes back in some token."""
        if self.model != "BPE" or any(token.lstrip or token.rstrip for token in self._added):
            return None
        names = [token.content for token in self._added]
        if all(each["type"] == "ByteLevel" or _keeps(each) for each in self._splitters) and self._bytes():
            return self._most(names, len) * (_COMPOSED if self._normalisers else 1)
        whole = all(each["type"] == "Metaspace" for each in self._splitters)
        if self._falls_back and whole and all(map(_writes_spaces, self._normalisers)):
            return self._most(names, lambda token: len(token.replace(_MARK, " ").encode()))
        return None

    def _most(self, names: Iterable[str], size: Callable[[str], int]) -> int:
        return max(max(map(size, self._vocabulary), default=1), *(len(name.encode()) for name in names), 1)

    def _bytes(self) -> bool:
        """Whether it is a byte-level one that has all bytes, and a text keeps them all."""
        byte_level = any(each["type"] == "ByteLevel" for each in self._splitters)
        kept = all(each["type"] == "NFC" for each in self._normalisers)
        return byte_level and kept and all(byte in self._vocabulary for byte in ByteLevel.alphabet())

    def _safe(self, gap: bool) -> bool:
        known = ("Prepend", "Replace") if gap else (*_LOCAL, "Replace")
        normalised = all(each["type"] in known and _replaces(each) for each in self._normalisers)
        spaces = any(map(_writes_spaces, self._normalisers))
        split = all(_splits(each) or (spaces and _at_spaces(each)) for each in self._splitters)
        return self._dropout is None and normalised and split and self._markers()

    def _markers(self) -> bool:
        """Whether no added token has a space beside something else, or is one."""
        contents = [token.content for token in self._added]
        spaced = any(" " in content and content.strip(" ") for content in contents)
        single = any(content == " " for content in contents)
        return not (spaced or single)

    def names(self) -> tuple[str, ...]:
        """Those of added tokens that begin or end with a letter or digit: only they can stand beside a space."""
        contents = (token.content for token in self._added)
        return tuple(content for content in contents if content[:1].isalnum() or content[-1:].isalnum())

    def _no_token_crosses(self) -> bool:
        if self.model not in ("BPE", "Unigram") or _MARK not in self._vocabulary:
            return False
        spaces = any(each["type"] in ("Replace", "Metaspace") for each in (*self._normalisers, *self._splitters))
        inside = re.compile(f"[^{_MARK}]{_MARK}| ")
        return spaces and not any(inside.search(token) for token in self._vocabulary)

    def _signs(self) -> list[str]:
        """BERT's way: each ASCII sign and each Chinese character stands by itself."""
        if not any(each["type"] == "BertPreTokenizer" for each in self._splitters):
            return []
        used = {letter for token in self._added for letter in token.content}
        signs = "".join(re.escape(sign) for sign in _SIGNS if sign not in used)
        chinese = any(each.get("handle_chinese_chars") for each in self._normalisers)
        return [f"(?<=[{signs}])(?=[{signs}])", *(["(?<=[\u4e00-\u9fff])(?=[\u4e00-\u9fff])"] if chinese else ())]


def _parts(component: Any, inside: str) -> Iterator[Mapping[str, Any]]:
    """A normaliser or pre-tokeniser, or those that are one after the other in it."""
    if component is not None:
        yield from _flat(json.loads(component.__getstate__()), inside)


def _flat(state: Mapping[str, Any], inside: str) -> Iterator[Mapping[str, Any]]:
    if state["type"] != "Sequence":
        yield state
        return
    for each in state[inside]:
        yield from _flat(each, inside)


def _replaces(normaliser: Mapping[str, Any]) -> bool:
    """Of those that put a text in the place of another: whether no word is changed beside a space."""
    if normaliser["type"] == "Prepend":
        return bool(normaliser["prepend"] == _MARK)
    if normaliser["type"] != "Replace":
        return True
    pattern, content = normaliser["pattern"], normaliser["content"]
    if "Regex" in pattern:
        return pattern["Regex"] in _COLLAPSES and content in (" ", _MARK)
    return bool(content == _MARK) if pattern["String"] == " " else " " not in pattern["String"]


def _writes_spaces(normaliser: Mapping[str, Any]) -> bool:
    if normaliser["type"] == "Prepend":
        return True
    return normaliser["type"] == "Replace" and bool(normaliser["pattern"].get("String") == " ")


def _divides(splitter: Mapping[str, Any]) -> bool:
    """Whether it splits a text before a single space between two words, or at it."""
    match splitter["type"]:
        case "BertPreTokenizer" | "Whitespace" | "WhitespaceSplit":
            return True
        case "ByteLevel":
            return bool(splitter.get("use_regex", True))
        case "Metaspace":
            return False  # what it splits are words with signs: whether a token crosses is looked up
        case "Split":
            return splitter["pattern"].get("Regex") in _SPLITS
    return False


def _isolates(splitter: Mapping[str, Any]) -> bool:
    """Whether it also splits a Chinese character from its comma."""
    return splitter["type"] not in ("WhitespaceSplit", "Metaspace") and _divides(splitter)


def _prefixes(splitter: Mapping[str, Any]) -> bool:
    """Whether it puts a space before what begins without."""
    return splitter["type"] == "Metaspace" or bool(splitter.get("add_prefix_space"))


def _at_spaces(splitter: Mapping[str, Any]) -> bool:
    """Whether it splits at spaces, of which there are none where SentencePiece's sign was put in their place."""
    return bool(splitter["type"] == "Split" and splitter["pattern"] == {"String": " "})


def _splits(splitter: Mapping[str, Any]) -> bool:
    """Whether it leaves alone what the others split."""
    match splitter["type"]:
        case "Metaspace":
            return bool(splitter["replacement"] == _MARK)
        case "Split":
            return _divides(splitter)
    return splitter["type"] in (
        *("BertPreTokenizer", "ByteLevel", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit"),
    )


def _keeps(splitter: Mapping[str, Any]) -> bool:
    """Whether every character is still there after it."""
    return bool(splitter["type"] == "Digits" or splitter.get("behavior", "Removed") != "Removed")
