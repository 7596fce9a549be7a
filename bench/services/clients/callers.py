"""How each server is called. Bytes in, bytes out where that will do, so that calling takes little of the processor."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Protocol

import grpc

from bench.services.clients import http, v2
from gateway.commands import dev_issuer
from meshgate.rpc import channel
from meshgate.rpc.private.fast_unary_client import FastUnaryClient
from meshgate.v1 import embedding_pb2, generation_pb2

_EMBED: Final = "/meshgate.v1.EmbeddingService/Embed"
_GENERATE: Final = "/meshgate.v1.GenerationService/Generate"
_STREAM: Final = "/meshgate.v1.GenerationService/GenerateStream"
_CONNECTIONS: Final = 16
_CALL_SECONDS: Final = 120.0
_TOKEN_SECONDS: Final = 6 * 3600
_POLL_SECONDS: Final = 0.05


class NotReady(Exception):
    """Not yet, and perhaps never."""


class Client(Protocol):
    """Whoever calls one server."""

    async def call(self, caller: int, item: str) -> int:
        """One call: how many tokens were made, or texts embedded."""

    async def close(self) -> None:
        """Ends the connections."""


class Streaming(Client, Protocol):
    """Whoever can have answers piece by piece, too."""

    def pieces(self, caller: int, item: str) -> AsyncIterator[int]:
        """See bench.services.loop.Stream."""


@dataclass(frozen=True)
class Door:
    """Where a gateway is and who comes to it: each caller a tenant of its own."""

    home: Path
    port: int

    def channels(self) -> list[Any]:
        """Connections."""
        credentials = grpc.ssl_channel_credentials((self.home / "certs" / "ca.pem").read_bytes())
        options = (*channel.mesh_options(), ("grpc.use_local_subchannel_pool", 1))
        return [channel.open_channel(f"127.0.0.1:{self.port}", credentials, options) for _ in range(_CONNECTIONS)]

    @lru_cache(maxsize=1024)  # noqa: B019 - as long as the run
    def metadata(self, caller: int) -> tuple[tuple[str, str], ...]:
        """Who a caller is."""
        tenant = f"tenant-{caller}"
        token = dev_issuer.mint(
            self.home, tenant=tenant, subject=tenant, scopes=("generate", "embed", "models"), ttl=_TOKEN_SECONDS
        )
        return (("authorization", f"Bearer {token}"),)


class Embedding:
    """Meshgate's embeddings."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._channels = door.channels()
        self._unaries = _unaries(self._channels)

    async def call(self, caller: int, item: str) -> int:
        made = self._unaries[caller % _CONNECTIONS]
        await made.call(_EMBED.encode(), _embed(item), _CALL_SECONDS, self._door.metadata(caller))
        return 1

    async def close(self) -> None:
        await _close(self._channels)


class Generation:
    """Meshgate's generation."""

    def __init__(self, door: Door, tokens: int) -> None:
        self._door = door
        self._tokens = tokens
        self._channels = door.channels()
        self._unaries = _unaries(self._channels)

    async def call(self, caller: int, item: str) -> int:
        made = self._unaries[caller % _CONNECTIONS]
        request = _generate(item, self._tokens).SerializeToString()
        answer = await made.call(_GENERATE.encode(), request, _CALL_SECONDS, self._door.metadata(caller))
        return generation_pb2.GenerateResponse.FromString(answer.reply).usage.output_tokens

    async def pieces(self, caller: int, item: str) -> AsyncIterator[int]:
        made = self._channels[caller % _CONNECTIONS].unary_stream(_STREAM)
        request = generation_pb2.GenerateStreamRequest(request=_generate(item, self._tokens)).SerializeToString()
        replies = made(request, metadata=self._door.metadata(caller), timeout=_CALL_SECONDS)
        last = b""
        while (reply := await replies.read()) is not channel.EOF:
            last = reply
            yield 0
        yield generation_pb2.GenerateStreamResponse.FromString(last).usage.output_tokens

    async def close(self) -> None:
        await _close(self._channels)


