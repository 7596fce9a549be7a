"""Which models to load for a configuration, and which to keep: by comparing it with what is loaded.

Nothing is unloaded here. A table of models replaces another, and a model without a table and without a call is freed.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Generic, ParamSpec, TypeVar

from services.models.config import SourceConfig

_log = logging.getLogger(__name__)

SettingsT = TypeVar("SettingsT", bound=SourceConfig)
LoadedT = TypeVar("LoadedT")
P = ParamSpec("P")

Load = Callable[[SettingsT, str], LoadedT]
"""Loads and warms up a model, on a thread of its own; the text is its section, for errors. Raises ConfigError."""


async def differences(load: Callable[P, LoadedT], *args: P.args, **kwargs: P.kwargs) -> LoadedT:
    """The result of `load`, run on a thread that ends with it.

    OpenMP keeps threads for each thread that ever multiplied. If these are more than the cores, asleep or not, it lets
    working threads sleep sooner (services/cpu/openmp.py).
    """
    threads = ThreadPoolExecutor(1, "loading")
    try:
        return await asyncio.get_running_loop().run_in_executor(threads, partial(load, *args, **kwargs))
    finally:
        threads.shutdown(wait=False)


class Reloader(Generic[SettingsT, LoadedT]):
    """The loaded models, by the section that each was loaded for."""

    def __init__(self, load: Load[SettingsT, LoadedT]) -> None:
        self._load = load
        self._loaded: Mapping[tuple[str, str], LoadedT] = {}

    async def load(self, wanted: Mapping[str, SettingsT]) -> list[LoadedT]:
        """Models for sections of a configuration, in their order. One whose section says what it said before is kept;
        the others are loaded one after the other, beside those that serve.

        Raises ConfigError for the first that can't be loaded; then nothing has changed.
        """
        made: dict[tuple[str, str], LoadedT] = {}
        for key, settings in wanted.items():
            mark = (key.partition(".")[0], settings.model_dump_json())
            kept = self._loaded.get(mark)
            made[mark] = kept if kept is not None else await self._fresh(settings, key)
        self._loaded = made
        return list(made.values())

    async def _fresh(self, settings: SettingsT, key: str) -> LoadedT:
        _log.info("loading a model", extra={"model": settings.name})
        began = time.monotonic()
        loaded = await differences(self._load, settings, key)
        _log.info("model ready", extra={"model": settings.name, "seconds": round(time.monotonic() - began, 2)})
        return loaded
