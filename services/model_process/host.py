"""What a host is, to those who use it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from prometheus_client.registry import Collector

from services.batching.error_kinds import Fault


class HostError(Exception):
    """What went wrong where the model is. It is told in that process's log, and here no more than whose fault it is."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.name)
        self.fault = fault


class Loaded(NamedTuple):
    """What a loading function returns."""

    facts: Any
    """What there is to know of the model."""
    run: Callable[[Any], Any]
    """Runs a batch."""


class Hosted(Protocol):
    """A model that a host has loaded. It is freed with the last reference to this."""

    @property
    def facts(self) -> Any: ...

    def run(self, batch: Any) -> Any:
        """What the model makes of a batch. From any thread; several may run at a time. Raises HostError, or whatever
        the model raises; the host's `classify` knows both.
        """


class Host(Protocol):
    """Loads models and runs them."""

    def start(self, died: Callable[[], object]) -> None:
        """Once, on the main thread. `died` is called, on any thread, when no model can run any more."""

    def load(self, function: str, *args: Any) -> Hosted:
        """Calls a function that returns Loaded, by its name, `package.module:function`. Takes as long as loading takes,
        while loaded models run. Raises ConfigError where the function does, and HostError.
        """

    def classify(self, error: BaseException) -> Fault:
        """Whose fault an error of `run` is."""

    def cpu_seconds(self) -> float:
        """What a process that is not this one has used of all processors together."""

    @property
    def collectors(self) -> Sequence[Collector]:
        """What Prometheus is told of a process that is not this one."""

    def stop(self) -> None:
        """Ends what runs."""


def named(function: str) -> Callable[..., Loaded]:
    """The function of a name. Importing is left until here, because it takes seconds, and torch."""
    module, _, name = function.partition(":")
    found: Callable[..., Loaded] = getattr(import_module(module), name)
    return found
