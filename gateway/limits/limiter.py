"""The rate limiter, a stage of the pipeline: charges a call before it costs anything, and settles with what it took."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final, TypeVar

from gateway.call import Call
from gateway.limits.config import LimitsConfig
from gateway.limits.cost import FREE, CostEstimator
from gateway.limits.exceeded import exceeded, seconds
from gateway.limits.memory_store import MemoryStore
from gateway.limits.pending import PendingCalls
from gateway.limits.plan import Plan, Plans
from gateway.limits.shared_pending import SharedPendingCalls
from gateway.limits.store import Grant, Refusal, Store
from gateway.principal import Principal
from gateway.request_info import RequestInfo
from meshgate import errors
from meshgate.rpc import metadata
from meshgate.v1 import models_pb2

_T = TypeVar("_T")
_QUANTUM: Final = 4096
"""Tokens that a stream reserves beyond its next message, so that few messages need the store."""
MAX_CALLS: Final = 5000
"""Concurrent calls of one process, where the edge states no other number."""
LOCAL: Final = "local"
"""Call.limits of a call that was decided without the store."""

_NOT_BEGUN: Final = (errors.InvalidArgument, errors.NotFound, errors.PermissionDenied, errors.Unimplemented)
_NOT_BEGUN_REASONS: Final = ("OVERLOADED", "STARTING")


class Reservation:
    """The charges of a call, until they are settled."""

    __slots__ = ("_credit", "_first", "_grants", "_limits", "_model", "_plan", "metered", "streams", "tokens")

    def __init__(self, limits: RateLimiter, grant: Grant, wanted: RequestInfo, model: str, *, metered: bool) -> None:
        self._limits = limits
        self._grants = [grant]
        self._plan = grant.plan
        self._first = wanted
        self._model = model
        self._credit = 0
        self.metered = metered
        """Whether the call is charged tokens at all."""
        self.tokens = grant.tokens
        """All reserved tokens."""
        self.streams = wanted.route.client_streams

    async def more(self, call: Call, message: bytes) -> None:
        """Reserves tokens for a later message of a stream, before the message is forwarded, and waits for tokens if
        need be.

        Raises LimitExceeded when they don't come in time, and the errors of `RateLimiter.reserve`.
        """
        if not self.metered:
            return
        cost = self._limits.costs.later(message, self._first, self._model)
        cost = min(cost, self._plan.max_tokens)
        if cost > self._credit:
            self._add(call, await self._limits.grow(call, self._plan.growth, cost - self._credit))
        self._credit -= cost

    def _add(self, call: Call, grant: Grant) -> None:
        self._credit += grant.tokens
        self.tokens += grant.tokens
        call.tokens_reserved = self.tokens
        first = self._grants[0]
        if grant.store is first.store:
            first.tokens += grant.tokens
        else:
            self._grants.append(grant)  # the store went down meanwhile: these tokens are of the local share
        first.tokens_left = grant.tokens_left

    def end(self, unused: int) -> None:
        """Gives back the unused tokens, from the newest grant to the oldest."""
        for grant in reversed(self._grants):
            part = min(unused, grant.tokens)
            unused -= part
            grant.store.settle(grant, part)

    def trailers(self, unused: int) -> tuple[tuple[str, str], ...]:
        """The rest of the caller's own buckets. The rest of shared buckets would reveal the load of other callers."""
        grant, own = self._grants[0], self._plan.own
        requests = ((metadata.REMAINING_REQUESTS, str(grant.requests_left)),) if own.requests else ()
        if not self.metered or not own.tokens:
            return requests
        tokens = grant.tokens_left + unused
        tokens = 0 if tokens < 0 else own.max_tokens if tokens > own.max_tokens else tokens
        return (*requests, (metadata.REMAINING_TOKENS, str(tokens)))


