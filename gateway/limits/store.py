"""What keeps the buckets and places, and what it says of a call."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from gateway.limits.plan import Bucket, ConcurrencyLimit, Plan


class StoreDown(Exception):
    """The store did not answer, or not as a store does. What it was told may have been done."""


class Refusal(NamedTuple):
    """The limit that can't be met for the longest, and for how many nanoseconds. Places come before buckets, because
    when one comes free nobody knows: then there is no time after which the same call would be allowed.
    """

    by: Bucket | ConcurrencyLimit
    wait: int | None


class Grant:
    """What a store charged for a call, and the place it holds there until `Store.settle`."""

    __slots__ = ("lease", "plan", "requests_left", "store", "tokens", "tokens_left")

    def __init__(self, store: Store, plan: Plan, lease: str, tokens: int, requests_left: int, tokens_left: int) -> None:
        self.store = store
        self.plan = plan
        self.lease = lease
        """The name of its places in a shared store."""
        self.tokens = tokens
        self.requests_left = requests_left
        """Requests left in the caller's own buckets (`plan.own`), whatever all callers together have left."""
        self.tokens_left = tokens_left
        """Tokens left in the caller's own buckets."""


class Store(Protocol):
    """Decides on all of a plan at once."""

    async def take(self, plan: Plan, least: int, cost: int) -> Grant | Refusal:
        """Charges a request, a place, and as many tokens as there are from `least` to `cost`; or nothing at all.

        Both are at most `plan.max_tokens`. Raises StoreDown, and Unavailable (OVERLOADED) when it has no memory left.
        Cancelled, it sees to it that nothing stays charged.
        """

    def settle(self, grant: Grant, unused: int) -> None:
        """Frees the grant's place and gives back `unused` tokens; a negative number charges what was overdrawn.

        Once a grant. Does not wait, and never raises: a store that is elsewhere hears of it soon, or not at all, and
        then the tokens stay spent.
        """

    async def stop(self) -> None:
        """Tells the store, within bounds, what it has not heard yet."""
