"""The other side of SubprocessHost: takes messages, and keeps what was loaded."""

from __future__ import annotations

import itertools
import logging
import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from meshgate.runtime.config import ConfigError
from services.common import error_kinds
from services.model_process.host import named
from services.model_process.messages import Done, Drop, Failed, Load, Refused, Run

_log = logging.getLogger(__name__)


class WorkerLoop:
    """Serves until its connections close."""

    def __init__(self, loads: Connection[Any, Any], runs: Sequence[Connection[Any, Any]]) -> None:
        self._loads = loads
        self._runs = runs
        self._numbers = itertools.count()
        self._models: dict[int, Callable[[Any], Any]] = {}

    def serve(self) -> None:
        """Returns when nobody is there any more."""
        _start("loads", self._loads, self._loaded)
        for connection in self._runs[1:]:
            _start("runs", connection, self._ran)
        _answer(self._runs[0], self._ran)

    def _ran(self, message: Run) -> Any:
        return self._models[message.number](message.batch)

    def _loaded(self, message: Load | Drop) -> Any:
        if isinstance(message, Drop):
            del self._models[message.number]
            return None
        return _apart(partial(self._load, message))

    def _load(self, message: Load) -> tuple[int, Any]:
        loaded, number = named(message.function)(*message.args), next(self._numbers)
        self._models[number] = loaded.run
        return number, loaded.facts


def _apart(load: Callable[[], Any]) -> Any:
    """What it returns, on a thread that ends with it: see services.models.reloader.differences."""
    with ThreadPoolExecutor(1, "loading") as threads:
        return threads.submit(load).result()


def _start(name: str, connection: Connection[Any, Any], ask: Callable[[Any], Any]) -> None:
    threading.Thread(target=_answer, args=(connection, ask), name=name, daemon=True).start()


def _answer(connection: Connection[Any, Any], ask: Callable[[Any], Any]) -> None:
    try:
        while True:
            connection.send_bytes(_reply(ask, connection.recv_bytes()))
    except (EOFError, OSError):
        return


def _reply(ask: Callable[[Any], Any], message: bytes) -> bytes:
    """Both pickled. What can't be is as wrong as what fails."""
    try:
        return pickle.dumps(Done(ask(pickle.loads(message))))  # noqa: S301 - from who started this process
    except ConfigError as error:
        return pickle.dumps(Refused(str(error)))
    except BaseException as error:  # whatever it is, who waits is told
        _log.error("a model failed", extra={"error": type(error).__name__}, exc_info=error)
        return pickle.dumps(Failed(error_kinds.classify(error)))
