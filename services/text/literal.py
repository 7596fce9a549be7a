"""A tokeniser in which callers can't write control tokens.

A control token (`<|im_start|>`, `[SEP]`, `</s>`) is known by its name, and whoever writes that name in a text gets the
token. Here every control token has another name, which nobody can guess; its id stays. The old name is a text like any
other, and the new one stands where a control token is meant.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

from tokenizers import Tokenizer

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"
_LENGTH: Final = 24
"""Letters of a name: 112 bits. Letters alone are left as they are by every normaliser."""

_BYTE: Final = re.compile("<0x[0-9A-F]{2}>")


class Literal(NamedTuple):
    """See above."""

    backend: Tokenizer
    """With the new names."""
    names: Mapping[str, str]
    """The new names by the old."""


def literal(backend: Tokenizer, more: Iterable[str] = ()) -> Literal:
    """A copy of a tokeniser whose special tokens, and those called `more`, have new names. It splits all other texts as
    the original does. The post-processor, which goes by ids, adds the tokens that it added before.
    """
    names = renamed({*special(backend), *more})
    state = json.loads(backend.to_str())
    _rename(state, names)
    made = Tokenizer.from_str(json.dumps(state))
    made.no_truncation()
    made.no_padding()
    return Literal(made, names)


def renamed(names: Iterable[str]) -> dict[str, str]:
    """A secret name for each."""
    return {name: _fresh() for name in sorted(names) if name}


def special(backend: Tokenizer) -> list[str]:
    """The names of a tokeniser's special tokens. One that stands for a byte of an unknown character is text."""
    tokens = backend.get_added_tokens_decoder().values()
    return [token.content for token in tokens if token.special and not _BYTE.fullmatch(token.content)]


def pattern(names: Iterable[str]) -> re.Pattern[str] | None:
    """What finds any of the names, the longest first, as tokenisers do; None where there are none."""
    found = sorted({name for name in names if name})
    return re.compile(_tree(found)) if found else None


def _tree(names: Sequence[str]) -> str:
    """An expression in which names share their beginnings: at each place of a text few of them are tried."""
    ended = not names[0]
    branches = [
        re.escape(first) + _tree([name[1:] for name in group])
        for first, group in groupby(names[ended:], key=lambda name: name[0])
    ]
    if not branches:
        return ""
    return f"(?:{'|'.join(branches)}){'?' if ended else ''}"


def _fresh() -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))


def _rename(state: dict[str, Any], names: Mapping[str, str]) -> None:
    for token in state.get("added_tokens") or ():
        token["content"] = names.get(token["content"], token["content"])
    model = state["model"]
    model["vocab"] = _vocabulary(model["vocab"], names)
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if model.get("merges"):
        model["merges"] = [each for each in model["merges"] if not _makes(each, names)]


def _vocabulary(vocabulary: Any, names: Mapping[str, str]) -> Any:
    """Token to id, or, of Unigram, pairs of a token and its score."""
    if isinstance(vocabulary, dict):
        return {names.get(token, token): place for token, place in vocabulary.items()}
    return [[names.get(token, token), score] for token, score in vocabulary]


def _makes(merge: str | Sequence[str], names: Mapping[str, str]) -> bool:
    """Whether a merge makes a control token, or is made of one."""
    first, second = merge.split(" ", 1) if isinstance(merge, str) else merge
    return first + second in names or first in names or second in names
