"""Errors cross the wire whole: kind, reason, request id, fields, and when to come back."""

from __future__ import annotations

import grpc
import pytest
from google.rpc import error_details_pb2
from hypothesis import example, given
from hypothesis import strategies as st

from meshgate import errors
from meshgate.rpc import status

EVERY_KIND = [
    errors.InvalidArgument.of("sampling.top_p", "above 0, at most 1"),
    errors.Unauthenticated("the token expired", reason="TOKEN_EXPIRED"),
    errors.PermissionDenied("no", reason="SCOPE_MISSING"),
    errors.NotFound("no such model", reason="MODEL_NOT_FOUND"),
    errors.LimitExceeded("too fast", retry_after=1.5, subject="tenant:acme", limit="requests_per_second"),
    errors.LimitExceeded("too many at once", reason="CONCURRENCY_LIMITED", limit="concurrent_calls"),
    errors.Unavailable("busy", reason="OVERLOADED", retry_after=0.25),
    errors.DeadlineExceeded("late"),
    errors.Cancelled("gone"),
    errors.Unimplemented("not here", reason="FEATURE_UNAVAILABLE"),
    errors.Internal("internal error"),
]


@pytest.mark.parametrize("error", EVERY_KIND, ids=lambda error: type(error).__name__)
def test_an_error_survives_the_wire(error: errors.MeshError) -> None:
    back = status.from_proto(status.to_proto(error, "request-1"))
    assert type(back) is type(error)
    assert (back.reason, back.message, back.request_id) == (error.reason, error.message, "request-1")
    for name in ("violations", "retry_after", "subject", "limit"):
        assert getattr(back, name, None) == getattr(error, name, None)


@pytest.mark.parametrize("error", EVERY_KIND, ids=lambda error: type(error).__name__)
def test_every_status_has_error_info_of_our_domain(error: errors.MeshError) -> None:
    first = status.to_proto(error, "request-1").details[0]
    info = error_details_pb2.ErrorInfo()
    assert first.Unpack(info)
    assert (info.domain, info.reason, info.metadata["request_id"]) == ("meshgate", error.reason, "request-1")


def retry_of(error: errors.MeshError) -> int | None:
    """The nanoseconds of a RetryInfo, if there is one."""
    info = error_details_pb2.RetryInfo()
    found = [detail for detail in status.to_proto(error, "r").details if detail.Unpack(info)]
    return info.retry_delay.ToNanoseconds() if found else None


@given(st.integers(0, 7 * 86_400_000))
@example(1001)
def test_a_retry_is_never_told_too_early(milliseconds: int) -> None:
    told = retry_of(errors.LimitExceeded("too fast", retry_after=milliseconds / 1000))
    assert told in (milliseconds * 10**6, milliseconds * 10**6 + 1)
    overload = status.trailing_metadata(errors.Unavailable("busy", retry_after=milliseconds / 1000), "r")
    assert int(dict(overload)["grpc-retry-pushback-ms"]) in (milliseconds, milliseconds + 1)


def test_where_no_time_is_true_none_is_told() -> None:
    assert retry_of(errors.LimitExceeded("too many at once")) is None


def test_only_overload_asks_grpc_to_retry() -> None:
    overload, quota = (
        errors.Unavailable("busy", retry_after=0.25),
        errors.LimitExceeded("too fast", retry_after=0.25),
    )
    assert ("grpc-retry-pushback-ms", "250") in status.trailing_metadata(overload, "r")
    assert [key for key, _ in status.trailing_metadata(quota, "r")] == ["grpc-status-details-bin"]


class Failure:
    """A failed call as grpc reports it."""

    def __init__(self, code: grpc.StatusCode, *trailers: tuple[str, str | bytes]) -> None:
        self._code = code
        self._trailers = trailers

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "text of grpc's own"

    def trailing_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self._trailers


def test_a_status_of_grpc_itself_keeps_its_code_as_the_reason() -> None:
    error = status.from_rpc_error(Failure(grpc.StatusCode.UNAVAILABLE))
    assert isinstance(error, errors.Unavailable)
    assert (error.reason, error.retry_after, error.request_id) == ("UNAVAILABLE", None, None)


def test_details_that_are_not_ours_do_no_harm() -> None:
    failure = Failure(grpc.StatusCode.NOT_FOUND, ("grpc-status-details-bin", b"\xff\xff\xff"))
    assert isinstance(status.from_rpc_error(failure), errors.NotFound)
