"""Callers, requests and clocks for tests of the limits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from google.protobuf.message import Message

from gateway import request_info
from gateway.call import Call
from gateway.limits import Limits, LimitsConfig, Reservation
from gateway.limits.gcra import SECOND
from gateway.limits.memory_store import MemoryStore
from gateway.limits.store import Store
from gateway.principal import Principal
from gateway.request_info import Intent
from gateway.routes import PUBLIC_ROUTES
from meshgate.errors import LimitExceeded
from meshgate.v1 import generation_pb2, models_pb2

GENERATE = "/meshgate.v1.GenerationService/Generate"
MODELS = (
    models_pb2.Model(name="small", max_input_tokens=256, max_output_tokens=200, max_candidates=16),
    models_pb2.Model(name="big", max_input_tokens=8192, max_output_tokens=4096, max_candidates=16),
    models_pb2.Model(
        name="translator", max_input_tokens=128 + 200, max_source_tokens=128, max_output_tokens=200, max_candidates=16
    ),
    models_pb2.Model(name="encoder", max_input_tokens=64, max_batch=32),
)


class Clock:
    """Nanoseconds that pass when somebody sleeps, or a test says."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)
        await asyncio.sleep(0)


def caller(subject: str = "bob", tenant: str = "acme") -> Principal:
    return Principal(tenant, subject, frozenset(), "0" * 16, 0, "https://issuer.test")


def wanted(message: Message, path: str = GENERATE) -> Intent:
    """What the pipeline makes of a call."""
    return request_info.read(PUBLIC_ROUTES[path], message.SerializeToString())


def generate(**fields: Any) -> Intent:
    return wanted(generation_pb2.GenerateRequest(**{"prompt": "hello", **fields}))


def call_of(asked: Intent, model: str = "small") -> Call:
    return Call(method=asked.route.path, peer="test", authorization=None, deadline=None, model=model)


class Stage:
    """The stage with a clock that only tests move."""

    def __init__(self, config: Mapping[str, Any], store: Store | None = None, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.store = MemoryStore(self.clock) if store is None else store
        self.limits = Limits(
            LimitsConfig.model_validate(config), self.store, lambda: MODELS, self.clock, self.clock.sleep
        )

    async def begin(
        self, principal: Principal | None = None, asked: Intent | None = None, model: str = "small"
    ) -> tuple[Reservation, Call]:
        asked = asked or generate()
        call = call_of(asked, model)
        return await self.limits.reserve(call, principal or caller(), asked), call

    async def once(
        self, principal: Principal | None = None, asked: Intent | None = None, model: str = "small", *, used: int = 0
    ) -> Call:
        """A call that ends well; `used` tokens, where the service says."""
        reservation, call = await self.begin(principal, asked, model)
        call.output_tokens = used
        self.limits.settle(reservation, call)
        return call

    async def refused(
        self, principal: Principal | None = None, asked: Intent | None = None, model: str = "small"
    ) -> LimitExceeded:
        with pytest.raises(LimitExceeded) as caught:
            await self.begin(principal, asked, model)
        return caught.value
