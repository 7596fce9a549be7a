"""From the engine's thread to a call's coroutine: a stream is woken at every step, a whole answer once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from meshgate.errors import Unavailable
from services.generation.engine import Delta, Finish, FinishReason
from services.generation.outputs import Outputs

STEPS = [
    [Delta(0, "a", (1,)), Delta(1, "x", (1,))],
    [Delta(0, "b", (2,), Finish(FinishReason.STOP)), Delta(1, "y", (2,))],
    [Delta(1, finish=Finish(FinishReason.LENGTH))],
]


@pytest.mark.parametrize("whole", [False, True])
async def test_everything_arrives_in_order_and_is_counted(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = Outputs(2, whole=whole)
    loop, woken = asyncio.get_running_loop(), list[object]()
    wake = loop.call_soon_threadsafe

    def counted(put: Callable[[object], object], made: object) -> None:
        woken.append(made)
        wake(put, made)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    for step in STEPS:
        outputs.deltas(step)
    heard = [list(made) async for made in outputs]
    assert heard == ([[delta for step in STEPS for delta in step]] if whole else STEPS)
    assert len(woken) == len(heard)
    assert (outputs.ended, outputs.output_tokens) == (True, 4)


@pytest.mark.parametrize("whole", [False, True])
async def test_a_failure_is_heard_at_once(whole: bool) -> None:
    outputs = Outputs(2, whole=whole)
    outputs.deltas(STEPS[0])
    outputs.failed(Unavailable("gone"))
    with pytest.raises(Unavailable):
        [made async for made in outputs]
