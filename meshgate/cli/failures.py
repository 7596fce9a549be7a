"""Errors as one line for a person: what happened, which field, the reason to look up and the request id."""

from __future__ import annotations

import sys

from meshgate.errors import InvalidArgument, LimitExceeded, MeshError, Unavailable
from meshgate.runtime.config import ConfigError


def explain(error: Exception) -> str:
    """The line for an error; a defect of ours is called one."""
    if isinstance(error, MeshError):
        return _line(error)
    grpc = sys.modules.get("grpc")
    if grpc is not None and isinstance(error, grpc.RpcError) and hasattr(error, "code"):
        from meshgate.runtime.status import from_rpc_error

        return _line(from_rpc_error(error))
    if isinstance(error, ConfigError | ValueError):
        return f"meshgate: {error}"
    if isinstance(error, OSError):
        return f"meshgate: {error.filename or ''}: {error.strerror or error}".replace(": :", ":")
    return f"meshgate: a defect of ours ({type(error).__name__}); MESHGATE_DEBUG=1 shows where"


def _line(error: MeshError) -> str:
    parts = [f"{error.reason}: {_message(error)}"]
    if isinstance(error, LimitExceeded | Unavailable) and error.retry_after:
        parts.append(f"retry after {error.retry_after:.3g} s")
    if error.request_id:
        parts.append(f"request {error.request_id}")
    return "meshgate: " + " · ".join(parts)


def _message(error: MeshError) -> str:
    if error.request_id is None and isinstance(error, Unavailable):
        return "the gateway can't be reached; is `make up` running?"
    if isinstance(error, InvalidArgument) and error.violations:
        return "; ".join(f"{each.field}: {each.description}" for each in error.violations)
    return error.message
