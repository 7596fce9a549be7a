"""The interface of a store of buckets and concurrency slots, and its answers."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from gateway.limits.plan import Bucket, ConcurrencyLimit, Plan


class StoreDown(Exception):
    """The store did not answer, or not as a store does. The command may have been executed."""


class Refusal(NamedTuple):
    """The limit with the longest wait, and that wait in nanoseconds. Concurrency limits come before buckets: it is not
    known when a slot becomes free, so there is no time after which the same call would be admitted.
    """

    by: Bucket | ConcurrencyLimit
    wait: int | None


class Grant:
    """The charges of a call in a store, and its slots there until `Store.settle`."""

    __slots__ = ("lease", "plan", "requests_left", "store", "tokens", "tokens_left")

    def __init__(self, store: Store, plan: Plan, lease: str, tokens: int, requests_left: int, tokens_left: int) -> None:
        self.store = store
        self.plan = plan
        self.lease = lease
        """The name of its slots in a shared store."""
        self.tokens = tokens
        self.requests_left = requests_left
        """Requests left in the caller's own buckets (`plan.own`), whatever all callers together have left."""
        self.tokens_left = tokens_left
        """Tokens left in the caller's own buckets."""


class Store(Protocol):
    """Decides on a whole plan at once."""

    async def take(self, plan: Plan, least: int, cost: int) -> Grant | Refusal:
        """Charges a request, a slot, and as many tokens as there are from `least` to `cost`; or nothing at all.

        Both are at most `plan.max_tokens`. Raises StoreDown, and Unavailable (OVERLOADED) when the store has no memory
        left. When it is cancelled, no charge stays.
        """

    def settle(self, grant: Grant, unused: int) -> None:
        """Frees the grant's slot and gives back `unused` tokens; a negative number charges what the call took too much.

        Once for each grant. Does not wait, and never raises: a remote store gets it soon or not at all, and then the
        tokens stay spent.
        """

    async def stop(self) -> None:
        """Sends pending settlements to the store, within bounds."""
