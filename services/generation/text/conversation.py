"""Conversations to token ids, so that what is said in them is text and never a control token.

A chat template makes one text of a conversation: its own markers between what was said. If a message holds a marker
itself, that would be a marker too: a caller could write turns of others. So before the template runs, each marker in a
message is replaced by a placeholder, one character that the template leaves alone. Afterwards the markers in the text
are the template's. They get their secret names (see services.text.literal), the placeholders become the old names
again, which now are texts, and all of it is encoded at once, so that the ids are those that transformers gives for
messages without markers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from meshgate.errors import InvalidArgument
from services.generation.text.time_limit import limited
from services.text import literal, pieces
from services.text.pieces import Division

Turns = Sequence[Mapping[str, str]]
"""A conversation as templates know it: `role` (system, user, assistant) and `content`."""

_RENDER_SECONDS: Final = 5.0
"""How long a template may take."""
_PLACEHOLDERS: Final = range(0xF0000, 0x10FFFE)
"""Characters for private use, and a few that are none: nothing takes them for white space, letters or punctuation."""
_PRIVATE: Final = re.compile("[\U000f0000-\U0010ffff]")
_USER: Final = {"role": "user", "content": "one"}
_SAMPLES: Final[Sequence[Turns]] = (
    (_USER, {"role": "assistant", "content": "two"}, {"role": "user", "content": "three"}),
    ({"role": "system", "content": "zero"}, _USER, {"role": "assistant", "content": "two"}, _USER),
    (_USER,),
)
"""Conversations whose texts show what a template marks turns with."""


class Conversations:
    """Encodes the conversations of one model. Thread-safe."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        added = [str(token) for token in getattr(tokenizer, "added_tokens_decoder", {}).values()]
        always = {*(literal.special(backend) if backend is not None else ()), *_specials(tokenizer)}
        marks = always | self._structural(added)
        self._marks = literal.pattern(marks)
        self._literal = literal.literal(backend, marks) if backend is not None else None
        self._names = self._literal.names if self._literal is not None else literal.renamed(marks)
        self._ids = {name: tokenizer.convert_tokens_to_ids(mark) for mark, name in self._names.items()}
        self._named = literal.pattern(self._ids)
        self._beginnings = frozenset(mark[:size] for mark in marks for size in range(1, len(mark)))
        self._endings = frozenset(mark[size:] for mark in marks for size in range(1, len(mark)))
        self._longest = max(map(len, marks), default=0)

    def encode(self, turns: Turns) -> list[int]:
        """The ids of a conversation up to where the model is to go on. Raises as `text` does."""
        return self.ids(self.text(turns))

    def text(self, turns: Turns) -> str:
        """What the template makes of a conversation, with the secret names of its markers, for `ids`. Raises
        InvalidArgument where a message uses up the characters for private use, what the template raises, and
        TimeLimitExceeded.
        """
        kept = _MarkedText(turns)
        text = self._render([{**turn, "content": self._hidden(turn["content"], kept)} for turn in turns])
        if self._marks is not None:
            text = self._marks.sub(lambda found: self._names[found.group()], text)
        return kept.restored(text)

    @cached_property
    def division(self) -> Division:
        """How a text with secret names may be divided for `ids`."""
        if self._literal is not None:
            return pieces.division(self._literal.backend)
        return pieces.of_bytes(self._names.values()) if pieces.has_bytes(self._tokenizer) else Division()

    def encode_part(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """As `ids`; nothing is added."""
        return self.ids(text)

    def ids(self, text: str) -> list[int]:
        """The ids of a text in which control tokens have their secret names."""
        if self._literal is not None:
            # For a lone text the library would hold the interpreter.
            [found] = self._literal.backend.encode_batch([text], add_special_tokens=False)
            ids: list[int] = found.ids
            return ids
        return self._in_parts(text)

    def _in_parts(self, text: str) -> list[int]:
        """For tokenisers that are written in Python, which split a text at special tokens before all else, and leave
        out the blanks beside some of them.
        """
        ids: list[int] = []
        start, left = 0, False
        for mark in self._named.finditer(text) if self._named is not None else ():
            place = self._ids[mark.group()]
            token = self._tokenizer.added_tokens_decoder.get(place)
            ids += self._plain(text[start : mark.start()], front=left, back=getattr(token, "lstrip", False))
            ids.append(place)
            start, left = mark.end(), getattr(token, "rstrip", False)
        return ids + self._plain(text[start:], front=left)

    def _plain(self, text: str, *, front: bool = False, back: bool = False) -> list[int]:
        text = text.lstrip() if front else text
        text = text.rstrip() if back else text
        if not text:
            return []
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        return ids

    def _render(self, turns: Turns) -> str:
        with limited(_RENDER_SECONDS):
            text: str = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return text

    def _structural(self, added: Iterable[str]) -> set[str]:
        """The added tokens that the template itself writes, special or not."""
        texts = [text for sample in _SAMPLES if (text := self._sample(sample)) is not None]
        return {token for token in added if any(token in text for text in texts)}

    def _sample(self, turns: Turns) -> str | None:
        try:
            return self._render(turns)
        except Exception:  # a template may refuse a role, in whatever way
            return None

    def _hidden(self, content: str, kept: _MarkedText) -> str:
        """A message with placeholders for its markers, and for the parts of one at its ends: what the template puts
        beside it, or another message, could make them whole.
        """
        if self._marks is None:
            return content
        hidden = self._marks.sub(lambda found: kept.placeholder(found.group()), content)
        bare = hidden.strip()
        start = len(hidden) - len(hidden.lstrip())
        front = self._part(bare, self._endings, lambda size: bare[:size])
        bare = kept.placeholder(front) + bare[len(front) :] if front else bare
        back = self._part(bare, self._beginnings, lambda size: bare[-size:])
        bare = bare[: -len(back)] + kept.placeholder(back) if back else bare
        return hidden[:start] + bare + hidden[start + len(hidden.strip()) :]

    def _part(self, text: str, parts: frozenset[str], cut: Callable[[int], str]) -> str:
        """The longest of `parts` that a text has at an end."""
        sizes = range(min(self._longest, len(text)), 0, -1)
        return next((cut(size) for size in sizes if cut(size) in parts), "")


class _MarkedText:
    """What placeholders of one conversation stand for."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._by_text: dict[str, str] = {}

    def placeholder(self, text: str) -> str:
        """The character that stands for a text."""
        if text not in self._by_text:
            found = next(self._free, None)
            if found is None:
                raise InvalidArgument.of("conversation", "too many characters for private use")
            self._by_text[text] = found
        return self._by_text[text]

    @cached_property
    def _free(self) -> Iterator[str]:
        """The characters for private use that nobody has said."""
        used = {character for turn in self._turns for character in _PRIVATE.findall(turn["content"])}
        return (chr(code) for code in _PLACEHOLDERS if chr(code) not in used)

    def restored(self, text: str) -> str:
        """A text with what its placeholders stand for."""
        return text.translate({ord(character): kept for kept, character in self._by_text.items()})


def _specials(tokenizer: Any) -> set[str]:
    return {str(token) for token in getattr(tokenizer, "all_special_tokens", ())}
