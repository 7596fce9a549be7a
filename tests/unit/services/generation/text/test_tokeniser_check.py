"""What a model says in tokens of any family is the text that transformers makes of them, and ends where it ends."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from meshgate.runtime import config
from meshgate.runtime.config import ConfigError
from meshgate.v1 import generation_pb2 as pb
from services.generation.app import App, build
from services.generation.config import GenerationConfig
from services.generation.serving.servicer import GenerationServicer
from services.generation.text import tokeniser_check
from services.generation.text.detokenise import Detokeniser, TokenBytes
from services.generation.text.eos import all_end_tokens
from tests.support.fixtures.servicer_context import FakeContext
from tests.tinymodels.llama import build_tiny_llama
from tests.tinymodels.tokenisers import FAMILIES, TEXTS, save

MARKERS = ("<|eot_id|>", "<end_of_turn>")
PLAIN = ("<think>", "<tool call>")
SERVER = '[server.tls]\ncertificate = "x"\nkey = "x"\nca = "x"\n[engine]\nmax_batch = 2\nthreads = 1\n'


@pytest.fixture(scope="module", params=[*FAMILIES, "byt5"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return save(request.param, tmp_path_factory.mktemp("tokeniser"), MARKERS, PLAIN)


def told(tokens: TokenBytes, ids: list[int]) -> str:
    """As a stream tells it, without the blank that SentencePiece begins texts with."""
    detokeniser = Detokeniser(tokens, fresh=True)
    return "".join([*map(detokeniser.feed, ids), detokeniser.flush()])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.lists(st.sampled_from([*TEXTS, *MARKERS, *PLAIN, "café", "我", "😀", "\n", "it's", "</s>"]), max_size=6)
)
def test_texts_are_those_of_transformers(tokenizer: Any, words: list[str]) -> None:
    ids = tokenizer.encode(" ".join(words), add_special_tokens=False)
    wanted = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert told(TokenBytes(tokenizer), ids).strip(" ") == wanted.strip(" ")


def test_a_token_that_only_the_file_calls_special_has_no_text(tokenizer: Any) -> None:
    tokens = TokenBytes(tokenizer)
    ids = tokenizer.convert_tokens_to_ids(list(MARKERS))
    assert not set(ids) & set(tokenizer.all_special_ids) or type(tokenizer).__name__ == "ByT5Tokenizer"
    assert [tokens.text_bytes(each) for each in ids] == [b"", b""]
    assert tokens.text_bytes(tokenizer.convert_tokens_to_ids(PLAIN[0])).strip() == PLAIN[0].encode()


def test_a_token_that_ends_has_no_text_whatever_it_is(tokenizer: Any) -> None:
    end = tokenizer.convert_tokens_to_ids(PLAIN[0])
    assert TokenBytes(tokenizer, ends=[end]).text_bytes(end) == b""


def test_bytes_of_byt5_are_characters(tmp_path: Path) -> None:
    byt5 = save("byt5", tmp_path)
    assert told(TokenBytes(byt5), byt5.encode("café, 我喜欢 😀", add_special_tokens=False)) == "café, 我喜欢 😀"


def test_a_vocabulary_with_a_gap_loses_no_token(tmp_path: Path) -> None:
    save("byte_level", tmp_path)
    file = tmp_path / "tokenizer.json"
    state = json.loads(file.read_text())
    gap = len(state["model"]["vocab"]) + 40
    state["model"]["vocab"]["<far>"] = gap
    like = dict(state["added_tokens"][0], id=gap, content="<far>", special=False)
    state["added_tokens"].append(like)
    file.write_text(json.dumps(state))
    found: Any = AutoTokenizer.from_pretrained(tmp_path)
    assert len(found) <= gap, "or there is no gap"
    ids = found.encode("a<far>b", add_special_tokens=False)
    assert gap in ids
    assert told(TokenBytes(found, gap + 8), ids) == "a<far>b"
    assert TokenBytes(found, gap + 8).of(gap - 3) == b""


def test_a_tokeniser_whose_tokens_can_be_streamed_passes_and_another_is_refused(tokenizer: Any) -> None:
    tokens = TokenBytes(tokenizer)
    tokeniser_check.check(tokenizer, tokens, "model", "here")
    tokens._bytes = [each.replace(b"e", b"") for each in tokens._bytes]
    with pytest.raises(ConfigError, match=r"^model\.source: here: this \w+ is not served"):
        tokeniser_check.check(tokenizer, tokens, "model", "here")


class Named:
    """A tokeniser that names its end."""

    def __init__(self, end: int | None) -> None:
        self.eos_token_id = end


def test_ends_are_those_that_anything_names_and_the_model_has() -> None:
    assert all_end_tokens(frozenset((2, 900)), Named(7), 100) == {2, 7}
    assert all_end_tokens(frozenset(), Named(7), 100) == {7}
    assert all_end_tokens(frozenset((2,)), Named(None), 100) == {2}
    assert all_end_tokens(frozenset(), Named(300), 100) == frozenset()


def configured(folder: Path, file: Path) -> App:
    file.write_text(SERVER + f'[model]\nsource = "{folder}"\nname = "m"\ndtype = "float32"\ndevice = "cpu"\n')
    return build(config.load(file, GenerationConfig))


async def generate(folder: Path, file: Path) -> pb.Candidate:
    app = configured(folder, file)
    await app.start()
    context: Any = FakeContext()
    request = pb.GenerateRequest(prompt="hello", max_output_tokens=12, sampling=pb.Sampling(temperature=0))
    answer = await GenerationServicer(app._slot).Generate(request, context)
    await app.stop(5)
    return answer.candidates[0]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    made = build_tiny_llama(tmp_path / "model")
    for name in ("config.json", "generation_config.json"):
        found = json.loads((made / name).read_text())
        (made / name).write_text(json.dumps(found | {"eos_token_id": None}))
    yield made


def said(folder: Path, candidate: pb.Candidate) -> list[int]:
    """The ids of what was made."""
    assert candidate.token_ids
    return list(candidate.token_ids)


@pytest.mark.parametrize("where", ["generation_config.json", "config.json", "tokenizer_config.json"])
async def test_an_end_that_is_named_anywhere_ends(folder: Path, tmp_path: Path, where: str) -> None:
    tokens = Tokenizer.from_file(str(folder / "tokenizer.json"))
    whole = await generate(folder, tmp_path / "a.toml")
    ids = said(folder, whole)
    end = next(each for place, each in enumerate(ids) if place > 1 and each not in ids[:place])
    found = json.loads((folder / where).read_text())
    named = {"eos_token": tokens.id_to_token(end)} if where.startswith("tokenizer") else {"eos_token_id": end}
    (folder / where).write_text(json.dumps(found | named))
    answer = await generate(folder, tmp_path / "b.toml")
    assert said(folder, answer) == ids[: ids.index(end) + 1]
    assert answer.finish.reason == pb.FINISH_REASON_STOP
    assert not answer.text.endswith(tokens.decode([end])) or whole.text.startswith(answer.text)
