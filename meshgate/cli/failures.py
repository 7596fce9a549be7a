"""Errors as one line for a person: what happened, which field, the reason to look up and the request id."""

from __future__ import annotations

import sys
from typing import Any, Final

from meshgate.errors import DeadlineExceeded, InvalidArgument, LimitExceeded, MeshError, Unavailable

FAILED: Final = 1
USAGE: Final = 2
UNAVAILABLE: Final = 69
"""EX_UNAVAILABLE of sysexits.h: worth another attempt later."""


class UsageError(Exception):
    """The command can't be right as it was given."""


def explain(error: Exception, connection: Any = None) -> tuple[str, int]:
    """The line for an error and the exit status. A defect of ours is called one. `connection` is the Connection that
    was used, if any.
    """
    if (failed := meaning(error)) is not None:
        status = UNAVAILABLE if isinstance(failed, Unavailable) else FAILED
        return f"meshgate: {_line(failed, connection)}", status
    match error:
        case UsageError():
            return f"meshgate: {error}", USAGE
        case UnicodeEncodeError() if not error.encoding.startswith("utf"):
            return f"meshgate: the encoding {error.encoding} can't show the text; PYTHONUTF8=1 makes it UTF-8", USAGE
        case UnicodeError():
            return "meshgate: the text is not valid UTF-8", USAGE
        case OSError():
            named = f"{error.filename}: " if error.filename else ""
            return f"meshgate: {named}{error.strerror or 'input or output failed'}", FAILED
    if _is_config_error(error):
        return f"meshgate: {error}", FAILED
    return f"meshgate: a defect of ours ({type(error).__name__}); MESHGATE_DEBUG=1 shows where", FAILED


def reason(error: Exception) -> str | None:
    """The reason of a call that failed; None of any other error."""
    failed = meaning(error)
    return None if failed is None else failed.reason


def meaning(error: Exception) -> MeshError | None:
    """What a call that failed means, whichever its shape; None of any other error. grpc is asked only where the command
    has imported it.
    """
    if isinstance(error, MeshError):
        return error
    grpc = sys.modules.get("grpc")
    if grpc is None or not isinstance(error, grpc.RpcError):
        return None
    from meshgate.client import explain as explained

    return explained(error)


def _is_config_error(error: Exception) -> bool:
    config = sys.modules.get("meshgate.runtime.config")  # slow to import, and then nobody has raised it
    return config is not None and isinstance(error, config.ConfigError)


def _line(error: MeshError, connection: Any) -> str:
    parts = [f"{error.reason}: {_message(error, connection)}"]
    if isinstance(error, LimitExceeded | Unavailable) and error.retry_after:
        parts.append(f"retry after {error.retry_after:.3g} s")
    if error.request_id:
        parts.append(f"request {error.request_id}")
    return " ".join(" · ".join(parts).split())


def _message(error: MeshError, connection: Any) -> str:
    if isinstance(error, InvalidArgument) and error.violations:
        return "; ".join(f"{each.field}: {each.description}" for each in error.violations)
    if isinstance(error, Unavailable) and not error.request_id:
        return _unreachable(error.message, connection)
    if isinstance(error, DeadlineExceeded) and not error.request_id and connection is not None:
        return f"{connection.target} did not answer within {connection.deadline:g} s; --deadline allows more"
    return error.message


def _unreachable(said: str, connection: Any) -> str:
    from meshgate.client import unreachable  # slow to import, and grpc's errors have imported it

    return unreachable.sentence(said, connection.target if connection else "the gateway")
