"""What a worker says and hears: an order on a line of its input, what it did on a line of its output. Standard library
alone, for workers run in the environments of peers.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.services.prompts import taken


@dataclass
class Order:
    """What to do for how long."""

    items: list[str]
    callers: int
    """How many are to be in work together."""
    seconds: float
    tokens: int
    """Of each answer."""


@dataclass
class Done:
    """What was done."""

    messages: int = 0
    """Tokens, or texts embedded."""
    latencies: list[float] = field(default_factory=list)
    """Seconds of each answer."""
    elapsed: float = 0.0
    """Seconds."""


def serve(name: str, work: Callable[[Order], Done]) -> None:
    """Does what is ordered until the input ends. What libraries print goes to the log."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _say(replies, {"ready": name})
    for line in sys.stdin:
        order = Order(**json.loads(line))
        began = time.perf_counter()
        done = work(order)
        done.elapsed = time.perf_counter() - began
        _say(replies, asdict(done))


class Turns:
    """Who asks what next: as callers of a server would, each asks again once it has its answer, until time is up."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._until = time.perf_counter() + order.seconds
        self._turns = [0] * order.callers

    def next(self, caller: int) -> str | None:
        """What a caller asks now; None once time is up."""
        if time.perf_counter() >= self._until:
            return None
        turn, self._turns[caller] = self._turns[caller], self._turns[caller] + 1
        return taken(self._order.items, caller, self._order.callers, turn)


def _say(replies: Any, said: dict[str, Any]) -> None:
    replies.write(json.dumps(said) + "\n")
    replies.flush()
