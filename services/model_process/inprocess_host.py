"""Models in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from prometheus_client.registry import Collector

from services.batching.error_kinds import Fault
from services.model_process.host import Loaded, named


class InprocessHost:
    """Implements Host, for tests and tools: what runs shares the interpreter with whoever asked."""

    def start(self, died: Callable[[], object]) -> None:
        """Nothing is to be started, and nothing dies alone."""

    def load(self, function: str, *args: Any) -> Loaded:
        """See Host."""
        return named(function)(*args)

    def classify(self, error: BaseException) -> Fault:
        """See Host."""
        fault: Fault = import_module("services.common.error_kinds").classify(error)
        return fault

    def cpu_seconds(self) -> float:
        """Nothing that is not this process's."""
        return 0.0

    @property
    def collectors(self) -> Sequence[Collector]:
        """Nothing that is not told of this process."""
        return ()

    def stop(self) -> None:
        """Nothing runs by itself."""
