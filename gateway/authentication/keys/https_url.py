"""The URLs from which the gateway fetches keys."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

_URL: Final = re.compile(r"[!-~]{1,2048}", re.ASCII)


def https(value: str) -> str:
    """An https URL, unchanged. Over plain http an attacker on the way could replace the keys.

    Raises ValueError for a text that is no such URL, and TypeError for another type.
    """
    if _URL.fullmatch(value) is None or not _is_https(value):
        raise ValueError("must be https://host[:port]/path, without user, password or fragment")
    return value


def _is_https(value: str) -> bool:
    try:
        parts = urlsplit(value)
        _ = parts.port  # ValueError where it is none
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname) and not parts.fragment and "@" not in parts.netloc
