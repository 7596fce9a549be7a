"""Unary calls served without grpc.aio's layers, for who serves very many of them and has bytes on both ends.

grpc.aio runs each call in two tasks and seven coroutines, so that handlers may be synchronous, generators, intercepted
or given deserialisers. A gateway's are none of that. Here a call is one task, and what listens for the caller's leaving
is no task at all: bench/RESULTS.md has what that saves.

This leans on names of grpcio that are not public (what its own handlers are made of);
tests/integration/test_unary_server.py fails where a new grpcio goes another way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
from grpc._cython import cygrpc

_log = logging.getLogger(__name__)

_NO_FLAGS: Final = 0
_OK: Final = grpc.StatusCode.OK.value[0]

Serve = Callable[[Any, Any], Awaitable[bytes]]
"""Answers one call, given nothing, for it reads for itself, and grpc.aio's servicer context. It ends a call that it
refuses by the context's `abort`."""

_execute: Final[Any] = cygrpc.execute_batch
_Context: Final[Any] = cygrpc._ServicerContext
_Closed: Final[Any] = cygrpc.ReceiveCloseOnServerOperation
_Initial: Final[Any] = cygrpc.SendInitialMetadataOperation
_Message: Final[Any] = cygrpc.SendMessageOperation
_Status: Final[Any] = cygrpc.SendStatusFromServerOperation
_LEFT: Final = (cygrpc.AbortError, cygrpc.ExecuteBatchError, asyncio.CancelledError)
"""The status has been sent, or nobody is there to get one."""


def serve(state: Any, handler: Serve, loop: asyncio.AbstractEventLoop) -> asyncio.Task[None]:
    """Runs the call of `state`, in a task that is cancelled when the caller leaves."""
    task = loop.create_task(_serve(state, handler, loop))
    _watch(state, task, loop)
    return task


async def _serve(state: Any, handler: Serve, loop: asyncio.AbstractEventLoop) -> None:
    context = _Context(state, None, None, loop)
    try:
        reply = await handler(None, context)
        trailers = context.trailing_metadata()
        last = (_Initial(None, _NO_FLAGS), _Message(reply, _NO_FLAGS), _Status(trailers, _OK, "", _NO_FLAGS))
        await _execute(state, last, loop)
    except _LEFT:
        return
    except Exception:  # the border: handlers have one of their own, so this is a bug, and its text stays here
        _log.exception("a handler failed")
        await _give_up(context)


async def _give_up(context: Any) -> None:
    try:
        await context.abort(grpc.StatusCode.INTERNAL, "internal error")
    except _LEFT:
        return


def _watch(state: Any, task: asyncio.Task[None], loop: asyncio.AbstractEventLoop) -> None:
    """Cancels `task` when the caller leaves. A coroutine that waits once needs no task: its future calls back."""
    operation = _Closed(_NO_FLAGS)
    waiting = _execute(state, (operation,), loop)
    closed = waiting.send(None)
    closed._asyncio_future_blocking = False  # as a task does with what it is given to wait for

    def ended(_: asyncio.Future[None]) -> None:
        try:
            waiting.send(None)
        except StopIteration:
            if operation.cancelled():
                task.cancel()
        except cygrpc.ExecuteBatchError:
            task.cancel()

    closed.add_done_callback(ended)
