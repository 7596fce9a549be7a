"""Long texts in pieces: the tokens are the whole text's, whatever the tokeniser, and so is what is cut or refused."""

from __future__ import annotations

import unicodedata
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from meshgate.errors import InvalidArgument
from services.classification.model.offsets import Located, LocatingTokeniser
from services.generation.text import text_reader
from services.generation.text.conversation import Conversations
from services.generation.text.prompt import PromptReader
from services.generation.text.text_reader import TextReader
from services.text import pieces, tokens
from services.text.pieces import Division, division
from services.text.preparing import whole
from services.text.tokens import Cut, Tokeniser
from tests.tinymodels import tokenisers
from tests.tinymodels.families import FAMILIES, family

_Fast: Any = PreTrainedTokenizerFast
_ByT5: Any = ByT5Tokenizer
UNDIVIDED = {"one of its own"}
_LETTERS = st.sampled_from("ab é我的。、!? .,\n\t5½\u037aK'sx\u2581\u0301\x00[M\u3000")
_WORDS = st.sampled_from(
    ["the quick ", "model fox", "</s>", "<mask>", "  ", "[MASK]", "我的。", " ", "don't", "\u1fbe\u0308\u0301"]
)
TEXTS = st.lists(_LETTERS | _WORDS, max_size=60).map("".join)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of a few characters."""
    for module in (pieces, tokens, text_reader):
        monkeypatch.setattr(module, "PIECE", 8)
    monkeypatch.setattr(pieces, "_SOON", 1)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.usefixtures("small")
def test_pieces_have_the_tokens_of_the_whole(name: str) -> None:
    tokenizer = family(name)
    divided = division(tokenizer)

    @settings(max_examples=150, deadline=None)
    @given(TEXTS)
    def check(text: str) -> None:
        parts = list(divided.pieces(text))
        assert list(divided.backwards(text))[::-1] == parts
        assert ids(tokenizer, text) == [token for part in parts for token in ids(tokenizer, part)]
        assert len(ids(tokenizer, text)) >= divided.least(text)

    check()


_RUNS = st.sampled_from(["a" * 99, "a" * 100, "Z9" * 60, "\U0001f469" * 130, " " * 70, "\n \t" * 40, "[UNK]", "\u0301"])


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_left_out_of_runs_changes_no_token(name: str) -> None:
    tokenizer = family(name)
    divided = division(tokenizer)

    @settings(max_examples=150, deadline=None)
    @given(st.lists(_LETTERS | _WORDS | _RUNS, max_size=12).map("".join))
    def check(text: str) -> None:
        assert ids(tokenizer, divided.shortened(text)) == ids(tokenizer, text)

    check()


@pytest.mark.parametrize("run", ["a", "Zq7", " ", " \n", "\U0001f469"])
@pytest.mark.parametrize("cut", Cut)
def test_a_word_without_an_end_is_hardly_read(run: str, cut: Cut, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = Tokeniser(family("WordPiece"), 12)
    read: list[int] = []
    backend = ours.backend

    def counted(texts: list[str], **more: Any) -> Any:
        read.append(sum(map(len, texts)))
        return backend.encode_batch(texts, **more)

    counting = SimpleNamespace(
        encode_batch=counted,
        post_process=backend.post_process,
        num_special_tokens_to_add=backend.num_special_tokens_to_add,
    )
    monkeypatch.setattr(ours, "backend", counting)
    text = "before " + run * (400_000 // len(run)) + " after"
    [made] = whole(ours.steps([text], None, cut, "inputs"))
    assert sum(read) < 400
    assert made.ids == family("WordPiece").encode(text).ids


@pytest.mark.parametrize("name", FAMILIES)
def test_texts_of_words_are_divided_unless_nobody_knows_how(name: str) -> None:
    text = "many words of a language " * 2000
    longest = max(map(len, division(family(name)).pieces(text)))
    assert (longest == len(text)) == (name in UNDIVIDED)
    assert longest == len(text) or longest < 2 * pieces.PIECE


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.usefixtures("small")
def test_what_is_cut_is_what_transformers_keeps(name: str, side: str) -> None:
    theirs = _Fast(tokenizer_object=family(name), pad_token="<s>", truncation_side=side)
    ours = Tokeniser(family(name), 12)
    backend = ours.backend

    @settings(max_examples=80, deadline=None)
    @given(st.lists(TEXTS.filter(bool), min_size=1, max_size=3))
    def check(texts: list[str]) -> None:
        expected = theirs(texts, truncation=True, max_length=12, split_special_tokens=True)["input_ids"]
        found = ours.read(texts, Cut(side), "inputs")
        assert [each.ids for each in found] == expected
        assert [each.cut for each in found] == [len(whole_ids(backend, text)) > 12 for text in texts]

    check()


@pytest.mark.parametrize("name", ["byte-level", "WordPiece", "Unigram"])
@pytest.mark.parametrize("most", [12, 13])
@pytest.mark.usefixtures("small")
def test_pairs_are_cut_as_transformers_cuts_them(name: str, most: int) -> None:
    backend = family(name)
    theirs = _Fast(tokenizer_object=family(name), pad_token="<s>")
    ours = Tokeniser(backend, most)

    @settings(max_examples=60, deadline=None)
    @given(TEXTS.filter(bool), TEXTS.filter(lambda text: bool(ids(backend, text))))
    def check(text: str, pair: str) -> None:
        expected = theirs([text], [pair], truncation="longest_first", max_length=most, split_special_tokens=True)[
            "input_ids"
        ]
        [found] = whole(ours.steps([text], [pair], Cut.END, "inputs"))
        assert found.ids == expected[0]

    check()


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.usefixtures("small")
def test_what_is_refused_is_what_has_too_many_tokens(name: str) -> None:
    ours = Tokeniser(family(name), 12)
    backend = ours.backend

    @settings(max_examples=80, deadline=None)
    @given(TEXTS.filter(bool))
    def check(text: str) -> None:
        try:
            [found] = ours.read([text], Cut.REFUSE, "inputs")
        except InvalidArgument as error:
            assert (error.reason, error.violations[0].field) == ("INPUT_TOO_LONG", "inputs[0]")
            assert len(whole_ids(backend, text)) > 12
        else:
            assert found.ids == whole_ids(backend, text)

    check()


@pytest.mark.parametrize("name", [*FAMILIES, "ByT5"])
@pytest.mark.parametrize("special", [True, False])
@pytest.mark.usefixtures("small")
def test_prompts_have_the_tokens_that_transformers_gives(name: str, special: bool) -> None:
    theirs = _ByT5() if name == "ByT5" else _Fast(tokenizer_object=family(name))
    reader = TextReader(theirs.encode, text_reader.division(theirs), text_reader.around(theirs))

    @settings(max_examples=80, deadline=None)
    @given(TEXTS)
    def check(text: str) -> None:
        expected = theirs.encode(text, add_special_tokens=special)
        assert whole(reader.steps(text, None, special=special)) == (expected, len(expected), True)
        assert whole(reader.steps(text, None, special=special, keep=False)).tokens == len(expected)
        most = whole(reader.steps(text, 6, special=special))
        assert (most.ids == expected) if most.whole else (6 < most.tokens <= len(expected))

    check()


TEMPLATE = "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}<|start|>assistant\n"


@pytest.mark.parametrize("name", [*tokenisers.FAMILIES, "byt5"])
@pytest.mark.usefixtures("small")
def test_conversations_have_the_tokens_of_the_whole(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    markers = ("<|start|>", "<|end|>")
    saved = tokenisers.save(name, tmp_path_factory.mktemp(name), markers, template=TEMPLATE)
    conversations = Conversations(saved)
    prompts = PromptReader(saved)
    divided = 0

    @settings(max_examples=40, deadline=None)
    @given(st.lists(TEXTS.filter(bool), min_size=1, max_size=3))
    def check(texts: list[str]) -> None:
        nonlocal divided
        turns = [{"role": "user", "content": text} for text in texts]
        text = conversations.text(turns)
        divided += len(list(conversations.division.pieces(text))) > 1
        assert prompts.conversation(turns) == conversations.ids(text)

    check()
    assert divided or name in {"byte_fallback", "no_fallback", "metaspace"}, "their tokens have spaces inside"


class Counting:
    """A tokeniser that remembers how much it was given."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self.read = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def encode_batch(self, texts: list[str], **kwargs: Any) -> Any:
        self.read += sum(map(len, texts))
        return self._backend.encode_batch(texts, **kwargs)


