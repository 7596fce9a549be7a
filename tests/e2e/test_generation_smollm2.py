"""The generation service with its default model: answers, streams and figures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from meshgate.v1 import generation_pb2 as pb
from services.generation.app import App, build
from services.generation.config import GenerationConfig
from services.generation.serving.servicer import GenerationServicer


class Context:
    """A call without metadata and without a deadline."""

    def invocation_metadata(self) -> Any:
        return ()

    def time_remaining(self) -> float | None:
        return None

    def set_trailing_metadata(self, trailers: Any) -> None:
        return None


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service() -> AsyncIterator[GenerationServicer]:
    tls = {"certificate": "none.pem", "key": "none.pem", "ca": "none.pem"}
    app: App = build(GenerationConfig.model_validate({"server": {"tls": tls}}))
    await app.start()
    yield GenerationServicer(app._slot)
    await app.stop(0)


def context() -> Any:
    return Context()


def question(text: str) -> dict[str, Any]:
    return {"conversation": {"messages": [{"role": pb.ROLE_USER, "content": text}]}}


@pytest.mark.timeout(300)
@pytest.mark.asyncio(loop_scope="module")
async def test_it_knows_a_capital(service: GenerationServicer) -> None:
    request = pb.GenerateRequest(**question("What is the capital of France?"), sampling=pb.Sampling(temperature=0))
    (candidate,) = (await service.Generate(request, context())).candidates
    assert "Paris" in candidate.text
    assert candidate.finish.reason == pb.FINISH_REASON_STOP


@pytest.mark.timeout(300)
@pytest.mark.asyncio(loop_scope="module")
async def test_five_candidates_of_a_chinese_prompt_differ(service: GenerationServicer) -> None:
    request = pb.GenerateRequest(prompt="我喜欢编程。", candidate_count=5, max_output_tokens=20)
    reply = await service.Generate(request, context())
    assert len({tuple(candidate.token_ids) for candidate in reply.candidates}) == 5
    assert all(1 <= len(candidate.token_ids) <= 20 for candidate in reply.candidates)
    assert reply.usage.output_tokens == sum(len(candidate.token_ids) for candidate in reply.candidates)