class V2:
    """A server of the V2 protocol over gRPC."""

    def __init__(self, port: int, model: str) -> None:
        self._model = model
        options = (*channel.mesh_options(), ("grpc.use_local_subchannel_pool", 1))
        self._channels: list[Any] = [
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) for _ in range(_CONNECTIONS)
        ]
        self._unaries = _unaries(self._channels)

    async def call(self, caller: int, item: str) -> int:
        made = self._unaries[caller % _CONNECTIONS]
        await made.call(v2.INFER.encode(), _infer(self._model, item), _CALL_SECONDS, ())
        return 1

    async def close(self) -> None:
        await _close(self._channels)


class HttpEmbedding:
    """A server with OpenAI's embeddings."""

    def __init__(self, port: int, path: str, model: str) -> None:
        self._path = path
        self._model = model
        self._connections = _Connections(port)

    async def call(self, caller: int, item: str) -> int:
        body = json.dumps({"model": self._model, "input": [item]}).encode()
        await self._connections.of(caller).post(self._path, body)
        return 1

    async def close(self) -> None:
        await self._connections.close()


class HttpCompletion:
    """A server with OpenAI's completions, greedy."""

    def __init__(self, port: int, model: str, tokens: int) -> None:
        self._asked = {"model": model, "max_tokens": tokens, "temperature": 0}
        self._connections = _Connections(port)

    async def call(self, caller: int, item: str) -> int:
        reply = await self._connections.of(caller).post("/v1/completions", self._body(item, stream=False))
        return int(json.loads(reply)["usage"]["completion_tokens"])

    async def pieces(self, caller: int, item: str) -> AsyncIterator[int]:
        async for part in self._connections.of(caller).stream("/v1/completions", self._body(item, stream=True)):
            for event in http.events(part):
                if "error" in event:
                    raise http.HttpError(event["error"])
                usage = event.get("usage")
                yield int(usage["completion_tokens"]) if usage else 0

    async def close(self) -> None:
        await self._connections.close()

    def _body(self, item: str, *, stream: bool) -> bytes:
        return json.dumps({**self._asked, "prompt": item, "stream": stream}).encode()


class _Connections:
    """One a caller."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: dict[int, http.Connection] = {}

    def of(self, caller: int) -> http.Connection:
        if caller not in self._open:
            self._open[caller] = http.Connection(self._port)
        return self._open[caller]

    async def close(self) -> None:
        for each in self._open.values():
            await each.close()


async def ready(call: Callable[[], Awaitable[Any]], alive: Callable[[], bool], seconds: float) -> float:
    """Returns once a call succeeds: how many seconds that took. Raises NotReady."""
    began = time.perf_counter()
    failed: Exception | None = None
    while time.perf_counter() - began < seconds and alive():
        try:
            await call()
        except (grpc.aio.AioRpcError, OSError, EOFError, http.HttpError) as error:
            failed = error
            await asyncio.sleep(_POLL_SECONDS)
        else:
            return time.perf_counter() - began
    raise NotReady("it ended" if not alive() else f"no answer in {seconds:.0f} s") from failed


async def answers(connect: Callable[[], Client], alive: Callable[[], bool], seconds: float) -> float:
    """Likewise of a first call, each try on connections of its own."""

    async def once() -> None:
        client = connect()
        try:
            await client.call(0, "ready?")
        finally:
            await client.close()

    return await ready(once, alive, seconds)


@lru_cache(maxsize=4096)
def _embed(item: str) -> bytes:
    return embedding_pb2.EmbedRequest(inputs=[item]).SerializeToString()


@lru_cache(maxsize=4096)
def _infer(model: str, item: str) -> bytes:
    return v2.request(model, item)


def _generate(item: str, tokens: int) -> generation_pb2.GenerateRequest:
    greedy = generation_pb2.Sampling(temperature=0)
    return generation_pb2.GenerateRequest(prompt=item, sampling=greedy, max_output_tokens=tokens)


def _unaries(channels: list[Any]) -> list[FastUnaryClient]:
    """What makes unary calls on them for the least that Python can: whoever is called is to have the cores."""
    return [FastUnaryClient(opened) for opened in channels]


async def _close(channels: list[Any]) -> None:
    for opened in channels:
        await opened.close(None)
