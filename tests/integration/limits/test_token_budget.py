"""A budget of tokens is never overdrawn: a hundred streams at once, the real engine on a tiny model, a real Valkey."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from meshgate import errors
from meshgate.rpc import status
from meshgate.v1 import generation_pb2 as pb
from meshgate.v1 import generation_pb2_grpc
from services.generation.app import App, build
from services.generation.config import GenerationConfig
from services.generation.scheduler.candidates import Candidates
from services.generation.scheduler.prefill import PrefillStage
from services.generation.scheduler.sequence import GenerationRequest
from tests.support.network import mesh as meshes
from tests.support.network.mesh import Mesh
from tests.support.network.valkey import Valkey
from tests.tinymodels.llama import build_tiny_llama

BUDGET = 1500
PROMPT = "the quick brown fox"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_llama(tmp_path_factory.mktemp("tiny"))


def application(model: Path) -> App:
    nowhere = {"certificate": "none.pem", "key": "none.pem", "ca": "none.pem"}
    return build(
        GenerationConfig.model_validate(
            {
                "server": {"tls": nowhere},
                "model": {"source": str(model), "name": "tiny", "dtype": "float32"},
                "engine": {"max_batch": 16, "max_queue": 400, "threads": 1},
            }
        )
    )


@asynccontextmanager
async def running(home: Path, model: Path, **changes: Any) -> AsyncIterator[tuple[Mesh, Any]]:
    """A gateway with BUDGET tokens for the tenant, one more each minute."""
    tenant = {"tokens_per_minute": 1, "token_burst": BUDGET}
    limits = {"tenant": tenant, "template_tokens": 32}
    async with (
        meshes.mesh(home, {"generation": application(model)}, limits=limits, **changes) as mesh,
        mesh.channel() as channel,
    ):
        yield mesh, generation_pb2_grpc.GenerationServiceStub(channel)


class Engine:
    """What the engine did, whether or not anybody heard of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._output = 0
        self._inputs: dict[GenerationRequest, int] = {}
        take, read = Candidates.take, PrefillStage._prefill_chunk

        def taken(candidates: Candidates, sequence: Any, choice: Any) -> bool:
            self._output += 1
            return take(candidates, sequence, choice)

        def was_read(stage: PrefillStage, prefill: Any, allowance: int) -> int:
            self._inputs[prefill.request] = len(prefill.request.job.prompt)
            return read(stage, prefill, allowance)

        monkeypatch.setattr(Candidates, "take", taken)
        monkeypatch.setattr(PrefillStage, "_prefill_chunk", was_read)

    @property
    def made(self) -> int:
        """Tokens of all prompts that were read, each once, and of all candidates."""
        return self._output + sum(self._inputs.values())


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    return Engine(monkeypatch)


class Outcome:
    """What became of one stream."""

    def __init__(self) -> None:
        self.output = 0
        self.input = 0
        self.reasons: set[int] = set()
        self.error: errors.MeshError | None = None
        self.trailers: dict[str, Any] = {}


async def stream(mesh: Mesh, stub: Any, *, tokens: int, leave_after: int | None = None) -> Outcome:
    # Greedy, because what is drawn may be an early end.
    sampling = pb.Sampling(temperature=0)
    request = pb.GenerateRequest(prompt=PROMPT, max_output_tokens=tokens, candidate_count=2, sampling=sampling)
    call = stub.GenerateStream(pb.GenerateStreamRequest(request=request), metadata=mesh.auth(), timeout=60)
    outcome = Outcome()
    try:
        while (reply := await call.read()) is not grpc.aio.EOF:
            outcome.output += sum(len(delta.token_ids) for delta in reply.deltas)
            outcome.reasons |= {delta.finish.reason for delta in reply.deltas if delta.HasField("finish")}
            outcome.input += reply.usage.input_tokens
            if leave_after is not None and outcome.output >= leave_after:
                call.cancel()
                return outcome
        outcome.trailers = dict(await call.trailing_metadata())
    except grpc.aio.AioRpcError as error:
        outcome.error = status.from_rpc_error(error)
    return outcome


async def hundred(mesh: Mesh, stub: Any) -> tuple[list[Outcome], float]:
    """A hundred streams, most of them at once and the rest when those have ended, every second of which is left in its
    midst; and the tokens that came back meanwhile.
    """
    begun = time.monotonic()
    wanted = [stream(mesh, stub, tokens=40, leave_after=30 if number % 2 else None) for number in range(100)]
    outcomes = [*await asyncio.gather(*wanted[:60]), *await asyncio.gather(*wanted[60:])]
    return outcomes, (time.monotonic() - begun) / 60


def check(engine: Engine, outcomes: list[Outcome], earned: float) -> None:
    """Of streams that were left the engine may have made more than they heard of."""
    heard = sum(outcome.output + outcome.input for outcome in outcomes)
    assert BUDGET / 3 < heard <= engine.made <= BUDGET + earned
    refused = [outcome.error for outcome in outcomes if outcome.error is not None]
    assert {error.reason for error in refused} == {"TOKENS_EXHAUSTED"}
    assert all(isinstance(error, errors.LimitExceeded) and error.subject == "tenant:acme" for error in refused)


async def test_a_hundred_streams_never_take_more_than_the_budget(tmp_path: Path, model: Path, engine: Engine) -> None:
    async with running(tmp_path, model) as (mesh, stub):
        outcomes, earned = await hundred(mesh, stub)
        check(engine, outcomes, earned)
        for record in mesh.records():
            if record["event"] == "ended" and record["status"] == "OK":
                assert record["input_tokens"] + record["output_tokens"] <= record["tokens_reserved"]


async def test_nor_where_the_budget_is_in_a_store(tmp_path: Path, model: Path, engine: Engine) -> None:
    valkey = Valkey(tmp_path)
    valkey.start()
    try:
        store = {"url": f"unix://{valkey.path}", "timeout_seconds": 2}
        async with running(tmp_path, model, store=store) as (mesh, stub):
            check(engine, *await hundred(mesh, stub))
    finally:
        valkey.stop()


async def test_the_last_of_a_budget_ends_a_call_and_is_told(tmp_path: Path, model: Path) -> None:
    async with running(tmp_path, model) as (mesh, stub):
        outcomes: list[Outcome] = []
        while not outcomes or outcomes[-1].error is None:
            outcomes.append(await stream(mesh, stub, tokens=200))
        assert pb.FINISH_REASON_BUDGET in outcomes[-2].reasons
        left = [int(outcome.trailers["x-meshgate-remaining-tokens"]) for outcome in outcomes[:-1]]
        spent = [outcome.input + outcome.output for outcome in outcomes[:-1]]
        assert left == [BUDGET - sum(spent[: number + 1]) for number in range(len(spent))]
        assert int(outcomes[0].trailers["x-meshgate-remaining-requests"]) > 0
        error = outcomes[-1].error
        assert isinstance(error, errors.LimitExceeded)
        assert (error.retry_after or 0) > 60
