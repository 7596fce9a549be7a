"""Calls of a scripted gateway, in the same words for blocking and asyncio channels."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from meshgate.client import aio, blocking
from meshgate.v1 import generation_pb2, generation_pb2_grpc
from tests.support.network.scripted_gateway import SUBJECT, TENANT, ScriptedGateway

_PAYLOAD = base64.urlsafe_b64encode(json.dumps({"tenant": TENANT, "sub": SUBJECT}).encode()).decode().rstrip("=")
TOKEN = f"e30.{_PAYLOAD}.c2ln"
TIMEOUT = 20.0


def ask(prompt: str = "hello") -> generation_pb2.GenerateRequest:
    return generation_pb2.GenerateRequest(prompt=prompt)


def streamed() -> generation_pb2.GenerateStreamRequest:
    return generation_pb2.GenerateStreamRequest(request=ask())


class Client:
    """One kind of channel. What was received of a stream before it failed is in `received`."""

    def __init__(self, gateway: ScriptedGateway, home: Path, kind: str, *, sealed: bool) -> None:
        given: dict[str, Any] = {"ca": home / "certs" / "ca.pem", "token": TOKEN, "sealed": sealed}
        target = f"localhost:{gateway.port}"
        self._aio = kind == "asyncio"
        self.channel: Any = aio.connect(target, **given) if self._aio else blocking.connect(target, **given)
        self.stub: Any = generation_pb2_grpc.GenerationServiceStub(self.channel)
        self.received: list[str] = []

    async def generate(self, prompt: str = "hello", timeout: float = TIMEOUT) -> str:
        """A unary call's text. Raises RpcError."""
        if self._aio:
            reply = await self.stub.Generate(ask(prompt), timeout=timeout)
        else:
            reply = await asyncio.to_thread(self.stub.Generate, ask(prompt), timeout)
        return str(reply.candidates[0].text)

    async def stream(self, timeout: float = TIMEOUT) -> list[str]:
        """A stream's words. Raises RpcError."""
        self.received = []
        async for reply in self._replies(timeout):
            self.received.append(reply.deltas[0].text)
        return self.received

    async def _replies(self, timeout: float) -> AsyncIterator[Any]:
        if self._aio:
            async for reply in self.stub.GenerateStream(streamed(), timeout=timeout):
                yield reply
            return
        call = await asyncio.to_thread(self.stub.GenerateStream, streamed(), timeout)  # it may list the keys first
        while (reply := await asyncio.to_thread(next, call, None)) is not None:
            yield reply

    async def close(self) -> None:
        if self._aio:
            await self.channel.close(None)
        else:
            self.channel.close()
