"""The names of grpcio that are not public and that Meshgate uses: the list that the canary test checks one by one."""

from __future__ import annotations

from typing import Final

from grpc._cython import cygrpc

USED: Final = (
    "grpc._cython.cygrpc.AbortError",
    "grpc._cython.cygrpc.AioServer",
    "grpc._cython.cygrpc.AioServer._request_call",
    "grpc._cython.cygrpc.AioServer._request_registered_call",
    "grpc._cython.cygrpc.AioServer.add_registered_method_handlers",
    "grpc._cython.cygrpc.ExecuteBatchError",
    "grpc._cython.cygrpc.ReceiveCloseOnServerOperation",
    "grpc._cython.cygrpc.ReceiveMessageOperation",
    "grpc._cython.cygrpc.SendInitialMetadataOperation",
    "grpc._cython.cygrpc.SendMessageOperation",
    "grpc._cython.cygrpc.SendStatusFromServerOperation",
    "grpc._cython.cygrpc._MethodResolver",
    "grpc._cython.cygrpc._ServicerContext",
    "grpc._cython.cygrpc._handle_rpc",
    "grpc._cython.cygrpc._schedule_rpc_coro",
    "grpc._cython.cygrpc.execute_batch",
    "grpc._cython.cygrpc.get_working_loop",
    "grpc._cython.cygrpc.socket",
    "grpc.aio._server.Server",
)
"""Dotted names. The canary looks for `_channel` of a channel and `_cython_call` of a call on live objects."""

CALL_ENDED: Final = (cygrpc.ExecuteBatchError,)
"""What grpc.aio raises from writing to a call that has ended."""
