"""The base of a service's application: the order in which its parts start, change models and stop."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

import grpc
from prometheus_client.registry import Collector

from meshgate.runtime.metrics_server import Gauges, MetricsServer
from services.common.config_base import ServiceConfig
from services.models.config_watcher import ConfigWatcher
from services.models.model_table import ModelSlot

ServiceConfigT = TypeVar("ServiceConfigT", bound=ServiceConfig)
ServedT = TypeVar("ServedT")


class ServiceApp(ABC, Generic[ServiceConfigT, ServedT]):
    """A service that loads models, serves them, reloads them when its configuration file changes, and drains.

    It implements meshgate.rpc.server.Application. Needs a running event loop.
    """

    name: str
    """The name of the service."""

    def __init__(self, config: ServiceConfigT, watched: Path | None, *collectors: Collector) -> None:
        """Loads nothing yet. `watched` is the configuration file to watch for changes of the models; None watches
        none. `collectors` are metrics beside those of `self._gauges`.
        """
        self.failed = asyncio.Event()
        self._config = config
        self._slot: ModelSlot[ServedT] = ModelSlot()
        self._watcher = ConfigWatcher(watched, type(config), self.reload) if watched is not None else None
        self._gauges = Gauges()
        self._metrics_server = MetricsServer(config.metrics, self._gauges, *collectors)

    async def start(self) -> None:
        """Serves metrics, loads the models, warms them up and watches the configuration.

        Raises ConfigError when a model can't be loaded.
        """
        await self._metrics_server.start()
        await self._start_models()
        if self._watcher is not None:
            self._watcher.start()

    @abstractmethod
    async def reload(self, config: ServiceConfigT) -> None:
        """Serves the models of a configuration and no others. A model whose section is unchanged stays loaded. Other
        keys take effect at the next start.

        Raises ConfigError when a model can't be loaded; the models in service then stay.
        """

    @abstractmethod
    def register(self, server: grpc.aio.Server) -> Sequence[str]:
        """Adds the servicers and returns their full service names."""

    def cpu_seconds(self) -> float:
        """The CPU time in seconds that the service has used."""
        return time.process_time()

    async def stop(self, grace: float) -> None:
        """Lets calls in progress finish for at most `grace` seconds, then fails them."""
        if self._watcher is not None:
            await self._watcher.stop()
        await self._stop_models(grace)
        await self._metrics_server.stop()

    @abstractmethod
    async def _start_models(self) -> None:
        """Loads the models of the first configuration and fills the slot. Raises ConfigError."""

    @abstractmethod
    async def _stop_models(self, grace: float) -> None:
        """Drains the models for at most `grace` seconds, then ends them."""
