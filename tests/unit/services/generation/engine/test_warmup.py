"""The first call of a model: on the engine's thread, of as many rows as one tenant may have, and over before others."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from meshgate.runtime.config import ConfigError
from services.generation.app import build
from services.generation.config import GenerationConfig
from services.generation.engine.warmup import run_first_call
from services.generation.model import causal_model, self_check
from tests.support.fixtures.generation import Bench
from tests.tinymodels.llama import VOCABULARY, build_tiny_llama
from tests.unit.services.generation.engine.test_engine_thread import SECONDS, Engine


async def test_a_model_that_is_served_has_stepped_on_its_own_thread(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    stepped: list[tuple[str, int]] = []
    decode = causal_model.CausalModel.decode

    def watched(self: causal_model.CausalModel, tokens: Sequence[int], lengths: Sequence[int]) -> Tensor:
        stepped.append((threading.current_thread().name, len(tokens)))
        return decode(self, tokens, lengths)

    monkeypatch.setattr(causal_model.CausalModel, "decode", watched)
    tls = {"certificate": "none.pem", "key": "none.pem", "ca": "none.pem"}
    source = {"source": str(build_tiny_llama(tmp_path_factory.mktemp("tiny"))), "name": "tiny"}
    settings = {"server": {"tls": tls}, "model": source, "engine": {"max_batch": 4, "threads": 1}}
    app = build(GenerationConfig.model_validate(settings))
    await app.start()
    await app.stop(0)
    assert ("generation", 3) in stepped, "all rows but the guests'"


@pytest.mark.parametrize("fault", [None, ValueError("unreadable")])
async def test_it_is_over_when_its_last_candidate_is_or_when_it_fails(fault: Exception | None) -> None:
    bench = Bench(rows=3)
    bench.model.read_fault = fault
    engine = Engine(bench)
    engine.start()
    failed = run_first_call(engine, 3, SECONDS)
    assert (failed is None) == (fault is None)
    assert bench.scheduler.idle()
    assert len(bench.model.batches) == (0 if fault else 2)
    await engine.stop(SECONDS)


async def test_a_model_whose_first_call_fails_is_not_served(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> Tensor:
        if threading.current_thread().name == "generation":
            raise ValueError("unreadable")
        return torch.zeros(VOCABULARY)

    monkeypatch.setattr(causal_model.CausalModel, "prefill", broken)
    monkeypatch.setattr(self_check, "check", lambda *_: None)
    tls = {"certificate": "none.pem", "key": "none.pem", "ca": "none.pem"}
    source = {"source": str(build_tiny_llama(tmp_path_factory.mktemp("tiny"))), "name": "tiny"}
    settings = {"server": {"tls": tls}, "model": source, "engine": {"max_batch": 4, "threads": 1}}
    app = build(GenerationConfig.model_validate(settings))
    with pytest.raises(ConfigError, match=r"^model\.source: .*first call"):
        await app.start()
    await app.stop(0)


async def test_one_that_never_ends_is_not_waited_for_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    run_first_call(Engine(Bench()), 3, 0.01)  # which was never started
    assert "did not end" in caplog.text
