"""The methods of the service over a tiny model: what the contract promises, without a socket."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio

from meshgate.errors import DeadlineExceeded, InvalidArgument, MeshError, Unavailable
from meshgate.rpc import metadata
from meshgate.v1 import generation_pb2 as pb
from meshgate.v1 import models_pb2
from services.generation.app import App, build
from services.generation.config import GenerationConfig
from services.generation.engine.interface import Engine, Job, Listener, Ticket
from services.generation.serving.servicer import GenerationServicer
from services.generation.text.tokenising import BoundedThreads
from services.models.listing import ModelServicer
from services.models.model_table import ModelTable
from tests.support.fixtures.servicer_context import FakeContext
from tests.tinymodels.llama import CONTEXT, build_tiny_llama

CHINESE = "我喜欢编程。"


class Context:
    """A call's context as the servicer sees it."""

    def __init__(self, cap: int | None = None, remaining: float | None = None) -> None:
        self.trailers: Any = ()
        self._metadata = () if cap is None else ((metadata.TOKEN_CAP, str(cap)),)
        self._remaining = remaining

    def invocation_metadata(self) -> Any:
        return self._metadata

    def time_remaining(self) -> float | None:
        return self._remaining

    def set_trailing_metadata(self, trailers: Any) -> None:
        self.trailers = trailers


class Watched:
    """An engine that counts the tickets that were cancelled."""

    def __init__(self, engine: Engine) -> None:
        self.submitted = asyncio.Event()
        self.cancelled = 0
        self._engine = engine

    def submit(self, job: Job, listener: Listener) -> Ticket:
        ticket = self._engine.submit(job, listener)
        self.submitted.set()
        return _Counted(self, ticket)


class _Counted:
    def __init__(self, watched: Watched, ticket: Ticket) -> None:
        self._watched = watched
        self._ticket = ticket

    @property
    def cached(self) -> int:
        return self._ticket.cached

    def cancel(self) -> None:
        self._watched.cancelled += 1
        self._ticket.cancel()


def watch(app: App) -> Watched:
    """Puts a watch around the engine."""
    served = app._slot.get().default
    watched = Watched(served.engine)
    app._slot.served = ModelTable([dataclasses.replace(served, engine=watched)])
    return watched


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_llama(tmp_path_factory.mktemp("tiny"))


def configuration(directory: Path, **engine: int) -> GenerationConfig:
    tls = {"certificate": "none.pem", "key": "none.pem", "ca": "none.pem"}
    model = {"source": str(directory), "name": "tiny", "aliases": ["small"], "dtype": "float32"}
    return GenerationConfig.model_validate({"server": {"tls": tls}, "model": model, "engine": engine})


@pytest_asyncio.fixture
async def app(directory: Path) -> AsyncIterator[App]:
    built = build(configuration(directory, max_batch=4, max_queue=8, threads=1))
    await built.start()
    yield built
    await built.stop(0)


@pytest_asyncio.fixture
async def service(app: App) -> GenerationServicer:
    return GenerationServicer(app._slot)


def ask(**fields: Any) -> pb.GenerateRequest:
    defaults: dict[str, Any] = {"prompt": "hello", "max_output_tokens": 8}
    return pb.GenerateRequest(**(defaults | fields))


async def stream(service: GenerationServicer, **fields: Any) -> list[pb.GenerateStreamResponse]:
    context: Any = Context()
    request = pb.GenerateStreamRequest(request=ask(**fields))
    return [reply async for reply in service.GenerateStream(request, context)]


async def test_candidates_differ_when_nothing_says_how_to_sample(service: GenerationServicer) -> None:
    context: Any = Context()
    reply = await service.Generate(ask(prompt=CHINESE, candidate_count=5, max_output_tokens=20), context)
    assert [candidate.index for candidate in reply.candidates] == list(range(5))
    assert len({tuple(candidate.token_ids) for candidate in reply.candidates}) == 5
    made = sum(len(candidate.token_ids) for candidate in reply.candidates)
    assert (reply.usage.output_tokens, reply.usage.input_tokens > 0, reply.model) == (made, True, "tiny")
    assert metadata.usage_of(context.trailers) == (reply.usage.input_tokens, made)


async def test_what_a_tenant_asked_before_is_not_read_again_and_is_said(service: GenerationServicer) -> None:
    async def cached(tenant: str) -> int:
        context: Any = FakeContext((metadata.TENANT, tenant))
        request = ask(prompt=None, token_ids={"ids": [5 + place % 40 for place in range(70)]})
        usage = (await service.Generate(request, context)).usage
        assert usage.input_tokens == 70
        return usage.cached_input_tokens

    assert [await cached(tenant) for tenant in ("a", "a", "b", "", "")] == [0, 64, 0, 0, 0]


