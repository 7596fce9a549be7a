"""The load: callers that call, wait for the answer and call again. Bytes in, bytes out, so that it takes little CPU."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import grpc

from bench.contender import Contender, Room
from gateway.commands import dev_issuer
from meshgate.client import keys
from meshgate.rpc import channel
from meshgate.sealing import codec
from meshgate.v1 import embedding_pb2, generation_pb2, sealed_pb2, sealed_pb2_grpc

_EMBED: Final = "/meshgate.v1.EmbeddingService/Embed"
_STREAM: Final = "/meshgate.v1.GenerationService/GenerateStream"
_SEALED: Final = "/meshgate.v1.SealedService/Call"
_TENANT: Final = "bench"
_CONNECTIONS: Final = 16
"""Of many callers, so that workers that share a port each get some."""
_START_SECONDS: Final = 60.0
_CALL_SECONDS: Final = 30.0
_SEALED_A_SECOND: Final = 2000
"""Envelopes made ahead for each second: what sealing takes is the caller's, and is not measured."""

_REQUEST: Final = embedding_pb2.EmbedRequest(inputs=["a sentence of some eight words or so"]).SerializeToString()
_PROMPT: Final = generation_pb2.GenerateStreamRequest(
    request=generation_pb2.GenerateRequest(prompt="a sentence of some eight words or so", max_output_tokens=200)
).SerializeToString()

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Load:
    """What was done in one slice of time."""

    elapsed: float
    """Seconds."""
    messages: int
    """Replies; of unary calls as many as there were calls."""
    latencies: Sequence[float]
    """Seconds that each call took, in order of length."""

    def quantile(self, part: float) -> float:
        """The seconds within which this part of the calls had ended."""
        return quantile(self.latencies, part)


def quantile(ordered: Sequence[float], part: float) -> float:
    """What this part of the values, which are in order, is no more than."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


class Work(Protocol):
    """A kind of call."""

    def prepare(self, seconds: float) -> None:
        """Makes, before time is taken, what so long a slice needs."""

    async def call(self, opened: Any) -> int | None:
        """One call; how many messages came back, or None where what was prepared is used up."""


class Unary:
    """An embedding."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    def prepare(self, seconds: float) -> None:
        return None

    async def call(self, opened: Any) -> int:
        await opened.unary_unary(_EMBED)(_REQUEST, metadata=self._metadata, timeout=_CALL_SECONDS)
        return 1


class Stream:
    """A generation, chunk by chunk."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    def prepare(self, seconds: float) -> None:
        return None

    async def call(self, opened: Any) -> int:
        replies = opened.unary_stream(_STREAM)(_PROMPT, metadata=self._metadata, timeout=_CALL_SECONDS)
        count = 0
        while await replies.read() is not channel.EOF:
            count += 1
        return count


class Sealed:
    """The same embedding, sealed."""

    def __init__(self, metadata: Metadata, key: codec.PublicKey) -> None:
        self._metadata = metadata
        self._key = key
        self._sealed: Iterator[bytes] = iter(())

    def prepare(self, seconds: float) -> None:
        self._sealed = iter([self._seal() for _ in range(int(seconds * _SEALED_A_SECOND))])

    def _seal(self) -> bytes:
        envelope, _ = codec.seal_request(
            self._key, _REQUEST, method=_EMBED, tenant=_TENANT, subject=_TENANT, now_ms=time.time_ns() // 1_000_000
        )
        return sealed_pb2.CallRequest(envelope=envelope).SerializeToString()

    async def call(self, opened: Any) -> int | None:
        request = next(self._sealed, None)
        if request is None:
            return None
        await opened.unary_unary(_SEALED)(request, metadata=self._metadata, timeout=_CALL_SECONDS)
        return 1


class Callers:
    """Connections to one contender."""

    def __init__(self, room: Room, contender: Contender) -> None:
        self._contender = contender
        token = dev_issuer.mint(
            room.home, tenant=_TENANT, subject=_TENANT, scopes=("generate", "embed", "models"), ttl=3600
        )
        self._metadata = (("authorization", f"Bearer {token}"),)
        options = (*channel.mesh_options(), ("grpc.use_local_subchannel_pool", 1))
        target, credentials = f"127.0.0.1:{contender.port}", room.credentials(contender)
        self._channels: list[Any] = [channel.open_channel(target, credentials, options) for _ in range(_CONNECTIONS)]

    async def ready(self) -> None:
        """Returns once the contender, and what is behind it, answers. Raises TimeoutError."""
        async with asyncio.timeout(_START_SECONDS):
            for work in (Unary(self._metadata), Stream(self._metadata)):
                for opened in self._channels:
                    await _answered(lambda work=work, opened=opened: work.call(opened))  # type: ignore[misc]

    async def unary(self) -> Work:
        """The contender's unary calls."""
        if self._contender.suite is None:
            return Unary(self._metadata)
        stub: Any = sealed_pb2_grpc.KeyServiceStub(self._channels[0])
        listed = await stub.ListSealingKeys(sealed_pb2.ListSealingKeysRequest(), metadata=self._metadata)
        wanted = [key for key in listed.keys if key.suite == self._contender.suite]
        return Sealed(self._metadata, keys.KeyCache(frozenset(), lambda: 0).take(wanted))

    def stream(self) -> Work:
        """Streams of the contender."""
        return Stream(self._metadata)

    async def load(self, work: Work, callers: int, seconds: float) -> Load:
        """Calls from so many callers for a while. Raises grpc.aio.AioRpcError for a call that fails."""
        work.prepare(seconds)
        latencies: list[float] = []
        start = time.perf_counter()
        counts = await asyncio.gather(
            *(
                _call_until(start + seconds, work, self._channels[number % _CONNECTIONS], latencies)
                for number in range(callers)
            )
        )
        return Load(time.perf_counter() - start, sum(counts), sorted(latencies))

    async def close(self) -> None:
        """Ends the connections."""
        for opened in self._channels:
            await opened.close(None)


async def _call_until(until: float, work: Work, opened: Any, latencies: list[float]) -> int:
    messages = 0
    while (start := time.perf_counter()) < until:
        count = await work.call(opened)
        if count is None:
            break
        latencies.append(time.perf_counter() - start)
        messages += count
    return messages


async def _answered(call: Callable[[], Awaitable[Any]]) -> None:
    while True:
        try:
            await call()
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            await asyncio.sleep(0.2)
        else:
            return
