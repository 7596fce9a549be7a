"""Process logs: one JSON object a line on standard error, so that a collector reads them without rules.

Never pass a prompt, a token or a key to a logger. The audit log, not this one, says who asked what. Of an exception
only its kind and where it came from are written, never its text, which is as likely as not made of content.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from traceback import walk_tb
from typing import Any, Final

from meshgate.runtime.logs import stderr_capture

_CAUSES: Final = 8
_A_SECOND: Final = 50
"""Records of one line of code."""
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Formats a record and whatever `extra=` it carries."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update({key: value for key, value in vars(record).items() if key not in _STANDARD})
        if record.exc_info:
            entry["exception"] = _described(record.exc_info[1])
        return json.dumps(entry, default=str).replace("\x7f", "\\u007f")  # JSON need not escape it, a terminal obeys it


def _described(error: BaseException | None) -> list[dict[str, Any]]:
    """An exception and its causes, the last first: their types, and where they passed, from raiser to catcher."""
    found: list[dict[str, Any]] = []
    while error is not None and len(found) < _CAUSES:
        frames = [
            (frame.f_globals.get("__name__", "?"), frame.f_code.co_name, line)
            for frame, line in walk_tb(error.__traceback__)
        ]
        found.append(
            {
                "type": f"{type(error).__module__}.{type(error).__qualname__}",
                "at": [f"{module}.{function}:{line}" for module, function, line in reversed(frames)],
            }
        )
        error = error.__cause__ or error.__context__
    return found


class Bounded(logging.Filter):
    """So many records of one line of code in a second; the others are counted.

    Callers can cause log records, which must not fill a disk. `left_out` is logged in a record of its own before the
    first record that passes in a later second.
    """

    def __init__(self, tell: Callable[[logging.LogRecord], None], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._tell = tell
        self._clock = clock
        self._second = 0
        self._passed: Counter[tuple[str, int]] = Counter()
        self._lock = threading.RLock()

    def filter(self, record: logging.LogRecord) -> bool:
        with self._lock:
            if self._second != int(self._clock()):
                self.flush()
                self._second = int(self._clock())
            place = (record.name, record.lineno)
            self._passed[place] += 1
            return self._passed[place] <= _A_SECOND

    def flush(self) -> None:
        """Tells what was left out so far."""
        passed, self._passed = self._passed, Counter()
        for (name, line), count in passed.items():
            if count > _A_SECOND:
                self._tell(_left_out(name, line, count - _A_SECOND))


def _left_out(name: str, line: int, count: int) -> logging.LogRecord:
    members = {"name": name, "msg": "records were left out", "levelname": "WARNING", "levelno": logging.WARNING}
    return logging.makeLogRecord({**members, "line": line, "left_out": count})


def configure(service: str, level: str = "INFO") -> None:
    """Sends all logging of this process to standard error as JSON. Call once, at start."""
    stream = os.fdopen(
        stderr_capture.real(), "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter(service))
    bounded = Bounded(handler.emit)
    handler.addFilter(bounded)
    atexit.register(bounded.flush)
    logging.basicConfig(level=level, handlers=[handler], force=True)


def hook() -> None:
    """Logs uncaught exceptions as any other: their kind and position, and not their text."""
    sys.excepthook = lambda kind, error, trace: _uncaught("uncaught", error)
    threading.excepthook = lambda args: _uncaught("a thread failed", args.exc_value)
    sys.unraisablehook = lambda args: _uncaught("an error that can't be raised", args.exc_value)


def _uncaught(what: str, error: BaseException | None) -> None:
    if error is not None and not isinstance(error, (KeyboardInterrupt, SystemExit)):
        logging.getLogger(__name__).error(what, exc_info=error)