LONG = {"signs": "!" * 1_000_000, "words": "word " * 200_000, "chinese": "我喜欢编程。" * 150_000}


@pytest.mark.parametrize("name", ["WordPiece", "byte-level"])
@pytest.mark.parametrize("text", LONG)
def test_a_text_that_can_not_fit_is_hardly_read(name: str, text: str) -> None:
    backend = Counting(family(name))
    tokeniser = Tokeniser(backend, 512)
    with pytest.raises(InvalidArgument):
        tokeniser.read([LONG[text]], Cut.REFUSE, "inputs")
    assert backend.read < 3 * pieces.PIECE


@pytest.mark.parametrize("text", LONG)
@pytest.mark.parametrize("cut", [Cut.START, Cut.END])
def test_one_that_is_to_be_cut_is_hardly_read_beyond_the_cut(text: str, cut: Cut) -> None:
    backend = Counting(family("WordPiece"))
    tokeniser = Tokeniser(backend, 512)
    [found] = tokeniser.read([LONG[text]], cut, "inputs")
    assert (found.length, found.cut) == (512, True)
    assert backend.read < 3 * pieces.PIECE


def test_a_conversation_without_words_is_divided_at_its_markers(tmp_path_factory: pytest.TempPathFactory) -> None:
    markers = ("<|start|>", "<|end|>")
    saved = tokenisers.save("byte_level", tmp_path_factory.mktemp("signs"), markers, template=TEMPLATE)
    conversations = Conversations(saved)
    text = conversations.text([{"role": "user", "content": "!" * 40_000}] * 6)
    parts = list(conversations.division.pieces(text))
    assert max(map(len, parts)) < 50_000
    assert [token for part in parts for token in conversations.ids(part)] == conversations.ids(text)


