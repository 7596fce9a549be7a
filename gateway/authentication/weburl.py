"""The URLs at which something is fetched."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

_URL: Final = re.compile(r"[!-~]{1,2048}", re.ASCII)


def https(value: str) -> str:
    """An https URL as it is. Keys that anybody on the way could replace would make every check after them worthless.

    Raises ValueError for what is none, and TypeError for what is no text.
    """
    parts = urlsplit(value) if _URL.fullmatch(value) else None
    if parts is None or parts.scheme != "https" or not parts.hostname or parts.fragment or "@" in parts.netloc:
        raise ValueError("must be https://host[:port]/path, without user, password or fragment")
    _ = parts.port  # ValueError where it is none
    return value
