"""The base of the embedding and the classification application: models run batches in a process of their own."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from pathlib import Path
from typing import Generic

from services import batching
from services.batching import Batcher, metrics
from services.batching.worker import ItemT, ResultT, Run
from services.batching.workers import CPU_WORKERS, default_workers
from services.common.app_base import ServedT, ServiceApp, ServiceConfigT
from services.common.config_base import EncoderEngineConfig
from services.model_process import Host, InprocessHost, SubprocessHost
from services.text.preparing import PreparationQueue


class EncoderApp(ServiceApp[ServiceConfigT, ServedT], Generic[ServiceConfigT, ServedT, ItemT, ResultT]):
    """A service with one batcher for all its models, and a host that runs them."""

    def __init__(
        self,
        config: ServiceConfigT,
        engine: EncoderEngineConfig,
        run: Run[ItemT, ResultT],
        watched: Path | None,
        host: Host | None,
    ) -> None:
        """`run` runs one batch. `host` runs the models; None runs them in this process. `watched` is the configuration
        file to watch; None watches none.
        """
        self._host = host or InprocessHost()
        super().__init__(config, watched, *self._host.collectors)
        self._engine = engine
        bounds = batching.Bounds(engine.batch_tokens, engine.queue_tokens, engine.queue_calls, engine.hang_seconds)
        self._batcher = Batcher[ItemT, ResultT](
            run, bounds, self.failed, classify=self._host.classify, sound=self._trial_input()
        )
        self._preparing = PreparationQueue(engine.queue_bytes)
        self._batching = False
        metrics.export(self._gauges, self._batcher)

    def cpu_seconds(self) -> float:
        """The CPU time in seconds that this process and the processes of its models have used."""
        return time.process_time() + self._host.cpu_seconds()

    @abstractmethod
    def _trial_input(self) -> ItemT:
        """An input that a sound model can run: the batcher tries it when many inputs fail."""

    def _start_host(self) -> None:
        """Starts the host. When it dies, the batcher fails every call."""
        loop = asyncio.get_running_loop()
        self._host.start(lambda: loop.call_soon_threadsafe(self._batcher.fail))

    def _start_batcher(self, threads: int) -> None:
        """Starts the batcher for models that use `threads` CPU threads; 0 on other devices."""
        self._batcher.start(self._engine.concurrent_batches or default_workers(threads))
        self._batching = True

    async def _stop_models(self, grace: float) -> None:
        end = time.monotonic() + grace
        if self._batching:
            await self._batcher.stop(grace)
        await self._stop_trainings(max(0.0, end - time.monotonic()))
        self._preparing.close()
        await asyncio.to_thread(self._host.stop)

    async def _stop_trainings(self, grace: float) -> None:
        """Drains what uses the models beside calls, for at most `grace` seconds: here, nothing."""


def subprocess_host(name: str, engine: EncoderEngineConfig) -> SubprocessHost:
    """The host that runs the models of a service in a process of their own."""
    return SubprocessHost(name, engine.threads, engine.concurrent_batches or CPU_WORKERS)
