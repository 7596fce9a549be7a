"""Times as a person writes them on a command line."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_DURATION: Final = re.compile(r"(\d{1,9})([smhd]?)", re.ASCII)
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST: Final = 366 * 86_400


def seconds(text: str) -> int:
    """A duration in seconds: `90`, `90s`, `15m`, `1h`, `7d`. Raises ValueError outside 1 second to 366 days."""
    found = _DURATION.fullmatch(text.strip())
    value = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 1 <= value <= _LONGEST:
        raise ValueError(f"{text!r} is not a duration of 1 second to 366 days such as 90s, 15m, 1h or 7d")
    return value


def moment(text: str, now: float) -> int:
    """A time in microseconds since the Unix epoch: ISO 8601, in UTC unless it says otherwise, or so long before `now`.

    Raises ValueError.
    """
    if _DURATION.fullmatch(text.strip()):
        return int((now - seconds(text)) * 1_000_000)
    try:
        parsed = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ValueError(f"{text!r} is neither a time such as 2030-01-31T12:00 nor a duration such as 15m") from None
    aware = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    return int(aware.timestamp() * 1_000_000)
