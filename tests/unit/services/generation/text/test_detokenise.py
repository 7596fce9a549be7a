"""Incremental text equals the whole text, and no piece splits a character."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from services.generation.text.detokenise import Detokeniser, TokenBytes
from tests.tinymodels.llama import build_tiny_llama


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    loaded: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(build_tiny_llama(tmp_path_factory.mktemp("tiny")))
    return loaded


class SentencePiece:
    """A vocabulary as SentencePiece writes it."""

    all_special_ids = (0,)
    _tokens = ("<s>", "\u2581Hello", "\u2581", "<0xE6>", "<0x88>", "<0x91>", "!")

    def __len__(self) -> int:
        return len(self._tokens)

    def convert_ids_to_tokens(self, ids: list[int], /) -> list[str]:
        return [self._tokens[index] for index in ids]

    def decode(self, token_ids: list[int], /) -> str:
        raise NotImplementedError


def feed(tokens: TokenBytes, ids: list[int]) -> list[str]:
    detokeniser = Detokeniser(tokens)
    return [*map(detokeniser.feed, ids), detokeniser.flush()]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(codec="utf-8"), max_size=20))
def test_pieces_join_to_the_text(tokenizer: PreTrainedTokenizerBase, text: str) -> None:
    pieces = feed(TokenBytes(tokenizer), tokenizer.encode(text, split_special_tokens=True))
    assert "".join(pieces) == text
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ids=st.lists(st.integers(0, 319), max_size=20))
def test_any_tokens_give_what_the_tokeniser_gives(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> None:
    assert "".join(feed(TokenBytes(tokenizer), ids)) == tokenizer.decode(ids, skip_special_tokens=True)


def test_a_character_comes_out_with_its_last_byte(tokenizer: PreTrainedTokenizerBase) -> None:
    ids = tokenizer.encode("猫")  # not in the tokeniser's training text, so a token a byte
    assert feed(TokenBytes(tokenizer), ids) == ["", "", "猫", ""]


def test_special_tokens_have_bytes_and_no_text(tokenizer: PreTrainedTokenizerBase) -> None:
    tokens, end = TokenBytes(tokenizer), tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert isinstance(end, int)
    assert (tokens.of(end), tokens.text_bytes(end)) == (b"<|im_end|>", b"")


def test_ids_beyond_the_tokeniser_are_empty(tokenizer: PreTrainedTokenizerBase) -> None:
    assert TokenBytes(tokenizer, size=400).of(399) == b""


def test_sentencepiece_spaces_and_lone_bytes() -> None:
    assert feed(TokenBytes(SentencePiece()), [0, 1, 2, 3, 4, 5, 6]) == ["", " Hello", " ", "", "", "我", "!", ""]


def test_a_fresh_text_begins_without_the_space_that_is_none_of_it() -> None:
    tokens = TokenBytes(SentencePiece())
    for ids, text in (([1, 1], "Hello Hello"), ([0, 2, 1], " Hello"), ([6, 1], "! Hello"), ([3, 4, 5, 2], "\u6211 ")):
        detokeniser = Detokeniser(tokens, fresh=True)
        assert "".join([*map(detokeniser.feed, ids), detokeniser.flush()]) == text
