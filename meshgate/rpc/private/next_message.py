"""The next message of a call, and if there is none, why: the caller has sent all, has left, or has sent too much.

grpc.aio's `read` returns the same for the three. gRPC's core tells them apart. The batch that receives fails where a
message is larger than gRPC takes; gRPC tells the caller so by itself. Initial metadata can be sent to a caller who is
there, but not to one who has left or whose deadline has passed.

This leans on names of grpcio that are not public, as unary_server.py does; tests/attack/calls/test_call_ends.py fails
where a new grpcio goes another way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar, copy_context
from typing import Any, Final

from grpc._cython import cygrpc

from meshgate import errors

_NO_FLAGS: Final = 0
_execute: Final[Any] = cygrpc.execute_batch
_Receive: Final[Any] = cygrpc.ReceiveMessageOperation
_state: ContextVar[Any] = ContextVar("state")
"""gRPC's own state of the call that a task serves."""


class CallerLeft(errors.Cancelled):
    """The caller has left, or its deadline has passed: nobody can be told anything."""

    def __init__(self) -> None:
        super().__init__("the caller left")


class MessageTooLarge(Exception):
    """The message is larger than gRPC receives. It has told the caller RESOURCE_EXHAUSTED."""


def serving(state: Any, work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
    """Runs `work` in a task that serves the call of `state`."""
    context = copy_context()
    context.run(_state.set, state)
    return loop.create_task(work, context=context)


async def first(context: Any) -> bytes | None:
    """The first message of the call that this task serves, before any reply; None where the caller has sent nothing.
    `context` is the call's. Raises TooLarge and Left.
    """
    received = await later()
    if received is None:
        await _check_there(context)
    return received


async def later() -> bytes | None:
    """The next message; None where the caller has sent all, or has left, which cancels the task. Raises TooLarge."""
    operation = _Receive(_NO_FLAGS)
    try:
        await _execute(_state.get(), (operation,), asyncio.get_running_loop())
    except cygrpc.ExecuteBatchError:
        raise MessageTooLarge from None
    found: bytes | None = operation.message()
    return found


async def _check_there(context: Any) -> None:
    """Sends initial metadata, which nobody may do while a reply is under way: that sends them as well."""
    try:
        await context.send_initial_metadata(())
    except cygrpc.ExecuteBatchError:
        raise CallerLeft from None
