"""The engine's thread: it wakes, drains, dies loudly, and never leaves anyone waiting."""

from __future__ import annotations

import threading

import pytest

from meshgate.errors import MeshError, Unavailable
from services.generation.engine.engine_thread import EngineThread
from services.generation.engine.interface import FinishReason
from tests.support.fixtures.generation import Bench, Heard, greedy

SECONDS = 20.0  # more than any step here takes; only a broken engine waits so long


class Awaited(Heard):
    """A listener that says when it has heard the last."""

    def __init__(self) -> None:
        super().__init__()
        self.first = threading.Event()
        self.over = threading.Event()

    def deltas(self, deltas: object) -> None:
        super().deltas(deltas)  # type: ignore[arg-type]
        self.first.set()
        if self.finish:
            self.over.set()

    def failed(self, error: MeshError) -> None:
        super().failed(error)
        self.over.set()


class Engine(EngineThread):
    """An engine over a counting model."""

    def __init__(self, bench: Bench) -> None:
        self.died = threading.Event()
        super().__init__(bench.scheduler, self.died.set, clock=bench.clock)

    def ask(self, prompt: str, most: int = 5) -> Awaited:
        heard = Awaited()
        self.submit(greedy(prompt, most), heard)
        return heard


async def test_jobs_from_many_threads_all_end() -> None:
    engine = Engine(Bench())
    engine.start()
    heard: list[Awaited] = []
    threads = [threading.Thread(target=lambda: heard.append(engine.ask("a"))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert all(one.over.wait(SECONDS) for one in heard)
    assert [one.text[0] for one in heard] == ["bcdef"] * 16
    await engine.stop(SECONDS)


async def test_a_step_that_fails_fails_everyone_and_says_so() -> None:
    bench = Bench(rows=1)
    engine = Engine(bench)
    bench.model.fault = RuntimeError("secret of the device")
    heard = [engine.ask("a"), engine.ask("b")]
    engine.start()
    assert all(one.over.wait(SECONDS) for one in heard)
    assert engine.died.wait(SECONDS)
    for one in heard:
        assert isinstance(one.error, Unavailable)
        assert one.error.reason == "MODEL_FAILED"
        assert "secret" not in str(one.error)
    with pytest.raises(Unavailable) as refused:
        engine.submit(greedy("c"), Heard())
    assert refused.value.reason == "MODEL_FAILED"
    await engine.stop(0)


async def test_stop_lets_what_runs_finish_and_refuses_the_new() -> None:
    engine = Engine(Bench())
    heard = engine.ask("a", 20)
    engine.start()
    await engine.stop(SECONDS)
    assert heard.finish[0].reason is FinishReason.LENGTH
    with pytest.raises(Unavailable) as refused:
        engine.ask("b")
    assert refused.value.reason == "DRAINING"


async def test_after_the_grace_what_runs_is_failed() -> None:
    bench = Bench(context=10**9)
    bench.model.stride = 0  # the same token for ever: it never ends by itself
    engine = Engine(bench)
    heard = engine.ask("a", 10**9)
    engine.start()
    assert heard.first.wait(SECONDS)
    await engine.stop(0)
    assert heard.error is not None
    assert heard.error.reason == "DRAINING"
    assert not engine.died.is_set()


async def test_an_engine_that_never_started_stops() -> None:
    await Engine(Bench()).stop(0)