def test_texts_of_what_is_deleted_fit_however_long_they_are() -> None:
    tokeniser = Tokeniser(family("WordPiece"), 16)
    for text in (" " * 100_000 + "a", "a" + "\u0301" * 100_000, "\x00" * 100_000 + "a", "x" * 100_000):
        [found] = tokeniser.read([text], Cut.REFUSE, "inputs")
        assert found.ids == whole_ids(family("WordPiece"), text)


def test_taggers_are_given_texts_whole() -> None:
    """They have to know where in the text a token is."""
    tokeniser = LocatingTokeniser(family("WordPiece"), 100_000)
    text = "many words of a language " * 2000
    [found] = tokeniser.read([text], Cut.REFUSE, "inputs")
    assert isinstance(found, Located)
    assert text[slice(*found.offsets[-2])] == "language"


def test_composing_makes_a_text_no_shorter_than_is_believed() -> None:
    """All characters, and the longest sequences that become one."""
    worst = 0.0
    for code in [*range(0xD800), *range(0xE000, 0x110000)]:
        decomposed = unicodedata.normalize("NFD", chr(code))
        for text in (chr(code), decomposed):
            made = unicodedata.normalize("NFC", text)
            worst = max(worst, len(text.encode()) / max(1, len(made.encode())))
    for first in "\u1fbe\u2126\u212a\u212b":
        for marks in ("\u0308\u0301", "\u0313\u0301\u0345", "\u0327\u0301", "\u030a\u0301"):
            text = first + marks
            worst = max(worst, len(text.encode()) / len(unicodedata.normalize("NFC", text).encode()))
    assert worst < 4


def test_nothing_is_known_of_a_tokeniser_in_python() -> None:
    assert division(object()) == Division()


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def whole_ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text).ids)
