"""Errors at the client's border keep their kind, reason and details, whichever side they come from."""

from __future__ import annotations

import grpc
import pytest

from meshgate import errors
from meshgate.client.failure import CallFailed, aio_failure, as_aio_failure, as_call_failed, explain

ERRORS = [
    errors.Unauthenticated("no token", reason="TOKEN_UNAVAILABLE"),
    errors.InvalidArgument.of("model", "too long"),
    errors.LimitExceeded("limit", retry_after=2.0, subject="tenant", limit="tokens"),
    errors.Unavailable("full", reason="OVERLOADED", retry_after=1.5),
    errors.Internal("cut off", reason="SEAL_TRUNCATED"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.reason)
@pytest.mark.parametrize("shape", [CallFailed, aio_failure])
def test_explaining_undoes_shaping(error: errors.MeshError, shape: type[CallFailed]) -> None:
    found = explain(shape(error))
    assert (type(found), found.reason, found.message) == (type(error), error.reason, error.message)
    for name in ("violations", "retry_after", "limit"):
        assert getattr(found, name, None) == getattr(error, name, None)


def test_failures_are_what_callers_of_stubs_catch() -> None:
    with pytest.raises(grpc.RpcError), as_call_failed():
        raise ERRORS[0]
    with pytest.raises(grpc.aio.AioRpcError), as_aio_failure():
        raise ERRORS[0]


def test_too_large_a_message_is_no_limit_to_wait_for() -> None:
    none = grpc.aio.Metadata()
    error = grpc.aio.AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, none, none, "message larger than max", None)
    found = explain(error)
    assert (type(found), found.reason) == (errors.InvalidArgument, "MESSAGE_TOO_LARGE")


def test_an_error_that_says_nothing_is_internal() -> None:
    assert isinstance(explain(grpc.RpcError()), errors.Internal)
