"""The rotation of a keyring: a key is deleted when its time is over, even if no caller lists keys."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Final

from meshgate.runtime.refresher import Refresher
from meshgate.sealing.keyring import Keyring

_LEAST_SECONDS: Final = 300.0
_MOST_SECONDS: Final = 900.0
"""A key outlives its time on disk by no more than this."""


def refresher(keyring: Keyring, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> Refresher:
    """Renews a keyring every five to fifteen minutes.

    The interval is random, so that processes that share the directory rarely renew at the same moment. Where they do,
    each may make a key: every process publishes and opens all of them.
    """
    return Refresher("sealing keys", keyring.tend, _interval, sleep=sleep)


def _interval() -> float:
    return random.uniform(_LEAST_SECONDS, _MOST_SECONDS)  # noqa: S311 - no secret