class RateLimiter:
    """The stage of the pipeline."""

    def __init__(
        self,
        config: LimitsConfig,
        store: Store | None = None,
        models: Callable[[], Iterable[models_pb2.Model]] = tuple,
        clock: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        counts: Counter[str] | None = None,
        *,
        max_calls: int = MAX_CALLS,
    ) -> None:
        """Without a store the buckets are in this process. `models` lists the declared models; `max_calls` is the
        number of concurrent calls of this process.
        """
        self.counts: Counter[str] = Counter() if counts is None else counts
        """For metrics: how often the store went `down` and came `up`, decisions that were `denied` or `local` without
        it, and settlements that were `lost`.
        """
        self._store: Store = MemoryStore() if store is None else store
        self._plans = Plans(config)
        self._pending = PendingCalls(self._plans, max_calls)
        self._sleep = sleep
        self._wait_seconds = config.stream_wait_seconds
        self._shared = not isinstance(self._store, MemoryStore)
        self._waiting = SharedPendingCalls(self._store, self._pending) if self._shared else None
        self.costs = CostEstimator(
            models, clock, template_tokens=config.template_tokens, useful_output_tokens=config.useful_output_tokens
        )

    def set_aliases(self, aliases: Mapping[str, tuple[str, ...]]) -> None:
        """Sets the aliases of models, by the models' own names: a limit may name any of them."""
        if self._plans.set_aliases(aliases):
            self._pending.forget()

    def enter(self, call: Call, principal: Principal, *, streams: bool) -> None:
        """Counts a call from here on against the concurrency limits of its principal, its tenant and all callers,
        before its first message. `leave` follows. Raises LimitExceeded (CONCURRENCY_LIMITED).
        """
        self._pending.enter(call, principal, streams=streams)

    def first_message(self, call: Call, message: Awaitable[_T]) -> Awaitable[_T]:
        """The awaitable for the first message of a call that entered. Raises LimitExceeded (CONCURRENCY_LIMITED) where
        other processes have admitted as many calls as the limit allows.
        """
        return message if self._waiting is None else self._waiting.wait(call, message)

    def leave(self, call: Call) -> None:
        """The call that entered has ended, whatever its outcome."""
        self._pending.leave(call)
        if call.held is not None:
            self._release(call, call.held)

    async def reserve(self, call: Call, principal: Principal, wanted: RequestInfo) -> Reservation:
        """Charges all callers, the tenant and the principal: a request, a concurrency slot, and the tokens of the call.
        Or nothing.

        Books on `call` the reserved tokens and the cap that travels with it. Raises LimitExceeded: the same call would
        be admitted after its `retry_after`, unless others come first; there is none for a concurrency limit. Raises
        Unavailable when the limits can't be decided.
        """
        route = wanted.route
        streams = route.client_streams or route.server_streams
        plan = self._plans.of(principal.tenant, principal.subject, call.model, streams=streams)
        cost = self.costs.of(wanted, call.model) if plan.tokens else FREE
        asked = plan if call.held is None else plan.after(call.held.lease)
        grant = await self._take(call, asked, cost.least, cost.most)
        if isinstance(grant, Refusal):
            raise exceeded(grant)
        self._pending.begun(call, plan.concurrency)
        if call.held is not None:
            self._release(call, call.held)
        call.tokens_reserved = grant.tokens
        call.token_cap = _cap(wanted, grant.tokens)
        return Reservation(self, grant, wanted, call.model, metered=cost.most > 0)

    async def grow(self, call: Call, plan: Plan, cost: int) -> Grant:
        """Takes `cost` tokens and some in advance, and waits for them while there is time. Raises as `reserve` does."""
        left = self._wait_seconds
        while isinstance(answer := await self._take(call, plan, cost, cost + _QUANTUM), Refusal):
            pause = math.inf if answer.wait is None else seconds(answer.wait)
            remaining = call.remaining()
            if pause > left or (remaining is not None and pause > remaining):
                raise exceeded(answer)
            left -= pause
            await self._sleep(pause)
        return answer

    def settle(self, reservation: Reservation, call: Call) -> None:
        """Ends the reservation of a call that succeeded: the tokens that it did not take come back.

        A call without reported usage keeps its reservation. A request is never given back.
        """
        used = call.input_tokens + call.output_tokens
        unused = reservation.tokens - used if used and reservation.metered else 0
        call.trailers = (*call.trailers, *reservation.trailers(unused))
        reservation.end(unused)

    def abandon(self, reservation: Reservation, call: Call, error: BaseException) -> None:
        """Ends the reservation of a call that failed or was cancelled. Its tokens stay spent, because their use is not
        known, unless `error` shows that no work began.
        """
        begun = call.bytes_out or reservation.streams or not _refused_work(error)
        reservation.end(0 if begun else reservation.tokens)

    async def stop(self) -> None:
        """Sends pending settlements to the store, within bounds."""
        if self._waiting is not None:
            await self._waiting.stop()
        await self._store.stop()

    def _release(self, call: Call, held: Grant) -> None:
        call.held = None
        held.store.settle(held, 0)

    async def _take(self, call: Call, plan: Plan, least: int, cost: int) -> Grant | Refusal:
        """A request for more tokens than a bucket's capacity becomes one for its capacity: the service decides whether
        that is enough.
        """
        most = plan.max_tokens
        answer = await self._store.take(plan, least if least < most else most, cost if cost < most else most)
        if self._shared and isinstance(answer, Grant) and isinstance(answer.store, MemoryStore):
            call.limits = LOCAL
        return answer


def _cap(wanted: RequestInfo, reserved: int) -> int:
    """The most tokens that the service may take: the reserved ones, or the number in the envelope where that is smaller
    or the only one. 0 is no cap. A bulk stream has only the envelope's cap: its reservation grows before each message
    is forwarded.
    """
    said = wanted.header.token_cap if wanted.header is not None else 0
    if wanted.route.client_streams:
        return said
    return reserved or said


def _refused_work(error: BaseException) -> bool:
    if isinstance(error, errors.Unavailable):
        return error.reason in _NOT_BEGUN_REASONS
    return isinstance(error, _NOT_BEGUN)
