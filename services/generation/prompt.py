"""Inputs to token ids: plain text, tokens as they are, or a conversation through the model's chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from meshgate.errors import InvalidArgument
from services.generation.conversation import Conversations

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
    """Makes prompts for one model. Long texts take long: call it off the event loop."""

    def __init__(self, tokenizer: Tokeniser) -> None:
        self._tokenizer = tokenizer
        self.chat = bool(tokenizer.chat_template)
        self._conversations = Conversations(tokenizer) if self.chat else None

    def text(self, text: str) -> list[int]:
        """Plain text to continue, with the special tokens that this model's texts begin with. A special token that the
        text names is that token: whoever writes a prompt may want to write a conversation's markers.
        """
        return _some(self._tokenizer.encode(text, add_special_tokens=True), "prompt")

    def conversation(self, turns: Turns) -> list[int]:
        """A conversation to answer; what is said in it is text, whatever tokens it names. Raises InvalidArgument when
        the model has no template or its template refuses.
        """
        if self._conversations is None:
            raise InvalidArgument.of("conversation", "this model has no chat template; use prompt")
        try:
            text = self._conversations.text(turns)
        except InvalidArgument:
            raise
        except Exception:  # a template is a program of the checkpoint's, and can raise anything
            raise InvalidArgument.of("conversation", "this model's template refuses these turns") from None
        return _some(self._conversations.ids(text), "conversation")


def _some(tokens: list[int], field: str) -> list[int]:
    if not tokens:
        raise InvalidArgument.of(field, "holds no token of this model")
    return tokens
