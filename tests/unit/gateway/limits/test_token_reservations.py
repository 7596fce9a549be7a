"""Tokens are reserved by a bound before the work, settled by usage after it, and kept where usage is unknown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.call import Call
from gateway.limits import Reservation, gcra
from gateway.limits.config import LimitsConfig
from gateway.limits.gcra import SECOND
from gateway.limits.memory_store import MemoryStore
from gateway.limits.plan import ConcurrencyLimit, Plans
from gateway.limits.store import Grant, Refusal
from meshgate import errors
from meshgate.v1 import classification_pb2, embedding_pb2, generation_pb2
from tests.support.fixtures.limits import Clock, Stage, caller, generate, wanted

EMBED = "/meshgate.v1.EmbeddingService/Embed"
EMBED_STREAM = "/meshgate.v1.EmbeddingService/EmbedStream"
CLASSIFY_STREAM = "/meshgate.v1.ClassificationService/ClassifyStream"


def stage(tokens: int, **more: Any) -> Stage:
    """A budget of so many tokens a minute and at once."""
    return Stage({"principal": {"tokens_per_minute": tokens, **more}})


async def test_what_a_call_did_not_take_comes_back() -> None:
    budget = stage(1000)
    for _ in range(9):
        await budget.once(asked=generate(max_output_tokens=100), used=100)
    reservation, call = await budget.begin(asked=generate(max_output_tokens=200))
    assert reservation.tokens == 100
    assert call.token_cap == 100


async def test_a_call_without_usage_keeps_its_reservation() -> None:
    budget = stage(1000)
    reservation, call = await budget.begin(asked=generate(max_output_tokens=100))
    budget.limits.settle(reservation, call)
    assert int(dict(call.trailers)["x-meshgate-remaining-tokens"]) == 1000 - reservation.tokens


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (errors.InvalidArgument("no"), False),
        (errors.NotFound("no"), False),
        (errors.Unavailable("full", reason="OVERLOADED"), False),
        (errors.Unavailable("soon", reason="STARTING"), False),
        (errors.Unavailable("gone", reason="BACKEND_UNAVAILABLE"), True),
        (errors.Unavailable("stopping", reason="DRAINING"), True),
        (errors.DeadlineExceeded("late"), True),
        (errors.Internal("broken"), True),
        (TimeoutError(), True),
        (KeyboardInterrupt(), True),
    ],
)
async def test_a_failed_call_is_kept_unless_nothing_was_begun(error: BaseException, kept: bool) -> None:
    budget = stage(1000)
    reservation, call = await budget.begin(asked=generate(max_output_tokens=100))
    budget.limits.abandon(reservation, call, error)
    after = await budget.once(used=1)
    assert int(dict(after.trailers)["x-meshgate-remaining-tokens"]) == 999 - (reservation.tokens if kept else 0)


async def test_a_refusal_after_the_first_byte_is_kept() -> None:
    budget = stage(1000)
    reservation, call = await budget.begin(asked=generate(max_output_tokens=100))
    call.bytes_out = 1
    budget.limits.abandon(reservation, call, errors.InvalidArgument("no"))
    after = await budget.once(used=1)
    assert int(dict(after.trailers)["x-meshgate-remaining-tokens"]) == 999 - reservation.tokens


async def test_what_was_overdrawn_is_owed() -> None:
    budget = stage(1000)
    await budget.once(asked=generate(max_output_tokens=100), used=2000)
    error = await budget.refused(asked=generate(prompt="x", max_output_tokens=1))
    assert error.reason == "TOKENS_EXHAUSTED"
    assert error.limit == "tokens_per_minute"
    assert (error.retry_after or 0) > 60


async def test_a_refusal_says_when_and_is_right() -> None:
    budget = stage(600)
    await budget.once(asked=generate(max_output_tokens=200), used=600)
    asked = generate(prompt="x" * 50, max_output_tokens=100)
    error = await budget.refused(asked=asked)
    budget.clock.now += int((error.retry_after or 0) * SECOND) - SECOND // 1000
    await budget.refused(asked=asked)
    budget.clock.now += SECOND // 1000
    reservation, _ = await budget.begin(asked=asked)
    assert len(asked.first) + 4 + 16 <= reservation.tokens < len(asked.first) + 4 + 100


async def test_less_than_is_useful_is_refused_and_charged_nothing() -> None:
    budget = stage(1000, requests_per_second=1, burst=2)
    await budget.once(asked=generate(max_output_tokens=200), used=985)
    for _ in range(5):
        assert (await budget.refused(asked=generate(max_output_tokens=100))).reason == "TOKENS_EXHAUSTED"
    budget.clock.now += SECOND
    await budget.once(used=5)


async def test_an_input_longer_than_the_whole_budget_gets_all_of_it() -> None:
    budget = stage(100)
    reservation, call = await budget.begin(asked=generate(prompt="x" * 5000))
    assert reservation.tokens == call.token_cap == 100


async def test_numbers_out_of_any_range_reserve_all_there_is_and_no_more() -> None:
    budget = stage(100)
    asked = generate(max_output_tokens=2**32 - 1, candidate_count=2**32 - 1)
    reservation, call = await budget.begin(asked=asked, model="unheard of")
    assert reservation.tokens == call.token_cap == 100


async def test_counting_costs_the_tokens_that_were_counted() -> None:
    budget = stage(100)
    asked = wanted(generation_pb2.CountTokensRequest(prompt="x" * 36), "/meshgate.v1.GenerationService/CountTokens")
    for left in (90, 80, 70):
        call = await budget.once(asked=asked, used=10)
        assert 40 <= call.tokens_reserved == call.token_cap <= 50
        assert dict(call.trailers)["x-meshgate-remaining-tokens"] == str(left)


async def test_counting_a_text_is_refused_where_its_size_is_not_left() -> None:
    budget = stage(100)
    await budget.begin(asked=generate(prompt="x" * 60, max_output_tokens=10))
    asked = wanted(generation_pb2.CountTokensRequest(prompt="x" * 90), "/meshgate.v1.GenerationService/CountTokens")
    with pytest.raises(errors.LimitExceeded) as refused:
        await budget.begin(asked=asked)
    assert refused.value.reason == "TOKENS_EXHAUSTED"


async def test_without_a_token_limit_no_cap_travels() -> None:
    call = await Stage({}).once()
    assert (call.tokens_reserved, call.token_cap) == (0, 0)


def embed(*texts: str, stream: bool = True) -> Any:
    request = embedding_pb2.EmbedRequest(inputs=texts)
    return wanted(embedding_pb2.EmbedStreamRequest(request=request), EMBED_STREAM) if stream else wanted(request, EMBED)


async def test_every_message_of_a_stream_is_charged() -> None:
    budget = Stage({"principal": {"tokens_per_minute": 10_000}, "stream_wait_seconds": 0})
    first = embed("word " * 10)
    reservation, call = await budget.begin(asked=first, model="encoder")
    sent = 0
    with pytest.raises(errors.LimitExceeded) as caught:
        while sent < 1_000_000:
            await reservation.more(call, first.first)
            sent += 1
    assert caught.value.reason == "TOKENS_EXHAUSTED"
    assert 10_000 // 64 - 2 <= sent <= 10_000 // len("word " * 10)
    assert call.tokens_reserved == reservation.tokens <= 10_000
    assert call.token_cap == 0  # it grows, so the service is told none
    budget.limits.abandon(reservation, call, caught.value)


async def test_a_stream_waits_for_its_tokens() -> None:
    budget = Stage({"principal": {"tokens_per_minute": 6000, "token_burst": 1000}, "stream_wait_seconds": 5})
    first = embed("x" * 100)
    reservation, call = await budget.begin(asked=first, model="encoder")
    for _ in range(200):
        await reservation.more(call, first.first)
    cost = 64  # the model's limit
    assert budget.clock.now >= (201 * cost - 1000) * SECOND // 100
    call.input_tokens = 100
    budget.limits.settle(reservation, call)
    assert int(dict(call.trailers)["x-meshgate-remaining-tokens"]) == 1000


async def test_a_stream_waits_no_longer_than_its_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Stage({"principal": {"tokens_per_minute": 60, "token_burst": 100}, "stream_wait_seconds": 3600})
    first = embed("x" * 100)
    reservation, call = await budget.begin(asked=first, model="encoder")
    monkeypatch.setattr(Call, "remaining", lambda _self, _reserve=0.0: 10.0)
    with pytest.raises(errors.LimitExceeded) as caught:
        for _ in range(5):
            await reservation.more(call, first.first)
    assert (caught.value.retry_after or 0) > 10


async def test_labels_are_charged_with_every_message() -> None:
    budget = stage(1_000_000)
    labels = [classification_pb2.CandidateLabel(name=f"label-{number}") for number in range(10)]
    request = classification_pb2.ClassifyRequest(
        inputs=[classification_pb2.ClassificationInput(text="hello")],
        candidate_labels=classification_pb2.CandidateLabels(labels=labels),
    )
    first = wanted(classification_pb2.ClassifyStreamRequest(request=request), CLASSIFY_STREAM)
    later = classification_pb2.ClassifyStreamRequest(
        request=classification_pb2.ClassifyRequest(inputs=request.inputs)
    ).SerializeToString()
    reservation, _ = await budget.begin(asked=first, model="encoder")
    ask = budget.limits.costs.later(later, first, "encoder")
    assert ask >= sum(len(label.name) for label in labels) + len("hello")
    assert abs(ask - reservation.tokens) <= 16


Step = tuple[str, int, int, int]
steps = st.lists(
    st.tuples(st.sampled_from(["take", "settle", "wait"]), st.integers(0, 30), st.integers(0, 30), st.integers(0, 9)),
    max_size=80,
)
CONFIG = {
    "total": {"tokens_per_minute": 60, "token_burst": 60},
    "tenant": {"tokens_per_minute": 30, "token_burst": 40, "requests_per_second": 1, "burst": 20},
    "principal": {"tokens_per_minute": 20, "token_burst": 30, "concurrent_calls": 3},
}


@given(steps=steps)
async def test_no_bucket_ever_admits_more_than_rate_times_time_plus_burst(steps: list[Step]) -> None:
    """Whatever is taken from `least` to `cost`, and whatever part of it comes back, at any time."""
    clock = Clock()
    store = MemoryStore(clock)
    plans = Plans(LimitsConfig.model_validate(CONFIG))
    open_grants: list[Grant] = []
    held: dict[str, int] = {}
    for kind, first, second, which in steps:
        plan = plans.of("acme", "abc"[which % 3], "", streams=False)
        if kind == "wait":
            clock.now += first * SECOND
        elif kind == "take":
            answer = await store.take(plan, min(first, second), max(first, second))
            if isinstance(answer, Grant):
                assert min(first, second) <= answer.tokens <= max(first, second)
                open_grants.append(answer)
                for bucket in plan.tokens:
                    held[bucket.key] = held.get(bucket.key, 0) + answer.tokens
            else:
                assert_true_wait(store, clock, answer, min(first, second))
        elif open_grants:
            grant = open_grants.pop(which % len(open_grants))
            unused = min(first, grant.tokens)
            store.settle(grant, unused)
            for bucket in grant.plan.tokens:
                held[bucket.key] -= unused
        for bucket in plan.tokens:
            limit = bucket.limit
            assert held.get(bucket.key, 0) * limit.interval <= clock.now + limit.capacity


def assert_true_wait(store: MemoryStore, clock: Clock, refusal: Refusal, least: int) -> None:
    """The bucket that is named has room after the wait, and not before; a place that is named is taken."""
    limit = getattr(refusal.by, "limit", None)
    if limit is None or refusal.wait is None:
        assert isinstance(refusal.by, ConcurrencyLimit)
        assert refusal.wait is None
        assert store._taken[refusal.by.key] == refusal.by.maximum
        return
    units = 1 if refusal.by.name == "requests_per_second" else least
    tat = store._tats[refusal.by.key]
    assert gcra.wait(gcra.room(tat, clock.now + refusal.wait, limit), limit, units) == 0
    assert gcra.wait(gcra.room(tat, clock.now + refusal.wait - 1, limit), limit, units) == 1


async def test_places_come_back_one_by_one() -> None:
    budget = Stage({"principal": {"concurrent_streams": 1}})
    streamed = embed("x")
    first: tuple[Reservation, Call] = await budget.begin(caller(), streamed, "encoder")
    assert (await budget.refused(caller(), streamed, "encoder")).limit == "concurrent_streams"
    await budget.once(caller(), embed("x", stream=False), "encoder")
    budget.limits.abandon(*first, KeyboardInterrupt())
    await budget.begin(caller(), streamed, "encoder")
