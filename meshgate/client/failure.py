"""Errors at the client's border: a failed call as a MeshError, and the SDK's own failures as failed calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import grpc

from meshgate import errors
from meshgate.client import unreachable
from meshgate.rpc import status


def explain(error: grpc.RpcError, target: str = "") -> errors.MeshError:
    """What a failed call means: one of the kinds in meshgate.errors, with reason, request id, fields and retry time.

    A message larger than the channel takes, which gRPC calls RESOURCE_EXHAUSTED, is an InvalidArgument
    (MESSAGE_TOO_LARGE): no waiting makes it smaller. Where the channel's `target` is given, what
    gRPC itself said of a gateway that it could not reach becomes a sentence with a remedy.
    """
    if not hasattr(error, "code"):
        return errors.Internal("the call failed")
    failure = cast(status.RpcFailure, error)
    if failure.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and not status.has_details(failure):
        return errors.InvalidArgument("the message is too large", reason="MESSAGE_TOO_LARGE")
    found = status.from_rpc_error(failure)
    if target and isinstance(found, errors.Unavailable) and not found.request_id:
        return errors.Unavailable(unreachable.sentence(found.message, target), reason=found.reason)
    return found


class CallFailed(grpc.RpcError):
    """A call that failed in the SDK itself, in the shape of one that failed at the gateway."""

    def __init__(self, error: errors.MeshError) -> None:
        super().__init__(error.message)
        self._error = error

    def code(self) -> grpc.StatusCode:
        """The status code of its kind."""
        return status.grpc_code(self._error)

    def details(self) -> str:
        """The sentence."""
        return self._error.message

    def initial_metadata(self) -> tuple[Any, ...]:
        """Nothing was received."""
        return ()

    def trailing_metadata(self) -> Any:
        """The details, as the gateway would have sent them."""
        return _trailers(self._error)


def aio_failure(error: errors.MeshError) -> grpc.aio.AioRpcError:
    """The same for asyncio channels."""
    trailers = grpc.aio.Metadata(*_trailers(error))
    return grpc.aio.AioRpcError(
        status.grpc_code(error), cast(Any, grpc.aio.Metadata()), cast(Any, trailers), error.message, None
    )


def _trailers(error: errors.MeshError) -> tuple[tuple[str, str | bytes], ...]:
    """Without the pushback: there is no server to say it."""
    return status.details_of(error, "")


@contextmanager
def as_call_failed() -> Iterator[None]:
    """Gives the SDK's own errors the shape that callers of a blocking stub expect."""
    try:
        yield
    except errors.MeshError as error:
        raise CallFailed(error) from error


@contextmanager
def as_aio_failure() -> Iterator[None]:
    """The same for asyncio stubs."""
    try:
        yield
    except errors.MeshError as error:
        raise aio_failure(error) from error
