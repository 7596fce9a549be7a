"""What a flood of callers without a good token makes the gateway do, counted: next to nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.audit.group_commit import GroupCommit
from gateway.audit.journal import Journal
from gateway.audit.refusal_aggregator import RefusalAggregator, RefusalAggregatorConfig
from gateway.authentication import verification
from gateway.authentication.keys import key_source
from gateway.call import Call
from gateway.edge.concurrency import ConnectionAdmission
from gateway.metrics.call_metrics import CallMetrics, GatewayMetricsConfig
from gateway.pipeline import Pipeline
from meshgate import errors
from tests.support.fixtures import tokens
from tests.support.fixtures.tokens import Clock
from tests.support.network.bystander import GENERATE

CALLS = 500
SINGLY = 20
STRANGERS = 10


class Log:
    """An audit log that counts what it is given, and takes as long as it is told to."""

    def __init__(self) -> None:
        self.group_commit = GroupCommit(0.0, Clock())
        self.counts: Counter[str] = Counter()
        self.summed = 0
        self.open = asyncio.Event()
        self.open.set()

    async def commit(self, record: Any) -> None:
        self.counts["committed"] += 1
        await self.open.wait()

    def enqueue_nowait(self, record: Any) -> None:
        self.counts["left"] += 1

    def log_event(self, *, count: int, **fields: Any) -> None:
        self.counts["sums"] += 1
        self.summed += count


class Never:
    """What no stranger ever comes to: a stage behind authentication, or a caller's message."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"a stranger made the gateway look at {name}")


class Flooded:
    """A gateway's pipeline whose work is counted."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log = Log()
        self.counts: Counter[str] = Counter()
        tokens.publish_all(home / "jwks.json")
        monkeypatch.setattr(verification, "check_signature", self._counted("signatures", verification.check_signature))
        monkeypatch.setattr(key_source._Keys, "find", self._counted("keys", key_source._Keys.find))
        log: Any = self.log
        never: Any = Never()
        flood = RefusalAggregator(RefusalAggregatorConfig(singly_per_second=SINGLY), lambda: 1)
        self.journal = Journal(log, flood, CallMetrics(GatewayMetricsConfig()))
        self._pipeline = Pipeline(
            journal=self.journal,
            entrance=ConnectionAdmission(10 * CALLS, STRANGERS),
            authenticator=tokens.authenticator(home / "jwks.json", Clock()),
            policy=never,
            catalogue=never,
            limits=never,
            opener=never,
            forwarders=never,
            max_message_bytes=1,
        )

    async def call(self, authorization: str | None) -> str:
        """Why it is refused."""
        never: Any = Never()
        try:
            await self._pipeline.run(Call(GENERATE, "ipv4:192.0.2.1:1", authorization, None), never, never)
        except errors.MeshError as error:
            return error.reason
        raise AssertionError("it was let in")

    async def calls(self, authorization: str | None, number: int = CALLS) -> set[str]:
        """Why so many, one after the other, are refused."""
        return {await self.call(authorization) for _ in range(number)}

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def counting(*arguments: Any) -> Any:
            self.counts[name] += 1
            return function(*arguments)

        return counting


@pytest.fixture
async def flooded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Flooded:
    return Flooded(tmp_path, monkeypatch)


def unsigned(**header: Any) -> str:
    return "Bearer " + tokens.assemble({"alg": "ES256", "kid": "ec", **header}, tokens.claims(), bytes(64))


STRANGE = {
    "no token": (None, "TOKEN_MISSING"),
    "another scheme": ("Basic eDp5", "TOKEN_MISSING"),
    "no token at all": ("Bearer x", "TOKEN_MALFORMED"),
    "a long one": ("Bearer " + "a" * 100_000, "TOKEN_MALFORMED"),
    "another issuer": ("Bearer " + tokens.token(iss="https://other.test"), "TOKEN_ISSUER"),
    "another audience": ("Bearer " + tokens.token(aud="other"), "TOKEN_AUDIENCE"),
    "no algorithm": (unsigned(alg="none"), "TOKEN_ALGORITHM"),
    "a secret's algorithm": (unsigned(alg="HS256"), "TOKEN_ALGORITHM"),
    "a key along with it": (unsigned(jwk=tokens.jwk(tokens.EC_KEY)), "TOKEN_MALFORMED"),
}


@pytest.mark.parametrize("kind", STRANGE)
async def test_no_key_is_looked_for_and_no_signature_checked(flooded: Flooded, kind: str) -> None:
    authorization, reason = STRANGE[kind]
    assert await flooded.calls(authorization) == {reason}
    assert not flooded.counts
    assert flooded.log.counts == {"committed": SINGLY}
    flooded.journal.stop()
    assert (flooded.log.counts["sums"], flooded.log.summed) == (1, CALLS - SINGLY)


async def test_an_unknown_key_costs_a_look_and_no_signature(flooded: Flooded) -> None:
    assert await flooded.calls(unsigned(kid="unknown")) == {"TOKEN_KEY_UNKNOWN"}
    assert flooded.counts == {"keys": CALLS}
    assert flooded.log.counts == {"committed": SINGLY}


async def test_a_forged_signature_is_checked_once_a_call_and_recorded_no_oftener(flooded: Flooded) -> None:
    assert await flooded.calls(unsigned()) == {"TOKEN_SIGNATURE"}
    assert flooded.counts == {"keys": CALLS, "signatures": CALLS}
    assert flooded.log.counts == {"committed": SINGLY}


async def test_when_strangers_fill_their_room_not_even_a_signature_is_checked(flooded: Flooded) -> None:
    """Those inside wait for their records; whoever comes then is turned away unread, and nobody waits for that."""
    flooded.log.open.clear()
    inside = [asyncio.create_task(flooded.call(unsigned())) for _ in range(STRANGERS)]
    await asyncio.sleep(0)
    looked = {"keys": STRANGERS, "signatures": STRANGERS}
    assert flooded.counts == looked
    assert await flooded.calls(unsigned()) == {"OVERLOADED"}
    assert flooded.counts == looked
    assert flooded.log.counts == {"committed": STRANGERS, "left": SINGLY - STRANGERS}
    flooded.log.open.set()
    assert await asyncio.gather(*inside) == ["TOKEN_SIGNATURE"] * STRANGERS
    flooded.journal.stop()
    assert flooded.log.summed == CALLS - (SINGLY - STRANGERS)