async def test_a_stream_is_the_whole_in_pieces(service: GenerationServicer) -> None:
    fields: dict[str, Any] = {"sampling": {"seed": 4}, "candidate_count": 2, "logprobs": 2, "max_output_tokens": 30}
    context: Any = Context()
    whole = await service.Generate(ask(**fields), context)
    replies = await stream(service, **fields)
    for candidate in whole.candidates:
        deltas = [delta for reply in replies for delta in reply.deltas if delta.index == candidate.index]
        assert "".join(delta.text for delta in deltas) == candidate.text
        assert [token for delta in deltas for token in delta.token_ids] == list(candidate.token_ids)
        assert [entry for delta in deltas for entry in delta.logprobs] == list(candidate.logprobs)
        assert [delta.HasField("finish") for delta in deltas] == [False] * (len(deltas) - 1) + [True]
        assert deltas[-1].finish == candidate.finish
    assert [reply.model for reply in replies] == ["tiny"] + [""] * (len(replies) - 1)
    assert [reply.HasField("usage") for reply in replies] == [False] * (len(replies) - 1) + [True]
    assert replies[-1].usage == whole.usage


async def test_logprobs_name_the_token_and_its_rivals(service: GenerationServicer) -> None:
    context: Any = Context()
    reply = await service.Generate(ask(sampling={"temperature": 0}, logprobs=3, max_output_tokens=4), context)
    (candidate,) = reply.candidates
    for token, entry in zip(candidate.token_ids, candidate.logprobs, strict=True):
        assert entry.chosen.token_id == token == entry.alternatives[0].token_id
        logprobs = [each.logprob for each in entry.alternatives]
        assert len(logprobs) == 3
        assert 0 >= logprobs[0] >= logprobs[1] >= logprobs[2]


async def test_the_cap_bounds_input_and_all_candidates_together(service: GenerationServicer) -> None:
    plain: Any = Context()
    length = (await service.CountTokens(pb.CountTokensRequest(prompt="hello"), plain)).input_tokens
    context: Any = Context(cap=length + 7)
    reply = await service.Generate(ask(candidate_count=3, sampling={"seed": 1}, max_output_tokens=100), context)
    assert reply.usage.output_tokens == 7
    assert pb.FINISH_REASON_BUDGET in {candidate.finish.reason for candidate in reply.candidates}
    context = Context(cap=length - 1)
    with pytest.raises(InvalidArgument) as refused:
        await service.Generate(ask(), context)
    assert refused.value.reason == "INPUT_TOO_LONG"


async def test_a_stop_sequence_ends_before_itself(service: GenerationServicer) -> None:
    context: Any = Context()
    free = await service.Generate(ask(sampling={"temperature": 0}, max_output_tokens=30), context)
    text = free.candidates[0].text
    stop = text[4:7]
    cut = await service.Generate(ask(sampling={"temperature": 0}, max_output_tokens=30, stop=[stop]), context)
    (candidate,) = cut.candidates
    assert candidate.text == text[: text.index(stop)]
    assert (candidate.finish.reason, candidate.finish.stop_matched) == (pb.FINISH_REASON_STOP, stop)


async def test_an_input_as_long_as_the_context_is_refused(service: GenerationServicer) -> None:
    context: Any = Context()
    with pytest.raises(InvalidArgument) as refused:
        await service.Generate(ask(prompt=None, token_ids={"ids": [5] * CONTEXT}), context)
    assert (refused.value.reason, refused.value.violations[0].field) == ("INPUT_TOO_LONG", "input")
    with pytest.raises(InvalidArgument) as refused:
        await stream(service, prompt=None, token_ids={"ids": [5] * CONTEXT})
    assert refused.value.violations[0].field == "request.input"
    counted = await service.CountTokens(pb.CountTokensRequest(token_ids=pb.TokenIds(ids=[5] * CONTEXT)), context)
    assert counted.input_tokens == CONTEXT


async def test_a_conversation_goes_through_the_template(service: GenerationServicer) -> None:
    context: Any = Context()
    turns = pb.Conversation(messages=[pb.Message(role=pb.ROLE_USER, content="hi")])
    rendered = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    chat = await service.CountTokens(pb.CountTokensRequest(conversation=turns), context)
    plain = await service.CountTokens(pb.CountTokensRequest(prompt=rendered), context)
    assert chat.input_tokens == plain.input_tokens
    reply = await service.Generate(ask(prompt=None, conversation=turns), context)
    assert reply.usage.input_tokens == chat.input_tokens


async def test_more_than_fits_is_refused_at_once_and_places_come_back(service: GenerationServicer, app: App) -> None:
    context: Any = Context()
    entrance = app._slot.get().default.admission
    async with entrance.slots("another", 11, wait=False, remaining=None):
        with pytest.raises(Unavailable) as refused:
            await service.Generate(ask(candidate_count=2), context)
        assert (refused.value.reason, refused.value.retry_after is not None) == ("OVERLOADED", True)
        await service.Generate(ask(), context)
    with pytest.raises(InvalidArgument):
        await service.Generate(ask(prompt=None, token_ids={"ids": [5] * CONTEXT}), context)
    assert (entrance.candidates.held, entrance.tokens.held) == (0, 0)


