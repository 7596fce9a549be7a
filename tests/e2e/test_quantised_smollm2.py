"""SmolLM2 in eight bits: it still answers, and what it lost is measured and printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from meshgate.cli.commands import embed
from meshgate.v1 import generation_pb2 as pb
from services.generation.app import build
from services.generation.config import GenerationConfig
from services.generation.serving.servicer import GenerationServicer
from tests.support.fixtures.servicer_context import FakeContext


@pytest.mark.timeout(300)
async def test_it_answers_and_says_what_eight_bits_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHGATE_HOME", str(tmp_path))
    tls = {"certificate": "none.pem", "key": "none.pem", "ca": "none.pem"}
    settings = {"server": {"tls": tls}, "model": {"quantisation": "int8", "device": "cpu"}}
    app = build(GenerationConfig.model_validate(settings))
    await app.start()
    try:
        message = pb.Message(role=pb.ROLE_USER, content="What is the capital of France?")
        asked = pb.Conversation(messages=[message])
        request = pb.GenerateRequest(conversation=asked, sampling=pb.Sampling(temperature=0))
        context: Any = FakeContext()
        (candidate,) = (await GenerationServicer(app._slot).Generate(request, context)).candidates
        assert "Paris" in candidate.text
        [card] = app._slot.get().cards
        print(f"quality of int8: {card.quality:.4f}")
        assert 0.9 < card.quality < 1
        assert f"{card.quality:.4f}" in [str(cell) for cell in embed._described(card)]
    finally:
        await app.stop(0)
