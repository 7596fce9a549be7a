"""The product, top to bottom: what happens to one call.

    audit opens -> authenticate -> enter -> read -> authorise -> reserve -> open seal (or relay) -> forward
    -> seal replies -> settle -> audit closes

Each stage is its own file and can refuse by raising a MeshError. A unary call is a stream of one message, so the stages
do not depend on the arity. Only `journal` does: a call's beginning is on record before the first of several replies
leaves, and its end before the final status does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from gateway import request_info, stages
from gateway.audit.journal import Journal
from gateway.authentication import REVOKED, Authenticator
from gateway.authorisation.policy import Policy
from gateway.call import Call, Replies, Requests
from gateway.edge.concurrency import ConnectionAdmission
from gateway.forwarding.message_relay import MessageRelay
from gateway.forwarding.model_catalogue import ModelCatalogue
from gateway.limits import RateLimiter, Reservation
from gateway.principal import Principal
from gateway.request_info import RequestInfo
from gateway.routes import LOCAL_ROUTES, MODEL_ROUTES, PUBLIC_ROUTES, Route
from gateway.sealing.stage import MessageCodec, SealStage
from meshgate import errors
from meshgate.rpc.status import TOO_LARGE


class Forwarder(Protocol):
    """The part that answers a route: a service, or the gateway itself."""

    async def forward(self, call: Call, route: Route, first: bytes, passage: MessageRelay) -> None:
        """Answers `first`, and what `passage` reads after it, by what it sends on `passage`. Returns when all is sent.

        Books usage on `call`. Raises MeshError. Cancelled, it cancels the work.
        """


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The stages, in the order of their use."""

    journal: Journal
    entrance: ConnectionAdmission
    authenticator: Authenticator
    policy: Policy
    catalogue: ModelCatalogue
    limits: RateLimiter
    opener: SealStage
    forwarders: Mapping[str, Forwarder]
    max_message_bytes: int

    async def run(self, call: Call, requests: Requests, replies: Replies) -> None:
        """Serves one call. Raises MeshError when it is refused or fails, CancelledError when the caller left."""
        try:
            await self._account(call, requests, replies)
        finally:
            self.entrance.leave(call)
            if call.slots:
                self.limits.leave(call)

    async def _account(self, call: Call, requests: Requests, replies: Replies) -> None:
        self.journal.began(call)
        try:
            await self._serve(call, requests, replies)
        except BaseException as error:
            await self.journal.failed(call, error)
            raise
        await self.journal.ended(call)

    async def _serve(self, call: Call, requests: Requests, replies: Replies) -> None:
        principal = self._authenticate(call)
        route = self._enter(call, principal)
        wanted = await self._read(call, route, requests)
        self._authorise(call, principal, wanted)
        reservation = await self._reserve(call, principal, wanted)
        try:
            exchange = await self._open(call, principal, wanted)
            recorded = self.journal.admitted(call, streams=PUBLIC_ROUTES[call.method].server_streams)
            passage = MessageRelay(call, exchange, reservation, requests, replies, self._still_believed, recorded)
            await self._forward(call, exchange.inner, passage)
        except BaseException as error:
            self.limits.abandon(reservation, call, error)
            raise
        self.limits.settle(reservation, call)

    def _authenticate(self, call: Call) -> Principal:
        self.entrance.enter(call)
        call.principal = self.authenticator.authenticate(call.authorization, call.certificate)
        self.entrance.known(call)
        call.mark(stages.AUTHENTICATE)
        return call.principal

    def _enter(self, call: Call, principal: Principal) -> Route:
        """The method that is called. From here on the call counts among its caller's, though it has not begun."""
        route = PUBLIC_ROUTES.get(call.method)
        if route is None:
            raise errors.Unimplemented("no such method", reason="METHOD_UNKNOWN")
        self.limits.enter(call, principal, streams=route.client_streams or route.server_streams)
        return route

    async def _read(self, call: Call, route: Route, requests: Requests) -> RequestInfo:
        """The first message, and what it asks for. Authentication comes before, so that only callers we know wait."""
        first = await self.limits.first_message(call, requests.read())
        if first is not None and len(first) > self.max_message_bytes:
            raise errors.InvalidArgument(
                f"the message is too large: at most {self.max_message_bytes} bytes", reason=TOO_LARGE
            )
        if first is None:
            raise errors.InvalidArgument("the stream ended before its first message", reason="MALFORMED")
        wanted = request_info.read(route, first)
        call.target = wanted.route.path
        if not wanted.route.client_streams and await requests.read() is not None:
            raise errors.InvalidArgument("a call of this method has one request message", reason="MALFORMED")
        call.mark(stages.READ)
        return wanted

    def _authorise(self, call: Call, principal: Principal, wanted: RequestInfo) -> None:
        self.policy.authorise_method(principal, wanted.route.path)
        if wanted.envelope is None and wanted.route.path not in LOCAL_ROUTES:
            self.policy.authorise_plain(principal)
        self._authorise_model(call, principal, wanted)
        call.mark(stages.AUTHORISE)

    def _authorise_model(self, call: Call, principal: Principal, wanted: RequestInfo) -> None:
        if wanted.route.path in MODEL_ROUTES:
            backend, name = wanted.route.backend, wanted.model
            if not name and not wanted.zero_shot:
                name = self.policy.default_model(principal, backend)
            call.model = self.catalogue.resolve(backend, name, zero_shot=wanted.zero_shot)
            self.policy.authorise_model(principal, call.model)

    async def _reserve(self, call: Call, principal: Principal, wanted: RequestInfo) -> Reservation:
        reservation = await self.limits.reserve(call, principal, wanted)
        call.mark(stages.RESERVE)
        return reservation

    async def _open(self, call: Call, principal: Principal, wanted: RequestInfo) -> MessageCodec:
        """The request in the clear, or sealed to the service. The policy is checked again for a request that was inside
        an envelope.
        """
        exchange = await self.opener.open(call, principal, wanted)
        if exchange.inner is not wanted:
            self._authorise_model(call, principal, exchange.inner)
        call.mark(stages.OPEN)
        return exchange

    async def _forward(self, call: Call, wanted: RequestInfo, passage: MessageRelay) -> None:
        """Relays replies as they come, sealed where the request was."""
        await self.forwarders[wanted.route.backend].forward(call, wanted.route, wanted.first, passage)
        await passage.finish()
        call.mark(stages.FORWARD)

    def _still_believed(self, call: Call) -> None:
        """Ends a call whose token was revoked meanwhile. One that only expired may finish what it began."""
        try:
            self.authenticator.authenticate(call.authorization, call.certificate)
        except errors.MeshError as error:
            if error.reason == REVOKED:
                raise
