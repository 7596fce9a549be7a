"""MeshError to gRPC status and back: the one place that knows both.

Every error is a google.rpc.Status whose details are, in this order: ErrorInfo always, then BadRequest, RetryInfo and
QuotaFailure where they apply (AIP-193). A server that asks for a retry also says so in `grpc-retry-pushback-ms`, which
gRPC's own retries obey (gRFC A6).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final, Protocol

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from meshgate import errors

DETAILS_KEY: Final = "grpc-status-details-bin"
PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"
REQUEST_ID_FIELD: Final = "request_id"
TOO_LARGE: Final = "MESSAGE_TOO_LARGE"

_CODES: Final[dict[type[errors.MeshError], int]] = {
    errors.InvalidArgument: code_pb2.INVALID_ARGUMENT,
    errors.Unauthenticated: code_pb2.UNAUTHENTICATED,
    errors.PermissionDenied: code_pb2.PERMISSION_DENIED,
    errors.NotFound: code_pb2.NOT_FOUND,
    errors.LimitExceeded: code_pb2.RESOURCE_EXHAUSTED,
    errors.Unavailable: code_pb2.UNAVAILABLE,
    errors.DeadlineExceeded: code_pb2.DEADLINE_EXCEEDED,
    errors.Cancelled: code_pb2.CANCELLED,
    errors.Unimplemented: code_pb2.UNIMPLEMENTED,
    errors.Internal: code_pb2.INTERNAL,
}
_GRPC_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class RpcFailure(Protocol):
    """The part that sync and asyncio call errors have in common."""

    def code(self) -> grpc.StatusCode: ...
    def details(self) -> str | None: ...
    def trailing_metadata(self) -> Iterable[Any] | None: ...


def grpc_code(error: errors.MeshError) -> grpc.StatusCode:
    """The status code of an error's kind."""
    return _GRPC_CODES[_CODES.get(type(error), code_pb2.INTERNAL)]


def to_proto(error: errors.MeshError, request_id: str) -> status_pb2.Status:
    """The status of `error`, with every detail a caller may see."""
    info = error_details_pb2.ErrorInfo(
        reason=error.reason, domain=errors.DOMAIN, metadata={REQUEST_ID_FIELD: error.request_id or request_id}
    )
    status = status_pb2.Status(code=_CODES.get(type(error), code_pb2.INTERNAL), message=error.message)
    for detail in (info, *_extra_details(error)):
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status


def _extra_details(error: errors.MeshError) -> list[Message]:
    details: list[Message] = []
    if isinstance(error, errors.InvalidArgument) and error.violations:
        details.append(_bad_request(error))
    if isinstance(error, errors.LimitExceeded | errors.Unavailable) and error.retry_after is not None:
        details.append(_retry_info(error.retry_after))
    if isinstance(error, errors.LimitExceeded):
        violation = error_details_pb2.QuotaFailure.Violation(subject=error.subject, description=error.limit)
        details.append(error_details_pb2.QuotaFailure(violations=[violation]))
    return details


def _bad_request(error: errors.InvalidArgument) -> error_details_pb2.BadRequest:
    fields = [
        error_details_pb2.BadRequest.FieldViolation(field=item.field, description=item.description)
        for item in error.violations
    ]
    return error_details_pb2.BadRequest(field_violations=fields)


def _retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromNanoseconds(max(0, math.ceil(seconds * 1e9)))  # a retry just before the time would fail
    return info


def details_of(error: errors.MeshError, request_id: str) -> tuple[tuple[str, str | bytes], ...]:
    """The trailer that carries `error`'s details."""
    return ((DETAILS_KEY, to_proto(error, request_id).SerializeToString()),)


def trailing_metadata(error: errors.MeshError, request_id: str) -> tuple[tuple[str, str | bytes], ...]:
    """The trailers of `error`: its details, and for gRPC's own retries how long they should wait."""
    details = details_of(error, request_id)
    if isinstance(error, errors.Unavailable) and error.retry_after is not None:
        return (*details, (PUSHBACK_KEY, str(max(0, math.ceil(error.retry_after * 1000)))))
    return details


def has_details(error: RpcFailure) -> bool:
    """Whether a failed call was ended by Meshgate itself, with details, and not by gRPC."""
    return any(key == DETAILS_KEY for key, _ in error.trailing_metadata() or ())


def from_rpc_error(error: RpcFailure) -> errors.MeshError:
    """The kind of error a failed call stands for. A status without our details keeps its code as the reason."""
    code = error.code()
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return from_proto(status_pb2.Status.FromString(value))
            except DecodeError:
                break
    return _build(code.value[0], error.details() or "", {})


def from_proto(status: status_pb2.Status) -> errors.MeshError:
    """The error that `to_proto` made a status of. Raises DecodeError for details that don't parse."""
    return _build(status.code, status.message, _unpack(status))


def _unpack(status: status_pb2.Status) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for packed in status.details:
        for kind in (
            error_details_pb2.ErrorInfo,
            error_details_pb2.BadRequest,
            error_details_pb2.RetryInfo,
            error_details_pb2.QuotaFailure,
        ):
            if packed.Is(kind.DESCRIPTOR):
                found[kind.DESCRIPTOR.name] = kind.FromString(packed.value)
    return found


def _build(code: int, message: str, details: dict[str, Any]) -> errors.MeshError:
    if code == code_pb2.RESOURCE_EXHAUSTED and not details:  # gRPC's own, of a message above its limit
        return errors.InvalidArgument("the message is too large", reason=TOO_LARGE)
    kind = next((kind for kind, value in _CODES.items() if value == code), errors.Internal)
    info = details.get("ErrorInfo")
    common: dict[str, Any] = {
        "reason": info.reason if info else _GRPC_CODES[code].name if code in _GRPC_CODES else None,
        "request_id": info.metadata.get(REQUEST_ID_FIELD) if info else None,
    }
    retry = details.get("RetryInfo")
    retry_after = retry.retry_delay.ToNanoseconds() / 1e9 if retry else None
    if kind is errors.InvalidArgument:
        return errors.InvalidArgument(message, violations=_violations(details.get("BadRequest")), **common)
    if kind is errors.LimitExceeded:
        quota = next(iter(details["QuotaFailure"].violations), None) if "QuotaFailure" in details else None
        subject, limit = (quota.subject, quota.description) if quota else ("", "")
        return errors.LimitExceeded(message, retry_after=retry_after, subject=subject, limit=limit, **common)
    if kind is errors.Unavailable:
        return errors.Unavailable(message, retry_after=retry_after, **common)
    return kind(message, **common)


def _violations(bad: error_details_pb2.BadRequest | None) -> tuple[errors.FieldViolation, ...]:
    return tuple(errors.FieldViolation(item.field, item.description) for item in bad.field_violations) if bad else ()
