"""Constraints compiled to grammars over a model's tokens, by llguidance.

Bounds. Compiling costs a millisecond, and what is hard costs more: the library's own limits on its lexer and parser
stop it after some 100 ms, and the first masks are made here, off the model's thread, so that what is too hard is found
out before a step waits for it. What the library says of an error may hold the whole grammar, so no more than its first
sentence is passed on, and nothing is logged.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from services.generation.constraints.choices import Choices, Spellings
from services.generation.constraints.constraint import Constraint
from services.generation.constraints.keywords import UnsupportedSchema
from services.generation.constraints.pattern_count import check_patterns
from services.generation.constraints.schema_traits import has_control_characters, has_open_named_object
from services.generation.constraints.simplify import simplified

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

    from services.generation.text.detokenise import TokenBytes

_KEPT: Final = 64
"""Grammars that are kept compiled."""
_TRIED: Final = 12
"""Tokens of a first attempt, before a grammar is believed."""
_SAID: Final = 160
_LIMITS: Final[Mapping[str, Any]] = {
    "initial_lexer_fuel": 200_000,
    "step_lexer_fuel": 50_000,
    "max_lexer_states": 50_000,
    "max_grammar_size": 100_000,
    "step_max_items": 20_000,
}
_JSON: Final[Any] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "json_allowed_escapes": 'nrbtf\\"',
}
"""As Python writes JSON: a small model that may write any white space writes nothing else. No character is written as a
number (`\\u0061`): a property could so come a second time, as one whose name is not known.
"""
_NUMBERED: Final[Any] = {**_JSON, "json_allowed_escapes": 'nrbtf\\"u'}
"""For schemas with characters that can't be written otherwise."""


class Matcher:
    """One candidate's way through a grammar."""

    def __init__(self, matcher: LLMatcher, constraint: Constraint) -> None:
        self._matcher = matcher
        self._constraint = constraint

    @property
    def complete(self) -> bool:
        """Whether the output is whole, and nothing more can follow."""
        return self._matcher.is_stopped()

    def allowed(self) -> NDArray[np.bool_]:
        """Which tokens may follow, [vocabulary]. Raises InvalidArgument where that is too hard to say."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        return np.unpackbits(bits, bitorder="little").view(np.bool_)

    def take(self, token: int) -> None:
        """Goes on by a token that was allowed. Raises InvalidArgument where it was not."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise self._constraint.refuse("too complex, or nothing can match it")


class Grammar:
    """A compiled constraint. `Choices` is another kind of it."""

    def __init__(self, matcher: LLMatcher, constraint: Constraint) -> None:
        self._matcher = matcher
        self._constraint = constraint

    def matcher(self) -> Matcher:
        """A new way through it, from its beginning. For one thread at a time."""
        return Matcher(self._matcher.deep_copy(), self._constraint)


class Grammars:
    """The grammars of one model's vocabulary."""

    def __init__(self, tokens: TokenBytes, end_tokens: frozenset[int], encode: Callable[[str], Sequence[int]]) -> None:
        """`end_tokens` end an output; `encode` makes tokens of text, without special ones."""
        self._vocabulary = _vocabulary(tokens, end_tokens, encode)
        self._spellings = Spellings(tokens, end_tokens)
        self._known: OrderedDict[Constraint, Grammar | Choices] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, constraint: Constraint) -> Grammar | Choices:
        """The grammar of a constraint; thread-safe. Raises InvalidArgument for one that can't be followed."""
        with self._lock:
            if (known := self._known.get(constraint)) is not None:
                self._known.move_to_end(constraint)
                return known
        made = self._made(constraint)
        with self._lock:
            self._known[constraint] = made
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return made

    def _made(self, constraint: Constraint) -> Grammar | Choices:
        return Choices(self._spellings, constraint) if constraint.kind == "choice" else self._parsed(constraint)

    def _parsed(self, constraint: Constraint) -> Grammar:
        from llguidance import LLMatcher, LLParserLimits

        grammar, limits = _grammar(constraint), LLParserLimits(**_LIMITS)
        wrong, said = LLMatcher.validate_grammar_with_warnings(grammar, self._vocabulary, limits=limits)
        if wrong:
            raise constraint.refuse(_first_sentence(said[0] if said else ""))
        made = Grammar(LLMatcher(self._vocabulary, grammar, log_level=0, limits=limits), constraint)
        _try(made.matcher())
        return made


def _try(matcher: Matcher) -> None:
    """Takes the first tokens that are allowed. Raises InvalidArgument for what is too hard."""
    for _ in range(_TRIED):
        if matcher.complete:
            return
        matcher.take(int(matcher.allowed().argmax()))


def _grammar(constraint: Constraint) -> str:
    from llguidance import LLMatcher

    if constraint.kind == "regex":
        return LLMatcher.grammar_from_regex(constraint.texts[0])
    try:
        schema = simplified(json.loads(constraint.texts[0]))
        check_patterns(schema)
        text = json.dumps(schema, ensure_ascii=False)
        return LLMatcher.grammar_from_json_schema(text, defaults=_writing(schema))
    except UnsupportedSchema as error:
        raise constraint.refuse(str(error)) from None
    except (ValueError, TypeError):  # half a character; keywords of other types than JSON Schema says
        raise constraint.refuse("not a JSON schema") from None


def _writing(schema: Any) -> Any:
    """How JSON is written for a schema. Raises UnsupportedSchema where a name could be written in two ways."""
    if not has_control_characters(schema):
        return _JSON
    if has_open_named_object(schema):
        raise UnsupportedSchema(
            "control characters can't be followed beside properties without additionalProperties: false"
        )
    return _NUMBERED


def _first_sentence(said: str) -> str:
    """What the library says, without the place in a grammar that nobody has seen."""
    lines = said.splitlines() or [""]
    about = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0])
    readable = "".join(letter for letter in about if letter.isprintable())
    return readable[:_SAID] or "can't be followed"


class _TokenizerAdapter:
    """A vocabulary as llguidance asks for it."""

    def __init__(self, tokens: TokenBytes, end: int, encode: Callable[[str], Sequence[int]]) -> None:
        self.eos_token_id = end
        self.bos_token_id = None
        self.tokens = [tokens.of(token) for token in range(len(tokens))]
        self.special_token_ids = sorted(tokens.special)
        self.spell: Callable[[str], Sequence[int]] = encode
        """Tokens of a text, longest first."""
        self._encode = encode

    def __call__(self, text: str) -> list[int]:
        """A tokeniser that puts a space before every text (SentencePiece) would have output forced that nothing allows:
        its tokens count only where they are the text.
        """
        found = list(self._encode(text))
        written = b"".join(self.tokens[token] for token in found)
        return found if written == text.encode() else list(self.spell(text))


def _vocabulary(tokens: TokenBytes, ends: frozenset[int], encode: Callable[[str], Sequence[int]]) -> LLTokenizer:
    from llguidance import LLTokenizer, TokenizerWrapper

    ordered = sorted(ends)
    wrapped = _TokenizerAdapter(tokens, ordered[0], encode)
    made = LLTokenizer(TokenizerWrapper(wrapped), n_vocab=len(tokens), eos_token=ordered)
    wrapped.spell = made.greedy_tokenize
    return made
