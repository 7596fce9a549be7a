"""A step that never ends is noticed, nobody is let in any more, and the stop does not wait for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest
from torch import Tensor

from meshgate.errors import Unavailable
from services.generation.engine.engine_thread import EngineThread
from services.generation.engine.hang_watchdog import HangWatchdog
from services.generation.scheduler.scheduler import Scheduler
from services.generation.text.detokenise import TokenBytes
from tests.support.fixtures.generation import CountingModel, Heard, Letters, greedy


class Hanging(CountingModel):
    """Reads a prompt for as long as a test likes."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def prefill(self, row: int, tokens: Sequence[int], start: int) -> Tensor:
        self.begun.set()
        self.go_on.wait(20)
        return super().prefill(row, tokens, start)


def engine(model: CountingModel) -> EngineThread:
    scheduler = Scheduler(model, TokenBytes(Letters()), frozenset((0,)), 64)
    return EngineThread(scheduler, on_death=lambda: None)


async def test_a_step_that_hangs_ends_the_process_tells_who_is_in_and_lets_nobody_in() -> None:
    model, failed = Hanging(), asyncio.Event()
    made = engine(model)
    made.start()
    watchdog = HangWatchdog(lambda: [made], 0.05, failed.set)
    read, queued = Heard(), Heard()
    made.submit(greedy("a"), read)
    made.submit(greedy("b"), queued)
    async with asyncio.timeout(10):
        await failed.wait()
        for heard in (read, queued):
            assert heard.error is not None
            assert heard.error.reason == "MODEL_FAILED"
        with pytest.raises(Unavailable) as refused:
            made.submit(greedy("b"), Heard())
        assert refused.value.reason == "MODEL_FAILED"
        await made.stop(5)
    watchdog.stop()
    model.go_on.set()
    await asyncio.to_thread(made._thread.join, 10)
    assert not read.steps, "nothing after an error"


async def test_an_engine_without_work_or_with_short_steps_does_not_hang() -> None:
    model, failed = CountingModel(), asyncio.Event()
    made = engine(model)
    assert made.stepping() == 0.0
    made.start()
    watchdog = HangWatchdog(lambda: [made], 5.0, failed.set)
    heard = Heard()
    made.submit(greedy("a", 20), heard)
    async with asyncio.timeout(10):
        await made.stop(5)
    watchdog._check()
    watchdog.stop()
    assert not failed.is_set()
    assert made.stepping() == 0.0
    assert len(heard.tokens[0]) == 20
