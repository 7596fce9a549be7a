"""The few errors that cross the wire, as plain Python. No grpc here: runtime/status.py maps them to and from statuses.

A stage raises the kind that tells the caller what to do next; `reason` is a stable UPPER_SNAKE word a program can test,
`message` a sentence for a person. Neither may hold a path, a key, a token, a peer address or another exception's text.
"""

from __future__ import annotations

from dataclasses import dataclass

DOMAIN = "meshgate"
"""The `domain` of every google.rpc.ErrorInfo Meshgate makes."""


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field that is out of range: `field` is its path (`sampling.top_p`), `description` the range."""

    field: str
    description: str


class MeshError(Exception):
    """The base of all errors a caller may see. Catch it; raise one of its kinds."""

    default_reason = "INTERNAL"

    def __init__(self, message: str, *, reason: str | None = None, request_id: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.request_id = request_id


class InvalidArgument(MeshError):
    """The request can't be right as it is: don't retry. `violations` names each field."""

    default_reason = "INVALID_ARGUMENT"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        violations: tuple[FieldViolation, ...] = (),
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, reason=reason, request_id=request_id)
        self.violations = violations

    @classmethod
    def of(cls, field: str, description: str, *, reason: str | None = None) -> InvalidArgument:
        """The usual case: one field is wrong."""
        return cls(f"{field}: {description}", reason=reason, violations=(FieldViolation(field, description),))


class Unauthenticated(MeshError):
    """The caller is not authenticated: it needs a new token."""

    default_reason = "UNAUTHENTICATED"


class PermissionDenied(MeshError):
    """The caller is authenticated and may not do this."""

    default_reason = "PERMISSION_DENIED"


class NotFound(MeshError):
    """The named object does not exist, or the caller may not know that it does."""

    default_reason = "NOT_FOUND"


class LimitExceeded(MeshError):
    """A limit of the caller is spent. `subject` and `limit` name it.

    `retry_after`: a retry so many seconds later succeeds, unless others come first; None: the time is unknown.
    """

    default_reason = "RATE_LIMITED"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        subject: str = "",
        limit: str = "",
        reason: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, reason=reason, request_id=request_id)
        self.retry_after = retry_after
        self.subject = subject
        self.limit = limit


class Unavailable(MeshError):
    """Not now, and not the caller's doing (OVERLOADED, DRAINING, MODEL_FAILED, ...): retry after `retry_after` s."""

    default_reason = "UNAVAILABLE"

    def __init__(
        self,
        message: str,
        *,
        retry_after: float | None = None,
        reason: str | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message, reason=reason, request_id=request_id)
        self.retry_after = retry_after


class DeadlineExceeded(MeshError):
    """The caller's deadline passed."""

    default_reason = "DEADLINE_EXCEEDED"


class Cancelled(MeshError):
    """The caller left."""

    default_reason = "CANCELLED"


class Unimplemented(MeshError):
    """The method or feature exists in the contract and not in this deployment."""

    default_reason = "UNIMPLEMENTED"


class Internal(MeshError):
    """Our fault. The cause is in the log under the request id, never in the message."""

    default_reason = "INTERNAL"
