"""A gRPC server whose door can't be broken by the name of a method.

grpcio's asyncio server (1.85 and before) decodes the path of each unregistered call as UTF-8, in the loop that accepts
calls. HTTP/2 allows other bytes in a path, and a caller needs no token to send one. Such a path ends that loop, and
with it the server and all its calls. So every method is registered here, and gRPC's core matches paths itself, as
bytes. Calls of any other method are taken out before that loop sees them, and are answered without a name.

This depends on names of grpcio that are not public: how `AioServer` asks for a call, and how a call is run. Tests send
the path itself, and tests/attack fails if a new grpcio does otherwise.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import grpc
from grpc._cython import cygrpc
from grpc.aio import _server

from meshgate.rpc.channel import Options
from meshgate.rpc.private import fast_unary_server, next_message

NAMELESS: Final = ""
"""The method name of a call that is of no registered method."""

Around = Callable[[str, Any], Any]
"""Maps a method and its handler to the handler that replaces it."""

_AioServer: Any = cygrpc.AioServer
_Server: Any = _server.Server


class _Details(NamedTuple):
    """The argument of a generic handler."""

    method: str
    invocation_metadata: Any = None


class _Shielded(_AioServer):  # type: ignore[misc] # has no stubs
    """Accepts calls by itself, each method in a task of its own: the loop that would do it waits for ever.

    That is also cheaper than the loop, which makes a task for each call it waits for and looks at all methods anew.
    """

    def __init__(self, loop: Any, unknown: Sequence[Any], around: Around, options: Any) -> None:
        super().__init__(loop, None, [], (), options, None)
        self._calls_loop = loop
        self._calls: set[asyncio.Task[None]] = set()
        self._around = around
        self._methods: dict[str, Any] = {}
        self._unaries = fast_unary_server.FastUnaryServer(loop)
        self._unknown = cygrpc._MethodResolver(list(unknown), {})

    def add_registered_method_handlers(self, method_handlers: dict[str, Any]) -> None:
        wrapped = {name: self._around(name, handler) for name, handler in method_handlers.items()}
        super().add_registered_method_handlers(wrapped)
        self._methods.update(wrapped)

    async def _request_registered_call(self, method: bytes) -> None:
        """The awaitable of the loop for the next call of `method`. It never ends."""
        name = method.decode()
        handler = self._methods[name]
        if _reads_itself(handler):
            await self._accept_unary(method, handler.stream_unary)
        known = cygrpc._MethodResolver([], self._methods)
        while True:
            self._run(await super()._request_registered_call(method), name, known)

    async def _accept_unary(self, method: bytes, handler: fast_unary_server.Serve) -> None:
        """The same of a method that reads its one request by itself."""
        while True:
            state = await super()._request_registered_call(method)
            self._keep(self._unaries.serve(state, handler))

    async def _request_call(self) -> None:
        """The same for the next call of any other method, whose name is not read."""
        while True:
            self._run(await super()._request_call(), NAMELESS, self._unknown)

    def _run(self, state: Any, name: str, resolver: Any) -> None:
        """As grpcio does: the task that waits for a cancellation exists before the call runs."""
        loop = self._calls_loop
        call = cygrpc._handle_rpc(name, resolver, (), state, loop, False)
        self._keep(next_message.serving(state, cygrpc._schedule_rpc_coro(call, state, loop, name), loop))

    def _keep(self, task: asyncio.Task[None]) -> None:
        """The loop itself holds tasks weakly."""
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)


class _ShieldedServer(_Server):  # type: ignore[misc] # likewise
    """grpc.aio's own server around it."""

    def __init__(self, unknown: Sequence[Any], around: Around, options: Options) -> None:
        self._loop = cygrpc.get_working_loop()
        self._server = _Shielded(self._loop, unknown, around, tuple(options))


def _as_it_is(_: str, handler: Any) -> Any:
    return handler


def server(
    options: Options, *, around: Around = _as_it_is, unknown: grpc.GenericRpcHandler | None = None
) -> grpc.aio.Server:
    """As grpc.aio.server, for methods that are registered, as generated code does. Generic handlers are not asked.

    `around` maps each method and its handler to the handler to register.
    `unknown` answers all other methods, under the name NAMELESS. Without it they are UNIMPLEMENTED.
    """
    made: grpc.aio.Server = _ShieldedServer(() if unknown is None else (unknown,), around, options)
    return made


def _reads_itself(handler: Any) -> bool:
    """Whether a handler reads its requests by itself and has one reply, both as bytes: what unary_server can serve."""
    plain = handler.request_deserializer is None and handler.response_serializer is None
    return plain and handler.request_streaming and not handler.response_streaming


def register(server: grpc.aio.Server, handler: grpc.GenericRpcHandler, paths: Iterable[str]) -> None:
    """Registers `handler` for the methods at `paths` (`/package.Service/Method`)."""
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for path in paths:
        service, _, method = path.removeprefix("/").partition("/")
        found[service][method] = handler.service(_Details(path))  # type: ignore[arg-type] # a protocol in all but name
    registering: Any = server  # the stubs lack it
    for service, handlers in found.items():
        registering.add_registered_method_handlers(service, handlers)
