"""From the engine's thread to a call's coroutine: a stream is woken at every step, a whole answer once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from meshgate.errors import Unavailable
from services.generation.engine.interface import Delta, Finish, FinishReason
from services.generation.engine.output_stream import OutputStream

STEPS = [
    [Delta(0, "a", (1,)), Delta(1, "x", (1,))],
    [Delta(0, "b", (2,), Finish(FinishReason.STOP)), Delta(1, "y", (2,))],
    [Delta(1, finish=Finish(FinishReason.LENGTH))],
]


@pytest.mark.parametrize("whole", [False, True])
async def test_everything_arrives_in_order_and_is_counted(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = OutputStream(2, whole=whole)
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
    outputs = OutputStream(2, whole=whole)
    outputs.deltas(STEPS[0])
    outputs.failed(Unavailable("gone"))
    with pytest.raises(Unavailable):
        [made async for made in outputs]


@pytest.mark.parametrize("whole", [False, True])
async def test_what_was_made_leaves_in_time_though_a_step_goes_on(whole: bool) -> None:
    """The engine has made two tokens of one candidate, has ended another, and does not come back from its step."""
    loop = asyncio.get_running_loop()
    outputs = OutputStream(3, whole=whole, until=loop.time() + 0.05)
    outputs.deltas([Delta(0, "a", (1,)), Delta(1, "x", (1,), Finish(FinishReason.STOP))])
    outputs.deltas([Delta(0, "b", (2,))])
    async with asyncio.timeout(20):
        heard = [delta async for made in outputs for delta in made]
    outputs.close()
    text = {which: "".join(delta.text for delta in heard if delta.candidate == which) for which in range(3)}
    assert text == {0: "ab", 1: "x", 2: ""}
    ends = {delta.candidate: delta.finish.reason for delta in heard if delta.finish is not None}
    assert ends == {0: FinishReason.CANCELLED, 1: FinishReason.STOP, 2: FinishReason.CANCELLED}
    assert outputs.output_tokens == 3


async def test_a_call_that_ends_before_leaves_no_timer() -> None:
    loop = asyncio.get_running_loop()
    outputs = OutputStream(1, until=loop.time() + 0.01)
    outputs.close()
    await asyncio.sleep(0.05)
    outputs.deltas([Delta(0, "a", (1,), Finish(FinishReason.STOP))])
    assert [delta.text async for made in outputs for delta in made] == ["a"]
