"""Which models the services have: asked of them, kept, and asked again, so that names resolve without a round trip."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

import grpc

from gateway.forwarding.backend import Backend
from meshgate import errors
from meshgate.services import SERVICES
from meshgate.v1 import models_pb2, models_pb2_grpc, sealed_pb2, sealed_pb2_grpc

_log = logging.getLogger(__name__)

_ASK_SECONDS: Final = 5.0
_AGAIN_SECONDS: Final = 10.0
_SOON_SECONDS: Final = 0.5
_OTHER_NAME: Final = "Hostname Verification Check failed"
"""gRPC's words for a certificate without the name that was expected."""

Changed = Callable[[str, bool], Awaitable[None]]
_ZERO_SHOT: Final = models_pb2.CAPABILITY_ZERO_SHOT


class ModelCatalogue:
    """The models of every backend. `watch` keeps it fresh; the rest only read."""

    def __init__(
        self, backends: Mapping[str, Backend], changed: Changed, listed: Callable[[], None] = lambda: None
    ) -> None:
        """`changed(backend, serving)` is called when a service comes or goes. `listed()` is called when a service lists
        other models than before, or none.
        """
        self._backends = backends
        self._changed = changed
        self._told_listed = listed
        self._asked: set[str] = set()
        self._models: dict[str, tuple[models_pb2.Model, ...]] = {}
        self._names: dict[tuple[str, str], str] = {}
        self._keys: dict[str, tuple[sealed_pb2.SealingKey, ...]] = {}
        self._strange: set[str] = set()

    def resolve(self, backend: str, name: str, *, zero_shot: bool = False) -> str:
        """The model's own name for a name, an alias, or nothing (the default). An unknown name stays as it is: whether
        the caller may even know that it does not exist is the policy's to say.

        Raises Unavailable (BACKEND_UNAVAILABLE) when the service has not been reached yet.
        """
        if backend not in self._models:
            raise errors.Unavailable(
                f"the {backend} service is not there", reason="BACKEND_UNAVAILABLE", retry_after=_SOON_SECONDS
            )
        if not name and zero_shot:
            return next((m.name for m in self._models[backend] if _ZERO_SHOT in m.capabilities), name)
        return self._names.get((backend, name), name)

    @property
    def complete(self) -> bool:
        """Whether every service was asked, with an answer or without one."""
        return self._asked == set(self._backends)

    def reached(self, backend: str) -> bool:
        """Whether the service has said what it has."""
        return backend in self._models

    async def ask(self) -> None:
        """Asks every service once."""
        await asyncio.gather(*(self._ask(backend) for backend in self._backends.values()))

    def models(self) -> list[models_pb2.Model]:
        """All models, in the order of name."""
        return [model for _, model in self.listed()]

    def listed(self) -> list[tuple[str, models_pb2.Model]]:
        """All models with the backend of each, in the order of name."""
        every = [(backend, model) for backend, models in self._models.items() for model in models]
        return sorted(every, key=lambda each: each[1].name)

    def sealing_keys(self) -> list[sealed_pb2.SealingKey]:
        """The keys of all services that can be sealed to. Whether to believe us is for the caller's pins to say."""
        return [key for keys in self._keys.values() for key in keys]

    async def watch(self) -> None:
        """Asks every service again and again, each at its own pace, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for backend in self._backends.values():
                group.create_task(self._watch(backend))

    async def _watch(self, backend: Backend) -> None:
        serving = False
        while True:
            reached = await self._ask(backend)
            if reached != serving:
                serving = reached
                _log.info("backend", extra={"backend": backend.name, "serving": serving})
                await self._changed(backend.name, serving)
            await asyncio.sleep(_AGAIN_SECONDS if serving else _SOON_SECONDS)

    async def _ask(self, backend: Backend) -> bool:
        """Takes over the service's list; a service that does not answer keeps the one it had."""
        before, known = self._models.get(backend.name), backend.name in self._asked
        reached = await self._listed_by(backend)
        self._asked.add(backend.name)
        if not known or self._models.get(backend.name) != before:
            self._told_listed()
        return reached

    async def _listed_by(self, backend: Backend) -> bool:
        stub = backend.stub(models_pb2_grpc.ModelServiceStub)
        try:
            reply = await stub.ListModels(models_pb2.ListModelsRequest(), timeout=_ASK_SECONDS)
            self._keys[backend.name] = await _keys_of(backend)
        except grpc.aio.AioRpcError as error:
            _log.debug("service did not list its models", extra={"backend": backend.name, "code": error.code().name})
            self._note_stranger(backend, error)
            return False
        self._strange.discard(backend.name)
        self._take(backend.name, reply.models)
        return True

    def _note_stranger(self, backend: Backend, error: grpc.aio.AioRpcError) -> None:
        """Logs once that another party answers at a service's address: waiting will not repair that."""
        if _OTHER_NAME in (error.details() or "") and backend.name not in self._strange:
            self._strange.add(backend.name)
            why = {"backend": backend.name, "expected": backend.server_name}
            _log.error("a service has another certificate than server_name expects and is not called", extra=why)

    def _take(self, backend: str, models: Iterable[models_pb2.Model]) -> None:
        self._models[backend] = tuple(models)
        self._names = {key: name for key, name in self._names.items() if key[0] != backend}
        for model in self._models[backend]:
            for name in (model.name, *model.aliases, *([""] if model.default else [])):
                self._names[backend, name] = model.name


async def _keys_of(backend: Backend) -> tuple[sealed_pb2.SealingKey, ...]:
    """The sealing keys that a service lists; none if calls cannot be sealed to it."""
    stub = backend.stub(sealed_pb2_grpc.KeyServiceStub)
    try:
        reply = await stub.ListSealingKeys(sealed_pb2.ListSealingKeysRequest(), timeout=_ASK_SECONDS)
    except grpc.aio.AioRpcError as error:
        if error.code() in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.PERMISSION_DENIED):
            return ()
        raise
    service = SERVICES[backend.name].full_name
    return tuple(
        key for key in reply.keys if key.recipient == sealed_pb2.SEALING_RECIPIENT_SERVICE and key.service == service
    )
