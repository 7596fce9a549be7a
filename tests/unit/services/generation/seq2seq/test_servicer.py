"""An encoder-decoder through the methods of the service: nothing is different but what has to be."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from meshgate.errors import InvalidArgument
from meshgate.rpc import metadata
from meshgate.runtime.config import ConfigError
from meshgate.v1 import generation_pb2 as pb
from meshgate.v1 import models_pb2
from services.generation.app import App, build
from services.generation.config import GenerationConfig
from services.generation.serving.servicer import GenerationServicer
from tests.support.fixtures.servicer_context import FakeContext
from tests.tinymodels.seq2seq import PLACES, build_tiny_marian, build_tiny_t5

TEXT = "the lazy dog. Das ist wunderbar"
GREEDY = pb.Sampling(temperature=0)
NAMES = ("t5", "marian")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("seq2seq")
    return {"t5": build_tiny_t5(folder / "t5"), "marian": build_tiny_marian(folder / "marian")}


def configuration(*sources: Path, **engine: int) -> GenerationConfig:
    tls = {"certificate": "none.pem", "key": "none.pem", "ca": "none.pem"}
    first, *rest = (
        {"source": str(each), "name": each.name, "dtype": "float32", "max_context": PLACES, "max_output_tokens": 40}
        for each in sources
    )
    engine = {"max_batch": 4, "max_queue": 8, "threads": 1, "prefill_tokens": 8} | engine
    return GenerationConfig.model_validate({"server": {"tls": tls}, "model": first, "models": rest, "engine": engine})


@pytest_asyncio.fixture
async def app(folders: dict[str, Path]) -> AsyncIterator[App]:
    built = build(configuration(*folders.values()))
    await built.start()
    yield built
    await built.stop(0)


@pytest_asyncio.fixture
async def service(app: App) -> GenerationServicer:
    return GenerationServicer(app._slot)


def context(*carried: tuple[str, str]) -> Any:
    return FakeContext(*carried)


def ask(model: str, **fields: Any) -> pb.GenerateRequest:
    defaults: dict[str, Any] = {"prompt": TEXT, "max_output_tokens": 20, "sampling": GREEDY}
    return pb.GenerateRequest(model=model, **(defaults | fields))


def expected(folder: Path, most: int) -> tuple[list[int], str, int]:
    """What transformers makes of TEXT: tokens, their text, and how many tokens TEXT is."""
    module: Any = AutoModelForSeq2SeqLM.from_pretrained(folder)
    tokeniser: Any = AutoTokenizer.from_pretrained(folder)
    ids = tokeniser(TEXT, return_tensors="pt").input_ids
    made = module.eval().generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=most, do_sample=False, forced_eos_token_id=None
    )
    return made[0, 1:].tolist(), tokeniser.decode(made[0], skip_special_tokens=True), ids.shape[1]


@pytest.mark.parametrize("name", NAMES)
async def test_text_and_usage_are_those_of_transformers(
    service: GenerationServicer, folders: dict[str, Path], name: str
) -> None:
    tokens, text, length = expected(folders[name], 20)
    called = context()
    reply = await service.Generate(ask(name), called)
    (candidate,) = reply.candidates
    assert (list(candidate.token_ids), candidate.text, reply.model) == (tokens, text, name)
    assert not text.startswith(" ")
    assert metadata.usage_of(called.trailers) == (length, len(tokens))
    counted = await service.CountTokens(pb.CountTokensRequest(model=name, prompt=TEXT), context())
    assert counted.input_tokens == length == reply.usage.input_tokens


@pytest.mark.parametrize("name", NAMES)
async def test_a_stream_stops_before_a_stop_sequence(service: GenerationServicer, name: str) -> None:
    fields: dict[str, Any] = {"sampling": pb.Sampling(seed=3), "candidate_count": 3, "logprobs": 2}
    whole = await service.Generate(ask(name, **fields), context())
    stop = next(text[2:4] for text in (each.text for each in whole.candidates) if len(text) > 4)
    request = pb.GenerateStreamRequest(request=ask(name, stop=[stop], **fields))
    deltas = [delta async for reply in service.GenerateStream(request, context()) for delta in reply.deltas]
    matched = 0
    for candidate in whole.candidates:
        mine = [delta for delta in deltas if delta.index == candidate.index]
        assert "".join(delta.text for delta in mine) == candidate.text.split(stop)[0]
        matched += mine[-1].finish.stop_matched == stop
        assert sum(len(delta.logprobs) for delta in mine) == sum(len(delta.token_ids) for delta in mine)
    assert matched


async def test_a_conversation_is_refused_by_name(service: GenerationServicer) -> None:
    turns = pb.Conversation(messages=[pb.Message(role=pb.ROLE_USER, content="hi")])
    for name in NAMES:
        with pytest.raises(InvalidArgument) as refused:
            await service.Generate(ask(name, prompt=None, conversation=turns), context())
        assert refused.value.violations[0].field == "conversation"
    request = pb.GenerateStreamRequest(request=ask("t5", prompt=None, conversation=turns))
    with pytest.raises(InvalidArgument) as refused:
        await anext(service.GenerateStream(request, context()))
    assert refused.value.violations[0].field == "request.conversation"


async def test_an_input_has_its_own_bound(service: GenerationServicer) -> None:
    full = {"ids": [5] * PLACES}
    reply = await service.Generate(ask("marian", prompt=None, token_ids=full, max_output_tokens=40), context())
    assert reply.usage.input_tokens == PLACES
    with pytest.raises(InvalidArgument) as refused:
        await service.Generate(ask("t5", prompt=None, token_ids={"ids": [5] * (PLACES + 1)}), context())
    assert (refused.value.reason, refused.value.violations[0].field) == ("INPUT_TOO_LONG", "input")


async def test_the_cap_bounds_input_and_all_candidates_together(service: GenerationServicer) -> None:
    length = (await service.CountTokens(pb.CountTokensRequest(model="t5", prompt=TEXT), context())).input_tokens
    capped = context((metadata.TOKEN_CAP, str(length + 7)))
    reply = await service.Generate(ask("t5", candidate_count=3, sampling=pb.Sampling(seed=1)), capped)
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (length, 7)
    assert pb.FINISH_REASON_BUDGET in {candidate.finish.reason for candidate in reply.candidates}


async def test_what_an_output_must_match_it_matches(service: GenerationServicer) -> None:
    for name in NAMES:
        for options in (["red", "green"], [" a", " b"]):
            request = ask(name, constraint=pb.Constraint(choice=pb.Choice(options=options)))
            assert (await service.Generate(request, context())).candidates[0].text in options


async def test_an_output_may_use_the_words_of_its_input(service: GenerationServicer) -> None:
    """A penalty that counted the input would keep a translation from its names."""
    plain = (await service.Generate(ask("t5", max_output_tokens=1), context())).candidates[0].token_ids
    asked = ask("t5", prompt=None, token_ids={"ids": [*plain]}, max_output_tokens=1)
    free = (await service.Generate(asked, context())).candidates[0].token_ids
    again = ask("t5", prompt=None, token_ids={"ids": [*plain, *free]}, max_output_tokens=1)
    unpenalised = (await service.Generate(again, context())).candidates[0].token_ids
    again.sampling.repetition_penalty = 10
    assert (await service.Generate(again, context())).candidates[0].token_ids == unpenalised


async def test_the_card_tells_input_and_output_apart(app: App) -> None:
    t5, marian = (each.card for each in (app._slot.get().find(name) for name in NAMES))
    for card in (t5, marian):
        assert (card.max_source_tokens, card.max_output_tokens, card.max_input_tokens) == (PLACES, 40, PLACES + 40)
        assert list(card.capabilities) == [models_pb2.CAPABILITY_GENERATE]


async def test_it_is_not_split(folders: dict[str, Path]) -> None:
    built = build(configuration(folders["t5"], tensor_parallel=2))
    with pytest.raises(ConfigError, match="tensor_parallel"):
        await built.start()
    await built.stop(0)


async def test_marians_own_tokeniser(folders: dict[str, Path], tmp_path: Path) -> None:
    """As Marian's checkpoints come: two SentencePiece files and a table of ids that are none of theirs."""
    sentencepiece: Any = pytest.importorskip("sentencepiece")
    shutil.copytree(folders["marian"], tmp_path / "marian", ignore=shutil.ignore_patterns("tokenizer*"))
    trained, folder = tmp_path / "trained", tmp_path / "marian"
    (tmp_path / "texts").write_text(f"{TEXT}\n" * 20)
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "texts"), model_prefix=str(trained), vocab_size=40, hard_vocab_limit=False, minloglevel=2
    )
    for name in ("source.spm", "target.spm"):
        shutil.copy(trained.with_suffix(".model"), folder / name)
    pieces = [line.split("\t")[0] for line in trained.with_suffix(".vocab").read_text().splitlines()[3:]]
    words = ["</s>", "<unk>", *pieces, *(f"filler{place}" for place in range(82 - len(pieces))), "<pad>"]
    (folder / "vocab.json").write_text(json.dumps({word: place for place, word in enumerate(words)}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "MarianTokenizer"}))
    tokens, text, length = expected(folder, 20)
    built = build(configuration(folder))
    await built.start()
    reply = await GenerationServicer(built._slot).Generate(ask("marian"), context())
    await built.stop(0)
    assert list(reply.candidates[0].token_ids) == tokens
    assert reply.usage.input_tokens == length
    assert reply.candidates[0].text == text
