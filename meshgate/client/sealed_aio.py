"""An asyncio channel whose calls of models are sealed. Stubs use it as any other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

import grpc

from meshgate.client.sealing import KEY_UNKNOWN, KEYS_TIMEOUT, Sealer, opened, seals
from meshgate.runtime import channel, status
from meshgate.sealing import PublicKey, SenderSession
from meshgate.v1 import sealed_pb2, sealed_pb2_grpc

Serialise = Callable[[Any], bytes]
Deserialise = Callable[[bytes], Any]


class SealedAioChannel(grpc.aio.Channel):
    """Seals what goes to models over `plain`; everything else passes."""

    def __init__(self, plain: Any, sealer: Sealer) -> None:
        self._plain = plain
        self._calls = _Calls(plain, sealer)

    def unary_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        if not seals(method):
            return self._plain.unary_unary(method, request_serializer, response_deserializer)
        return lambda request, **options: _Unary(
            self._call(method, request_serializer, response_deserializer), request, options
        )

    def unary_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        if not seals(method):
            return self._plain.unary_stream(method, request_serializer, response_deserializer)
        call = self._call(method, request_serializer, response_deserializer)
        return lambda request, **options: _Stream(call, options, request)

    def stream_unary(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        return self._plain.stream_unary(method, request_serializer, response_deserializer)

    def stream_stream(
        self, method: str, request_serializer: Any = None, response_deserializer: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        if not seals(method):
            return self._plain.stream_stream(method, request_serializer, response_deserializer)
        call = self._call(method, request_serializer, response_deserializer)
        return lambda request_iterator=None, **options: _Bidirectional(call, options, request_iterator)

    def _call(self, method: str, serialise: Serialise, deserialise: Deserialise) -> _Method:
        return _Method(self._calls, method, serialise, deserialise)

    async def close(self, grace: float | None = None) -> None:
        await self._plain.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        state: grpc.ChannelConnectivity = self._plain.get_state(try_to_connect)
        return state

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        await self._plain.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        await self._plain.channel_ready()

    async def __aenter__(self) -> SealedAioChannel:
        return self

    async def __aexit__(self, exc_type: Any, exc_val: Any, exc_tb: Any) -> bool | None:
        await self.close()
        return None


class _Calls:
    """The sealed service on a channel, and the key to seal to."""

    def __init__(self, plain: Any, sealer: Sealer) -> None:
        self.sealer = sealer
        self.stub: Any = sealed_pb2_grpc.SealedServiceStub(plain)
        self._keys: Any = sealed_pb2_grpc.KeyServiceStub(plain)

    async def key(self) -> PublicKey:
        known = self.sealer.key()
        if known is not None:
            return known
        request = sealed_pb2.ListSealingKeysRequest()
        return self.sealer.take(await self._keys.ListSealingKeys(request, timeout=KEYS_TIMEOUT))

    def unknown(self, error: grpc.aio.AioRpcError) -> bool:
        """Whether a call failed because its key is gone; the next one then asks for keys."""
        gone = status.from_rpc_error(error).reason == KEY_UNKNOWN
        if gone:
            self.sealer.forget()
        return gone


class _Method:
    """One method of a stub."""

    def __init__(self, calls: _Calls, name: str, serialise: Serialise, deserialise: Deserialise) -> None:
        self.calls = calls
        self.name = name
        self.serialise = serialise
        self.deserialise = deserialise

    async def seal(self, request: Any) -> tuple[sealed_pb2.Envelope, SenderSession]:
        key = await self.calls.key()
        return self.calls.sealer.seal(key, self.name, request, self.serialise(request))


class _Unary:
    """A unary call: awaited for its response."""

    def __init__(self, method: _Method, request: Any, options: dict[str, Any]) -> None:
        self._method = method
        self._request = request
        self._options = options
        self._inner: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run())

    def __await__(self) -> Generator[Any, None, Any]:
        return self._task.__await__()

    def cancel(self) -> bool:
        """Ends the call. False when it had ended."""
        return self._task.cancel()

    def done(self) -> bool:
        """Whether it has ended."""
        return self._task.done()

    def __getattr__(self, name: str) -> Any:
        """`code`, `details`, `trailing_metadata` and the like, as coroutines of the call beneath."""

        async def delegate(*args: Any) -> Any:
            await asyncio.gather(self._task, return_exceptions=True)
            return await getattr(await self._inner, name)(*args)

        return delegate

    async def _run(self) -> Any:
        try:
            return await self._once()
        except grpc.aio.AioRpcError as error:
            if not self._method.calls.unknown(error):
                raise
        self._inner = asyncio.get_running_loop().create_future()
        return await self._once()

    async def _once(self) -> Any:
        envelope, session = await self._method.seal(self._request)
        call = self._method.calls.stub.Call(sealed_pb2.CallRequest(envelope=envelope), **self._options)
        self._inner.set_result(call)
        return self._method.deserialise(opened(session, await call))


class _Stream:
    """A call whose server streams; of `_Bidirectional` also the requests do."""

    def __init__(self, method: _Method, options: dict[str, Any], request: Any = None) -> None:
        self._method = method
        self._options = options
        self._begun: asyncio.Future[tuple[Any, SenderSession]] | None = None
        if request is not None:
            self._begun = asyncio.ensure_future(self._begin(request, complete=True))

    async def _begin(self, first: Any, *, complete: bool) -> tuple[Any, SenderSession]:
        envelope, session = await self._method.seal(first)
        inner = self._method.calls.stub.CallStream(**self._options)
        await inner.write(sealed_pb2.CallStreamRequest(envelope=envelope))
        if complete:
            await inner.done_writing()
        return inner, session

    async def _call(self) -> tuple[Any, SenderSession]:
        if self._begun is None:
            raise asyncio.InvalidStateError("a sealed stream begins with its first request")
        return await self._begun

    async def read(self) -> Any:
        """The next response, or grpc.aio.EOF. Raises InvalidArgument (SEAL_INVALID) for a stream cut short."""
        inner, session = await self._call()
        try:
            while (reply := await inner.read()) is not channel.EOF:
                message = session.open_response(reply.segment)
                if message is not None:
                    return self._method.deserialise(message)
        except grpc.aio.AioRpcError as error:
            self._method.calls.unknown(error)
            raise
        session.close()
        return channel.EOF

    async def __aiter__(self) -> AsyncIterator[Any]:
        while (reply := await self.read()) is not channel.EOF:
            yield reply

    def cancel(self) -> bool:
        """Ends the call."""
        if self._begun is None:
            return False
        if self._begun.done() and not self._begun.cancelled() and self._begun.exception() is None:
            return bool(self._begun.result()[0].cancel())
        return self._begun.cancel()

    def __getattr__(self, name: str) -> Any:
        """`code`, `details`, `trailing_metadata` and the like, as coroutines of the call beneath."""

        async def delegate(*args: Any) -> Any:
            inner, _ = await self._call()
            return await getattr(inner, name)(*args)

        return delegate


class _Bidirectional(_Stream):
    """A call that streams both ways, fed by an iterator or by `write`."""

    def __init__(self, method: _Method, options: dict[str, Any], requests: Any = None) -> None:
        super().__init__(method, options)
        self._first = asyncio.Event()
        self._feeder = asyncio.create_task(self._feed(requests)) if requests is not None else None

    async def write(self, request: Any) -> None:
        """Sends the next request."""
        if self._begun is None:
            self._begun = asyncio.ensure_future(self._begin(request, complete=False))
            self._first.set()
            await self._begun
            return
        inner, session = await self._call()
        segment = session.seal_request(self._method.serialise(request))
        await inner.write(sealed_pb2.CallStreamRequest(segment=segment))

    async def done_writing(self) -> None:
        """Says that there are no more requests."""
        inner, session = await self._call()
        await inner.write(sealed_pb2.CallStreamRequest(segment=session.seal_request(None, last=True)))
        await inner.done_writing()

    async def _call(self) -> tuple[Any, SenderSession]:
        if self._feeder is not None and self._begun is None:
            waits = {asyncio.ensure_future(self._first.wait()), self._feeder}
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if self._feeder.done():
                self._feeder.result()
        return await super()._call()

    async def _feed(self, requests: Any) -> None:
        if hasattr(requests, "__aiter__"):
            async for request in requests:
                await self.write(request)
        else:
            for request in requests:
                await self.write(request)
        await self.done_writing()

    def cancel(self) -> bool:
        """Ends the call."""
        if self._feeder is not None:
            self._feeder.cancel()
        return super().cancel()
