"""Inputs to token ids: plain text, tokens as they are, or a conversation through the model's chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

from meshgate.errors import InvalidArgument
from services.generation.text.conversation import Conversations
from services.generation.text.text_reader import TextReader, TokenisedInput, around, division
from services.generation.text.time_limit import TimeLimitExceeded
from services.text.preparing import Steps, whole

_RENDERED: Final = 1_048_576
_RENDERED_TURN: Final = 4096
_TIMES: Final = 4
"""Characters that a template may make: so many, so many more a turn, and so many times what was said."""

Turns = Sequence[Mapping[str, str]]
"""A conversation as templates know it: `role` (system, user, assistant) and `content`."""


class Tokeniser(Protocol):
    """The part of a transformers tokeniser that inputs need. Its methods are thread-safe as used here."""

    chat_template: str | dict[str, str] | None

    def apply_chat_template(self, conversation: Any, *, tokenize: bool, add_generation_prompt: bool) -> Any:
        """The text of a conversation up to where the model is to go on."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """The tokens of a text."""


class PromptReader:
    """Makes prompts for one model, in steps (see services.text.preparing)."""

    def __init__(self, tokenizer: Tokeniser) -> None:
        self._texts = TextReader(tokenizer.encode, division(tokenizer), around(tokenizer))
        self.chat = bool(tokenizer.chat_template)
        self._conversations = Conversations(tokenizer) if self.chat else None

    def text(self, text: str) -> list[int]:
        """As `text_steps`, for a thread that may wait."""
        return whole(self.text_steps(text)).ids

    def conversation(self, turns: Turns) -> list[int]:
        """As `conversation_steps`, for a thread that may wait."""
        return whole(self.conversation_steps(turns)).ids

    def text_steps(self, text: str, most: int | None = None, *, keep: bool = True) -> Steps[TokenisedInput]:
        """Plain text to continue, with the special tokens that this model's texts begin with. A special token that the
        text names is that token: whoever writes a prompt may want to write a conversation's markers. See TextReader.
        """
        return _require_tokens((yield from self._texts.steps(text, most, special=True, keep=keep)), "prompt")

    def conversation_steps(self, turns: Turns, most: int | None = None, *, keep: bool = True) -> Steps[TokenisedInput]:
        """A conversation to answer; what is said in it is text, whatever tokens it names. Raises InvalidArgument when
        the model has no template or its template refuses.
        """
        if self._conversations is None:
            raise InvalidArgument.of("conversation", "this model has no chat template; use prompt")
        text = _rendered(self._conversations, turns)
        reader = TextReader(self._conversations.encode_part, self._conversations.division)
        return _require_tokens((yield from reader.steps(text, most, special=False, keep=keep)), "conversation")


def _rendered(conversations: Conversations, turns: Turns) -> str:
    """The text of a conversation. A template is a program of the checkpoint's: it can raise anything, and loop."""
    try:
        text = conversations.text(turns)
    except InvalidArgument:
        raise
    except TimeLimitExceeded:
        raise InvalidArgument.of("conversation", "this model's template takes too long for these turns") from None
    except Exception:
        raise InvalidArgument.of("conversation", "this model's template refuses these turns") from None
    if len(text) > _RENDERED + _TIMES * sum(len(turn["content"]) + _RENDERED_TURN for turn in turns):
        raise InvalidArgument.of("conversation", "this model's template makes too long a text of these turns")
    return text


def _require_tokens(read: TokenisedInput, field: str) -> TokenisedInput:
    if not read.tokens:
        raise InvalidArgument.of(field, "holds no token of this model")
    return read
