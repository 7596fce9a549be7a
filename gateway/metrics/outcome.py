"""How a call ended, in two words: for the audit and for the metrics, so that they can't disagree."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from meshgate import errors
from meshgate.rpc import status


class Outcome(NamedTuple):
    """The name of a gRPC code, and the reason where it is not OK."""

    code: str
    reason: str


OK = Outcome("OK", "")
CANCELLED = Outcome("CANCELLED", "CANCELLED")
INTERNAL = Outcome("INTERNAL", "INTERNAL")
DEADLINE_EXCEEDED = Outcome("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED")

DRAINING = Outcome("UNAVAILABLE", "DRAINING")


def of(error: BaseException) -> Outcome:
    """The outcome of a call that `error` ended. An error that is not a MeshError has no details."""
    if isinstance(error, errors.Cancelled):
        return CANCELLED
    if isinstance(error, errors.MeshError):
        return Outcome(status.grpc_code(error).name, error.reason)
    if isinstance(error, TimeoutError):
        return DEADLINE_EXCEEDED
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return CANCELLED
    return INTERNAL
