"""The rules of the project's prose, and what a sentence breaks of them.

The reader may be at work at three in the morning, and English may be their second language. So a sentence names its
actor, uses the word that the field has, and is short.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

MOST_WORDS: Final = 30
"""Words of one sentence. Write 25 or fewer where you can."""
_END: Final = re.compile(r"(?<=[.!?:;])\s+(?=[A-Z\"(]|\w+/)")
_LIST: Final = re.compile(r"CODE(?:(?:,| and| or)* CODE)+")
"""Names in a row count as one word."""
_WORD: Final = re.compile(r"[A-Za-z0-9]")


class Rule(NamedTuple):
    """A pattern that a sentence must not match, and the advice to its author."""

    pattern: re.Pattern[str]
    advice: str


def _rule(pattern: str, advice: str) -> Rule:
    return Rule(re.compile(pattern, re.IGNORECASE), advice)


def _word(pattern: str, advice: str) -> Rule:
    return _rule(rf"(?<![\w-])(?:{pattern})(?![\w-])", advice)


RULES: Final = (
    _rule(
        r"^(?-i:Who|Whoever|What|Whatever|Whose|Whichever)\b(?!.*\?$)",
        "name the subject: the caller, the gateway, the service, the store, the operator",
    ),
    _rule(
        r"(?:[;:,] |\b(?:and|but|or|that|if) )(?:who|whoever)\b(?= \w+s\b)(?!.*\?$)",
        "name the subject: the caller, the operator",
    ),
    _word(r"whoever|whomever|somebody|someone|anybody|nobody", "name the actor: the caller, the operator"),
    _word(r"(?:is|are|was|were|be|been|being|gets) told", '"report", "log", "return" or "write"'),
    _word(r"told apart", '"distinguished"'),
    _word(
        r"(?:a|its|free|spare|waiting|no) places?(?! (?:in|where|of|for)\b)", '"slot", or "file", "address", "folder"'
    ),
    _word(r"(?:is|are|be) had", '"exist", "is available"'),
    _word(r"in hand", '"in flight", "queued"'),
    _word(r"(?:read|reads|reading) (?:a|the|its|their|his|each) prompts?", '"prefill"'),
    _word(r"(?:let|lets|letting) in", '"admit"'),
    _word(r"turned? away|turns away", '"reject"'),
    _word(r"strangers?", '"unauthenticated caller"'),
    _word(r"(?:is|are) there(?=[.,;:]|$)|(?:is|are) not there", '"exists", "is available", "is present"'),
    _word(r"heeds?|heeded|heeding", '"respect", "obey", "ignore" in the negative'),
    _word(r"mend|mends|mended|mending", '"fix", "repair"'),
    _word(r"for want of", '"without", "because ... is missing"'),
    _word(r"all the same|none the less|lest|whence|thereof|whereof|wherein|hence|thus", "use a plain connective"),
    _word(r"to be had|ought to|as it were|so to speak|of late", "use plain English"),
    _word(r"crews?", '"threads", "thread tuner"'),
    _word(r"patience", '"idle timeout"'),
    _word(r"purses?", '"token budget"'),
    _word(r"vigils?", '"watchdog"'),
    _word(r"lanes?", '"queue", "sink queue"'),
    _word(r"crowds?", '"group commit", "batch"'),
    _word(r"(?:the|a|each|its) doors?", '"admission gate", "concurrency limit"'),
    _word(r"succession", '"key rotation"'),
    _word(r"shelf|shelves", '"store", "cache"'),
    _word(r"yardsticks?", '"probe", "reference"'),
    _word(r"beginnings", '"prefix"'),
    _word(r"rehearsals?|rehearse[sd]?", '"warm-up"'),
    _word(r"headroom", '"row limit", "free memory"'),
    _word(r"(?!had|that)([a-z]{2,}) \1", "a word is there twice"),
    _word(r"behaviors?|colou?red|favors?|honors?|centers?|catalogs?", "British spelling: behaviour, centre, catalogue"),
    _word(
        r"(?!(?:re|over|under|down)?size|sizi|priz|seiz|capsiz|tokenizers|authorization|kustomiz)\w{3,}(?:iz(?:e|es|ed|ing|er|ers|ations?)|yz(?:e|es|ed|ing))",
        "British spelling: -ise, -yse",
    ),
)


def sentences(text: str) -> list[str]:
    """The sentences of a block; a colon and a semicolon end one where a capital letter follows."""
    return _END.split(text)


def broken(sentence: str) -> Iterator[str]:
    """One line of advice for each rule that a sentence breaks."""
    for rule in RULES:
        match = rule.pattern.search(sentence)
        if match:
            yield f"{match.group()!r}: {rule.advice}"
    words = sum(bool(_WORD.search(word)) for word in _LIST.sub("CODE", sentence).split())
    if words > MOST_WORDS:
        yield f"{words} words: at most {MOST_WORDS}, split the sentence"
