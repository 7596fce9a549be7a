"""Process logs: one JSON object a line on standard error, so that a collector reads them without rules.

Never pass a prompt, a token or a key to a logger. The audit log, not this one, says who asked what. Of an exception
only its kind and where it came from are written, never its text, which is as likely as not made of content.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from traceback import walk_tb
from typing import Any, Final

_CAUSES: Final = 8
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


def configure(service: str, level: str = "INFO") -> None:
    """Sends all logging of this process to standard error as JSON. Call once, at start."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=level, handlers=[handler], force=True)
