"""A loop that hangs ends its process; one that is busy, idle or was stopped for a while does not."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

from meshgate.runtime.watchdog import HUNG, Watchdog

PATIENCE = 60.0


class Turns(threading.Event):
    """Has a watchdog look when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self._looks = threading.Semaphore(0)
        self._waits = threading.Semaphore(0)

    def wait(self, timeout: float | None = None) -> bool:
        self._waits.release()
        self._looks.acquire()
        return self.is_set()

    def set(self) -> None:
        super().set()
        self._looks.release()

    async def look(self) -> None:
        """Returns when it has looked."""
        self._looks.release()
        assert await asyncio.to_thread(self._waits.acquire, timeout=PATIENCE)

    async def begun(self) -> None:
        """Returns when it waits for its first look."""
        assert await asyncio.to_thread(self._waits.acquire, timeout=PATIENCE)


async def test_a_hanging_loop_is_told_with_where_it_hangs() -> None:
    released = threading.Event()
    said: list[str] = []

    def end(where: str) -> None:
        said.append(where)
        released.set()

    watchdog = Watchdog(0.5, end)
    watchdog.start()
    assert released.wait(PATIENCE), "the loop hung, and nobody said so"
    watchdog.stop()
    assert said == ["threading.wait"]


async def test_a_loop_that_turns_is_left_alone() -> None:
    said: list[str] = []
    watchdog = Watchdog(0.05, said.append)
    watchdog._stopped = turns = Turns()
    watchdog.start()
    await turns.begun()
    async with asyncio.timeout(PATIENCE):
        for _ in range(3):
            while not watchdog._beaten:  # noqa: ASYNC110 - it is the loop's turning that is waited for
                await asyncio.sleep(0.001)
            await turns.look()
    watchdog.stop()
    assert said == []
    assert not watchdog._thread.is_alive()


def test_a_process_is_ended_with_a_status_of_its_own_and_one_line() -> None:
    program = """
import asyncio, threading
from meshgate.runtime.watchdog import Watchdog
async def main():
    Watchdog(0.05).start()
    threading.Event().wait()
asyncio.run(main())
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert ended.returncode == HUNG
    assert "the event loop hangs" in ended.stderr
    assert "Traceback" not in ended.stderr
