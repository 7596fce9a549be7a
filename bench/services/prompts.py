"""What is asked: texts made with a fixed seed, so that every run and every server gets the same."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

_WORDS: Final = """
    time year people way day man thing woman life child world school state family student group country problem hand
    part place case week company system program question work government number night point home water room mother area
    money story fact month lot right study book eye job word business issue side kind head house service friend father
    power hour game line end member law car city community name president team minute idea body information back parent
    face others level office door health person art war history party result change morning reason research girl guy
    moment air teacher force education foot boy age policy music market sense nation plan college interest death
    """
_HEROES: Final = ("a young sailor", "the old gardener", "two sisters", "a quiet baker", "the last lighthouse keeper")
_PLACES: Final = ("in a village by the sea", "high in the mountains", "in the busy capital", "at the edge of a forest")
_FINDS: Final = ("a map that nobody could read", "a letter without a name", "a door that was not there before")


class Lengths(NamedTuple):
    """Of texts, in words, which are about as many tokens."""

    name: str
    shortest: int
    longest: int


MIXED: Final = Lengths("texts", 5, 60)
"""Searches and what they are to find, mixed."""
SENTENCES: Final = Lengths("sentences", 8, 24)
PARAGRAPHS: Final = Lengths("paragraphs", 48, 112)
PASSAGES: Final = Lengths("passages", 180, 240)
"""As long as the model reads."""


def texts(lengths: Lengths, count: int) -> list[str]:
    """So many different texts."""
    drawn = random.Random(lengths.name)  # noqa: S311 - nothing is kept secret with it
    return [_text(drawn, drawn.randint(lengths.shortest, lengths.longest)) for _ in range(count)]


def prompts() -> list[str]:
    """Beginnings of stories, all different: models go on with them for longer than they are asked to."""
    told = [
        f"Chapter one. Long ago, {hero} {place} found {find}. The whole story is long, and it began like this:"
        for hero, place, find in itertools.product(_HEROES, _PLACES, _FINDS)
    ]
    random.Random(len(told)).shuffle(told)  # noqa: S311
    return told


def long_prompts(words: int) -> Iterator[str]:
    """Of about as many tokens as words, each with another beginning: a server that keeps what prompts have in common
    would not read one again.
    """
    drawn = random.Random(words)  # noqa: S311
    while True:
        yield _text(drawn, words)


def taken(items: Sequence[str], caller: int, callers: int, turn: int) -> str:
    """What a caller asks in its n-th turn: no two ask the same at once as long as there are more items than callers."""
    return items[(caller + turn * callers) % len(items)]


def _text(drawn: random.Random, words: int) -> str:
    return " ".join(drawn.choices(_WORDS.split(), k=words))
