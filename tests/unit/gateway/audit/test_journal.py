"""The journal: the records of a call, field by field, and the waits of a call for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.audit import AuditLog, AuditRecord, ContentHmac, ContentHmacs
from gateway.audit.journal import Journal
from gateway.audit.refusal_aggregator import RefusalAggregator, RefusalAggregatorConfig
from gateway.call import Call
from gateway.metrics.call_metrics import CallMetrics, GatewayMetricsConfig
from gateway.principal import Principal
from meshgate.errors import (
    DeadlineExceeded,
    LimitExceeded,
    MeshError,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)

MOMENT = 1_800_000_000_000_000
STREAM = "/meshgate.v1.SealedService/CallStream"
GENERATE = "/meshgate.v1.GenerationService/GenerateStream"


class Log:
    """Keeps records, by how they were given."""

    def __init__(self) -> None:
        self.group_commit = SimpleNamespace(in_flight=0)
        self.committed: list[AuditRecord] = []
        self.left: list[AuditRecord] = []
        self.enqueued: list[AuditRecord] = []

    async def commit(self, record: AuditRecord) -> None:
        self.committed.append(record)

    def enqueue_nowait(self, record: AuditRecord) -> None:
        self.left.append(record)

    def enqueue(self, record: AuditRecord) -> list[AuditRecord]:
        self.enqueued.append(record)
        return [record]

    async def wait_durable(self, enqueued: list[AuditRecord]) -> None:
        await self.commit(*enqueued)

    def content_hmacs(self) -> ContentHmacs:
        return ContentHmacs(ContentHmac(bytes(32), "request"), ContentHmac(bytes(32), "reply"), "0f" * 8)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def journal(log: Log, monkeypatch: pytest.MonkeyPatch) -> Journal:
    monkeypatch.setattr(time, "time_ns", lambda: MOMENT * 1000)
    return Journal(
        cast(AuditLog, log),
        RefusalAggregator(RefusalAggregatorConfig(), lambda: 0),
        CallMetrics(GatewayMetricsConfig()),
    )


def call(**changes: Any) -> Call:
    """One of which everything is known."""
    principal = Principal("acme", "bob", frozenset(), "aa" * 8, 0, "https://issuer.test")
    known: dict[str, Any] = {
        "method": STREAM,
        "peer": "ipv4:192.0.2.1:9",
        "authorization": None,
        "deadline": None,
        "request_id": "11" * 16,
        "inside": True,
        "principal": principal,
        "target": GENERATE,
        "model": "small",
        "sealing_key_id": "k1",
        "limits": "local",
        "tokens_reserved": 7,
        "bytes_in": 3,
    }
    return Call(**{**known, **changes})


BEGINNING: dict[str, Any] = {
    "time": MOMENT,
    "request_id": "11" * 16,
    "event": "admitted",
    "decision": "allow",
    "tenant": "acme",
    "subject": "bob",
    "token_id": "aa" * 8,
    "issuer": "https://issuer.test",
    "peer": "ipv4:192.0.2.1:9",
    "method": STREAM,
    "target": GENERATE,
    "model": "small",
    "sealing_key_id": "k1",
    "limits": "local",
    "bytes_in": 3,
    "tokens_reserved": 7,
}


def stated(record: AuditRecord) -> dict[str, Any]:
    """The fields that the encoding does not leave out."""
    return {name: value for name, value in record.items() if value}


async def served(journal: Journal, of: Call, error: MeshError | None = None) -> None:
    """A call that is let through, works and ends."""
    journal.began(of)
    journal.admitted(of, streams=False)
    assert of.hmacs is not None
    of.hmacs.request.update(b"asked")
    of.hmacs.reply.update(b"answered")
    of.bytes_out, of.input_tokens, of.output_tokens = 5, 11, 13
    of.stages["forward"] = 17
    if error is None:
        await journal.ended(of)
    else:
        await journal.failed(of, error)


def hmac(direction: Any, message: bytes) -> str:
    mac = ContentHmac(bytes(32), direction)
    mac.update(message)
    return mac.hexdigest()


async def test_the_records_of_a_call_that_is_served(journal: Journal, log: Log) -> None:
    await served(journal, call())
    (admitted,), (ended,) = log.left, log.committed
    assert stated(admitted) == BEGINNING
    assert ended["stages_us"].keys() == {"forward", "end"}
    assert ended["stages_us"]["forward"] == 17
    ending = {
        **BEGINNING,
        "event": "ended",
        "status": "OK",
        "stages_us": ended["stages_us"],
        "bytes_out": 5,
        "input_tokens": 11,
        "output_tokens": 13,
        "request_hmac": hmac("request", b"asked"),
        "reply_hmac": hmac("reply", b"answered"),
        "hmac_key_id": "0f" * 8,
    }
    assert stated(ended) == ending
    assert AuditRecord.__annotations__.keys() - ending.keys() == {"reason"}  # or this test lacks a field


async def test_the_record_of_one_that_fails_says_why(journal: Journal, log: Log) -> None:
    await served(journal, call(), Unavailable("gone", reason="BACKEND_UNAVAILABLE"))
    (ended,) = log.committed
    found = (ended["event"], ended["decision"], ended["reason"], ended["status"], ended["request_hmac"])
    assert found == ("ended", "allow", "BACKEND_UNAVAILABLE", "UNAVAILABLE", hmac("request", b"asked"))


async def test_the_record_of_one_that_is_refused(journal: Journal, log: Log) -> None:
    asked = call(tokens_reserved=0)
    journal.began(asked)
    await journal.failed(asked, PermissionDenied("no", reason="MODEL_NOT_ALLOWED"))
    (refused,) = log.committed
    expected = {
        **BEGINNING,
        "event": "refused",
        "decision": "deny",
        "reason": "MODEL_NOT_ALLOWED",
        "status": "PERMISSION_DENIED",
        "stages_us": refused["stages_us"],
    }
    del expected["tokens_reserved"]
    assert stated(refused) == expected
    assert refused["stages_us"].keys() == {"end"}


async def test_the_record_of_a_stranger(journal: Journal, log: Log) -> None:
    asked = Call(method=GENERATE, peer="ipv4:192.0.2.1:9", authorization=None, deadline=None, request_id="11" * 16)
    journal.began(asked)
    await journal.failed(asked, Unauthenticated("who", reason="TOKEN_MISSING"))
    (refused,) = log.left
    assert stated(refused) == {
        "time": MOMENT,
        "request_id": "11" * 16,
        "event": "refused",
        "decision": "deny",
        "reason": "TOKEN_MISSING",
        "status": "UNAUTHENTICATED",
        "peer": "ipv4:192.0.2.1:9",
        "method": GENERATE,
        "stages_us": refused["stages_us"],
    }


async def test_where_replies_stream_the_beginning_is_waited_for(journal: Journal, log: Log) -> None:
    recorded: Callable[[], Awaitable[None]] | None = journal.admitted(call(), streams=True)
    assert ([*map(stated, log.enqueued)], log.left, log.committed) == ([BEGINNING], [], [])
    assert recorded is not None
    await recorded()
    assert log.committed == log.enqueued
    assert journal.admitted(call(), streams=False) is None


async def test_who_was_told_that_nothing_can_be_recorded_does_not_wait_again(journal: Journal, log: Log) -> None:
    await served(journal, call(), Unavailable("no", reason="AUDIT_UNAVAILABLE"))
    assert log.committed == []
    assert [(record["event"], record["reason"]) for record in log.left] == [
        ("admitted", ""),
        ("ended", "AUDIT_UNAVAILABLE"),
    ]


@pytest.mark.parametrize(("deadline", "status"), [(None, "CANCELLED"), (1e9, "CANCELLED"), (0.0, "DEADLINE_EXCEEDED")])
async def test_a_call_cancelled_at_its_deadline_is_late(
    journal: Journal, log: Log, deadline: float | None, status: str
) -> None:
    asked = call(deadline=deadline)
    journal.began(asked)
    await journal.failed(asked, asyncio.CancelledError())
    assert (log.committed, [(record["status"], record["reason"]) for record in log.left]) == ([], [(status, status)])


ERRORS = [
    Unauthenticated("no", reason="TOKEN_MISSING"),
    PermissionDenied("no", reason="SCOPE_MISSING"),
    LimitExceeded("no", reason="RATE_LIMITED"),
    Unavailable("no", reason="BACKEND_UNAVAILABLE"),
    ValueError("a defect"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("admitted", [True, False])
@pytest.mark.parametrize("known", [True, False])
async def test_an_error_after_the_deadline_has_the_status_that_the_caller_is_told(
    journal: Journal, log: Log, error: Exception, admitted: bool, known: bool
) -> None:
    """gRPC ends such a call by itself. Why it was refused stays on record."""
    late = call(deadline=time.monotonic() - 1, admitted=admitted, **({} if known else {"principal": None}))
    journal.began(late)
    with pytest.raises(DeadlineExceeded):
        await journal.failed(late, error)
    (record,) = log.committed
    assert (record["status"], record["reason"]) == ("DEADLINE_EXCEEDED", getattr(error, "reason", "INTERNAL"))
