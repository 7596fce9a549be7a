"""Pending calls: their caller is authenticated, and their first message has not come.

Such a call counts against the concurrency limits of its principal, its tenant and all callers as soon as its caller is
known. Otherwise headers alone would hold the slots of the process for `first_message_seconds` free of charge. Calls are
counted in this process, without a lock or a round trip, until they end. A limit of one model applies once the message
names the model. Until then a call may hold a slot of any limit to which it could turn out to belong.

A principal or a tenant whose limit is a large part of `max_calls` could still fill the process with pending calls. So
pending calls have a bound of their own, a part of `max_calls`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from gateway.call import Call
from gateway.limits.exceeded import exceeded
from gateway.limits.plan import TOTAL, ConcurrencyLimit, Owner, Plans, concurrency_limit
from gateway.limits.store import Refusal
from gateway.principal import Principal

_CACHED: Final = 20_000
_KINDS: Final = ("concurrent_calls", "concurrent_streams")
_LEAST: Final = 4
"""Pending calls that a principal may always have."""

_SHARE: Final = "pending:"
"""The prefix of the keys of slots that only this process has."""

Slots = tuple[ConcurrencyLimit, ...]


class Scope(NamedTuple):
    """Limits of which a pending call holds one: the general one, and those of models that have their own."""

    choices: Slots


class PendingSlots(NamedTuple):
    """The slots of a pending call."""

    slots: Slots
    """All of these, where no scope leaves a choice: then it is the very tuple of the plan."""
    scopes: tuple[Scope, ...]
    """The scopes that leave a choice."""


class SlotTable:
    """The slots of pending calls, by principal and kind of call."""

    def __init__(self, plans: Plans, max_calls: int) -> None:
        self._plans = plans
        self._shares = {
            "principal": max(_LEAST, max_calls // 2),
            "tenant": max(_LEAST, 3 * max_calls // 4),
        }
        self.of = lru_cache(maxsize=_CACHED)(self._make)

    def _make(self, tenant: str, subject: str, streams: bool) -> PendingSlots:
        scopes: list[Scope] = []
        for kind in _KINDS if streams else _KINDS[:1]:
            for owner in self._plans.owners(tenant, subject, ""):
                scopes += self._scopes(owner, kind, tenant, subject)
        if all(len(scope.choices) == 1 for scope in scopes):
            plan = self._plans.of(tenant, subject, "", streams=streams)
            if len(scopes) == len(plan.concurrency):
                return PendingSlots(plan.concurrency, ())
        return PendingSlots((), tuple(scopes))

    def _scopes(self, owner: Owner, kind: str, tenant: str, subject: str) -> list[Scope]:
        general = concurrency_limit(owner, kind)
        if general is None:
            return []
        choices = (general, *self._of_models(owner, kind, tenant, subject, general))
        share = self._shares.get(owner.subject.partition(":")[0])
        if share is None or max(each.maximum for each in choices) <= share:
            return [Scope(choices)]
        return [Scope(choices), Scope((ConcurrencyLimit(_SHARE + general.key, share, owner.subject, kind),))]

    def _of_models(
        self, owner: Owner, kind: str, tenant: str, subject: str, general: ConcurrencyLimit
    ) -> list[ConcurrencyLimit]:
        if owner.subject == TOTAL:
            return []
        found = []
        for model in sorted(self._plans.models):
            same = next(each for each in self._plans.owners(tenant, subject, model) if each.subject == owner.subject)
            own = concurrency_limit(same, kind)
            if own is not None and own.key != general.key:
                found.append(own)
        return found


class PendingCalls:
    """Counts the calls of this process by the slots that they hold. For one event loop."""

    def __init__(self, plans: Plans, max_calls: int) -> None:
        """`max_calls` is the number of concurrent calls of the process."""
        self._entries = SlotTable(plans, max_calls)
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        """The number of held slots."""
        return sum(self._counts.values())

    def enter(self, call: Call, principal: Principal, *, streams: bool) -> None:
        """Takes the slots of a call whose caller is known. Raises LimitExceeded (CONCURRENCY_LIMITED)."""
        slots, scopes = self._entries.of(principal.tenant, principal.subject, streams)
        counts = self._counts
        if scopes:
            slots = tuple(self._free(scope) for scope in scopes)
        else:
            for each in slots:
                if counts.get(each.key, 0) >= each.maximum:
                    raise exceeded(Refusal(each, None))
        self._hold(call, slots)

    def begun(self, call: Call, slots: Slots) -> None:
        """The message has come, and the call holds `slots` from here on."""
        if call.slots and call.slots is not slots:
            self.leave(call)
            self._hold(call, slots)

    def forget(self) -> None:
        """Other models have limits of their own than before. Calls keep the slots that they hold."""
        self._entries.of.cache_clear()

    def leave(self, call: Call) -> None:
        """The call has ended."""
        counts = self._counts
        for each in call.slots:
            left = counts[each.key] - 1
            if left:
                counts[each.key] = left
            else:
                del counts[each.key]
        call.slots = ()

    def stored(self, call: Call) -> Slots:
        """The slots of a pending call that all processes share."""
        return tuple(each for each in call.slots if not each.key.startswith(_SHARE))

    def other(self, call: Call, key: str) -> ConcurrencyLimit | None:
        """The slot to try after the slot `key`, which is taken."""
        principal = call.principal
        assert principal is not None, "it entered"  # noqa: S101 - the pipeline's order
        streams = any(each.name.startswith(_KINDS[1]) for each in call.slots)
        for scope in self._entries.of(principal.tenant, principal.subject, streams).scopes:
            keys = [each.key for each in scope.choices]
            if key in keys[:-1]:
                return scope.choices[keys.index(key) + 1]
        return None

    def _hold(self, call: Call, slots: Slots) -> None:
        counts = self._counts
        for each in slots:
            counts[each.key] = counts.get(each.key, 0) + 1
        call.slots = slots

    def _free(self, scope: Scope) -> ConcurrencyLimit:
        for each in scope.choices:
            if self._counts.get(each.key, 0) < each.maximum:
                return each
        raise exceeded(Refusal(scope.choices[0], None))
