"""Waits that take too long end, by one timer; those that don't and those that are cancelled are left alone."""

from __future__ import annotations

import asyncio

import pytest

from gateway.edge.idle_timeout import IdleTimeouts

SHORT = 0.02
LONG = 30.0


async def test_a_wait_that_takes_too_long_ends() -> None:
    patience = IdleTimeouts(SHORT)
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with pytest.raises(TimeoutError):
        await patience.wait(never)
    assert never.cancelled()
    assert (patience.ended, len(patience)) == (1, 0)
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()  # the task itself goes on


async def test_a_wait_in_time_gives_what_was_awaited() -> None:
    patience = IdleTimeouts(LONG)
    assert await patience.wait(asyncio.sleep(0, "read")) == "read"
    assert (patience.ended, len(patience)) == (0, 0)
    patience.stop()


async def test_an_error_passes() -> None:
    async def fail() -> None:
        raise ConnectionError

    patience = IdleTimeouts(LONG)
    with pytest.raises(ConnectionError):
        await patience.wait(fail())
    assert len(patience) == 0
    patience.stop()


async def test_a_cancelled_task_stays_cancelled() -> None:
    patience = IdleTimeouts(LONG)
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(patience.wait(never))
    await asyncio.sleep(0)  # the task begins
    assert len(patience) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (patience.ended, len(patience)) == (0, 0)
    patience.stop()


async def test_a_task_that_is_cancelled_as_its_time_is_up_stays_cancelled() -> None:
    patience = IdleTimeouts(0.0)  # whoever waits when it looks is late
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(patience.wait(loop.create_future()))
    await asyncio.sleep(0)
    patience._looked(loop)
    assert patience.ended == 1
    task.cancel()  # after ours, before the task has heard of it
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_many_wait_and_only_the_late_ones_end() -> None:
    patience = IdleTimeouts(SHORT)
    loop = asyncio.get_running_loop()
    stuck: list[asyncio.Future[None]] = [loop.create_future() for _ in range(20)]
    tasks = [asyncio.create_task(patience.wait(future)) for future in stuck]
    quick = await asyncio.gather(*(patience.wait(asyncio.sleep(0, number)) for number in range(20)))
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert quick == list(range(20))
    assert all(isinstance(error, TimeoutError) for error in ended)
    assert patience.ended == 20


async def test_no_timer_is_left_when_nobody_waits() -> None:
    patience = IdleTimeouts(LONG)
    loop = asyncio.get_running_loop()
    for _ in range(2):  # and it begins again
        await patience.wait(asyncio.sleep(0))
        assert timers(patience) == 1
        patience._looked(loop)
        assert timers(patience) == 0
    await patience.wait(asyncio.sleep(0))
    patience.stop()
    assert timers(patience) == 0


def timers(patience: IdleTimeouts) -> int:
    return int(patience._look is not None)
