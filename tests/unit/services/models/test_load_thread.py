"""A model is loaded on a thread that ends with it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from meshgate.runtime.config import ConfigError
from services.models.reloader import differences


async def test_the_thread_ends_with_what_it_loads() -> None:
    used: list[threading.Thread] = []

    def load(text: str, *, times: int) -> str:
        used.append(threading.current_thread())
        return text * times

    assert await differences(load, "a", times=3) == "aaa"
    await asyncio.to_thread(used[0].join, 10)
    assert not used[0].is_alive()
    assert used[0] is not threading.current_thread()


async def test_what_it_raises_is_raised() -> None:
    def load() -> None:
        raise ConfigError("model.source: no")

    with pytest.raises(ConfigError, match="no"):
        await differences(load)


async def test_who_is_cancelled_does_not_wait_for_it() -> None:
    began, go_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def load() -> None:
        loop.call_soon_threadsafe(began.set)
        go_on.wait(30)

    task = asyncio.create_task(differences(load))
    await began.wait()
    task.cancel()
    try:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 5)
    finally:
        go_on.set()