async def test_a_stream_waits_where_a_unary_call_is_refused(service: GenerationServicer, app: App) -> None:
    entrance = app._slot.get().default.admission
    async with entrance.slots("another", 12, wait=False, remaining=None):
        waiting = asyncio.create_task(stream(service))
        await asyncio.sleep(0)
        with pytest.raises(Unavailable):
            await service.Generate(ask(), cast("Any", Context()))
        assert not waiting.done()
    assert (await waiting)[-1].HasField("usage")


async def test_tokenising_of_a_departed_caller_counts_until_it_is_done() -> None:
    tokenising, go_on, begun = BoundedThreads(3), threading.Event(), threading.Event()

    def slowly(_: int) -> None:
        begun.set()
        go_on.wait(20)

    calls = [asyncio.ensure_future(tokenising.run(slowly, index)) for index in range(3)]
    await asyncio.to_thread(begun.wait, 20)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    with pytest.raises(Unavailable):
        await asyncio.gather(*(tokenising.run(slowly, index) for index in range(3)))
    go_on.set()
    tokenising.close()


async def test_tokenising_that_is_dropped_at_the_end_is_told_and_is_nobodys_leaving() -> None:
    tokenising, go_on = BoundedThreads(8), threading.Event()
    busy = [asyncio.ensure_future(tokenising.run(lambda _: go_on.wait(20), index)) for index in range(2)]
    waits, leaves = (asyncio.ensure_future(tokenising.run(str, index)) for index in (3, 4))
    await asyncio.sleep(0)
    leaves.cancel()
    tokenising.close(lambda: Unavailable("gone", reason="MODEL_FAILED"))
    for refused in (waits, asyncio.ensure_future(tokenising.run(str, 5))):
        with pytest.raises(Unavailable) as caught:
            await refused
        assert caught.value.reason == "MODEL_FAILED"
    with pytest.raises(asyncio.CancelledError):
        await leaves
    go_on.set()
    assert await asyncio.gather(*busy) == [True, True]


async def test_leaving_a_stream_ends_its_work(service: GenerationServicer, app: App) -> None:
    context: Any = Context()
    request = pb.GenerateStreamRequest(request=ask(max_output_tokens=200, candidate_count=4, sampling={"seed": 1}))
    watched = watch(app)
    replies: Any = service.GenerateStream(request, context)
    await anext(replies)
    await replies.aclose()
    assert app._slot.get().default.admission.candidates.held == 0
    assert watched.cancelled == 1
    reply = await service.Generate(ask(candidate_count=4), context)
    assert len(reply.candidates) == 4


async def test_a_cancelled_unary_call_gives_its_place_back(service: GenerationServicer, app: App) -> None:
    context: Any = Context()
    watched = watch(app)
    task = asyncio.ensure_future(service.Generate(ask(max_output_tokens=200, candidate_count=8), context))
    await asyncio.sleep(0)  # it runs up to its first await
    assert app._slot.get().default.admission.candidates.held == 8
    await watched.submitted.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert watched.cancelled == 1
    assert app._slot.get().default.admission.candidates.held == 0


async def test_a_deadline_that_has_passed_makes_nothing(service: GenerationServicer) -> None:
    context: Any = Context(remaining=0.0)
    with pytest.raises(DeadlineExceeded):
        await service.Generate(ask(), context)


async def test_a_stopped_service_says_so(service: GenerationServicer, app: App) -> None:
    context: Any = Context()
    await app.stop(0)
    with pytest.raises(Unavailable) as refused:
        await service.Generate(ask(), context)
    assert refused.value.reason == "DRAINING"


async def test_before_it_is_loaded_it_says_so(directory: Path) -> None:
    context: Any = Context()
    unloaded = build(configuration(directory))
    with pytest.raises(MeshError) as refused:
        await GenerationServicer(unloaded._slot).Generate(ask(), context)
    assert refused.value.reason == "STARTING"
    await unloaded.stop(0)


async def test_the_model_is_listed_with_every_limit(app: App) -> None:
    context: Any = Context()
    catalogue = ModelServicer(lambda: app._slot.get().cards)
    (model,) = (await catalogue.ListModels(models_pb2.ListModelsRequest(), context)).models
    assert (model.name, list(model.aliases), model.default, model.dtype) == ("tiny", ["small"], True, "float32")
    assert list(model.capabilities) == [models_pb2.CAPABILITY_GENERATE, models_pb2.CAPABILITY_CHAT]
    assert (model.max_input_tokens, model.max_output_tokens, model.max_candidates) == (CONTEXT, CONTEXT - 1, 12)
    asked = models_pb2.ListModelsRequest(capability=models_pb2.CAPABILITY_EMBED)
    assert not (await catalogue.ListModels(asked, context)).models
