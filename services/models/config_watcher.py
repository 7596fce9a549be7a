"""A configuration that is read again when its file changes, so that models change while the others serve.

The file is watched, and there is neither a signal nor a call for it. A mounted ConfigMap changes by itself, and nothing
can send a signal into a pod for it. The supervisor ends at SIGHUP. A call that loads the model that it names would be
one more thing to guard. Only a user who may write the configuration may change the models.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Generic

from meshgate.runtime import config
from meshgate.runtime.config import ConfigError, ConfigT
from meshgate.runtime.files import file_stamp
from meshgate.runtime.files.file_stamp import FileStamp

_log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 2.0


class ConfigWatcher(Generic[ConfigT]):
    """Looks at a file every `seconds`, and hands over what is new in it."""

    def __init__(
        self,
        path: Path,
        kind: type[ConfigT],
        take: Callable[[ConfigT], Awaitable[None]],
        seconds: float = LOOK_SECONDS,
    ) -> None:
        """`take` raises ConfigError for what can't be done; then what was stays, and the log says why."""
        self._path = path
        self._kind = kind
        self._take = take
        self._seconds = seconds
        self._seen = self._look()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Ends, with a change that is not done. A model that loads meanwhile is dropped when it is loaded."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def look(self) -> None:
        """Takes over what is new in the file, if anything is. A file that is no good is read again once it changes."""
        found = self._look()
        if found is None or found == self._seen:
            return
        self._seen = found
        try:
            await self._take(await asyncio.to_thread(config.load, self._path, self._kind))
        except ConfigError as error:
            for line in config.located(error, self._path):
                _log.error("the configuration was not taken over: %s", line)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            try:
                await self.look()
            except Exception:  # the border of the task: what serves goes on
                _log.exception("the configuration could not be taken over")

    def _look(self) -> FileStamp | None:
        try:
            return file_stamp.of(self._path)
        except OSError:
            return None  # being replaced
