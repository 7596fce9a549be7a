"""Unary calls served without grpc.aio's layers, for who serves very many of them and has bytes on both ends.

grpc.aio runs each call in two tasks and seven coroutines, so that handlers may be synchronous, generators, intercepted
or given deserialisers. A gateway's are none of that. Here a call is one task, and what listens for the caller's leaving
is no task at all: docs/adr/0104 has the figures.

Nor does anything listen while a call is young. To listen is a batch of its own to gRPC, and its end an event of its
own: a wake of the poller, a byte to the loop and a turn of it, for each call, to hear in nearly all that it has ended
as we ended it. So the calls that have been here for a while are listened to, and the end of all others is heard with
their last batch. Who leaves before is noticed by then; its limits and its place are held as long as its work goes on.

This leans on names of grpcio that are not public (what its own handlers are made of);
tests/integration/rpc/test_fast_unary_server.py fails where a new grpcio goes another way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc
from grpc._cython import cygrpc

from meshgate.rpc.private import next_message

_log = logging.getLogger(__name__)

_NO_FLAGS: Final = 0
_OK: Final = grpc.StatusCode.OK.value[0]
LOOK_SECONDS: Final = 0.05
"""How often it is looked for calls that are no longer young."""

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


class Call:
    """One call, from its arrival until its status has left."""

    __slots__ = ("_heard", "_loop", "state", "task")

    def __init__(self, state: Any, loop: asyncio.AbstractEventLoop) -> None:
        self.state = state
        self._loop = loop
        self._heard = False
        self.task: asyncio.Task[None]

    def listen(self) -> None:
        """Cancels the task when the caller leaves. gRPC wants to be asked for a call's end, and once."""
        if not self._heard:
            self._heard = True
            _listen(self.state, self.task, self._loop)

    def last(self, reply: bytes, trailers: Any) -> tuple[Any, ...]:
        """The call's last batch, which ends it."""
        sent = (_Initial(None, _NO_FLAGS), _Message(reply, _NO_FLAGS), _Status(trailers, _OK, "", _NO_FLAGS))
        if self._heard:
            return sent
        self._heard = True
        return (*sent, _Closed(_NO_FLAGS))


class FastUnaryServer:
    """The calls of one server."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._young: set[Call] = set()
        self._older: set[Call] = set()
        self._look: asyncio.TimerHandle | None = None

    def serve(self, state: Any, handler: Serve) -> asyncio.Task[None]:
        """Runs the call of `state`, in a task that is cancelled when the caller leaves: at once where the call has been
        here for 2 * LOOK_SECONDS, else by then.
        """
        call = Call(state, self._loop)
        call.task = next_message.serving(state, self._serve(call, handler), self._loop)
        self._young.add(call)
        if self._look is None:
            self._look = self._loop.call_later(LOOK_SECONDS, self._looked)
        return call.task

    async def _serve(self, call: Call, handler: Serve) -> None:
        context = _Context(call.state, None, None, self._loop)
        try:
            reply = await handler(None, context)
            await _execute(call.state, call.last(reply, context.trailing_metadata()), self._loop)
        except _LEFT:
            return
        except Exception:  # the border: handlers have one of their own, so this is a bug, and its text stays here
            _log.exception("a handler failed")
            await _give_up(context)
        finally:
            self._young.discard(call)
            self._older.discard(call)
            call.listen()  # where it was not answered: gRPC keeps a call until somebody has heard its end

    def _looked(self) -> None:
        for call in self._older:
            call.listen()
        self._older, self._young = self._young, set()
        self._look = self._loop.call_later(LOOK_SECONDS, self._looked) if self._older else None


async def _give_up(context: Any) -> None:
    try:
        await context.abort(grpc.StatusCode.INTERNAL, "internal error")
    except _LEFT:
        return


def _listen(state: Any, task: asyncio.Task[None], loop: asyncio.AbstractEventLoop) -> None:
    """Cancels `task` when the caller leaves. A coroutine that waits once needs no task: its future calls back."""
    operation = _Closed(_NO_FLAGS)
    waiting = _execute(state, (operation,), loop)
    try:
        closed = waiting.send(None)
    except cygrpc.ExecuteBatchError:  # there is no such call any more
        task.cancel()
        return
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
