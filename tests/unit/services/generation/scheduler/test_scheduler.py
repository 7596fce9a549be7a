"""Continuous batching: who joins, who leaves, who waits, and that nobody pays for another."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshgate.errors import Unavailable
from services.generation.engine.interface import Delta, FinishReason, Priority
from services.generation.scheduler.fair_queue import INTERACTIVE_STREAK, VirtualTokenCounter
from services.generation.scheduler.sequence import GenerationRequest
from tests.support.fixtures.generation import BROKEN, POISON, Bench, Clock, Heard, greedy

LENGTH, STOP, BUDGET, CANCELLED = (
    FinishReason.LENGTH,
    FinishReason.STOP,
    FinishReason.BUDGET,
    FinishReason.CANCELLED,
)


@settings(deadline=None)
@given(
    jobs=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 12), st.integers(1, 3)), min_size=1, max_size=8),
    rows=st.integers(1, 4),
    piece=st.integers(1, 40),
)
def test_every_job_gets_its_own_text_whatever_runs_beside_it(
    jobs: list[tuple[int, int, int]], rows: int, piece: int
) -> None:
    bench = Bench(rows=rows, prefill_tokens=piece)
    heard = [bench.add(greedy(range(1, size + 1), most, candidates=count))[1] for size, most, count in jobs]
    bench.run()
    for (size, most, count), one in zip(jobs, heard, strict=True):
        assert one.tokens == {index: list(range(size + 1, size + 1 + most)) for index in range(count)}
        assert {end.reason for end in one.finish.values()} == {LENGTH}


def test_sequences_join_and_leave_at_every_step() -> None:
    bench = Bench()
    _, first = bench.add(greedy("a", 4))
    bench.scheduler.step()
    _, second = bench.add(greedy("q", 2))
    bench.run()
    assert [len(batch) for batch in bench.model.batches] == [1, 2, 1]
    assert (first.text[0], second.text[0]) == ("bcde", "rs")


def test_a_prompt_is_read_once_for_all_its_candidates() -> None:
    bench = Bench(rows=2)
    _, heard = bench.add(greedy("abc", 3, candidates=5))
    bench.run()
    assert bench.model.reads == [[97, 98, 99]]
    assert heard.text == dict.fromkeys(range(5), "def")


def test_a_long_prompt_does_not_stop_the_others() -> None:
    bench = Bench(prefill_tokens=4)
    _, short = bench.add(greedy("a", 20))
    bench.scheduler.step()
    bench.add(greedy("x" * 12, 1))
    before = len(short.tokens[0])
    for _ in range(3):
        bench.scheduler.step()
    assert len(short.tokens[0]) == before + 3
    assert bench.model.reads[1:] == [[120] * 4] * 3


def test_a_cancelled_one_leaves_within_one_step_and_harms_no_neighbour() -> None:
    bench = Bench()
    _, left = bench.add(greedy("a", 10))
    gone, heard = bench.add(greedy("h", 10))
    _, right = bench.add(greedy("p", 10))
    bench.scheduler.step()
    gone.cancel()
    bench.scheduler.step()
    assert heard.finish[0].reason is CANCELLED
    assert len(bench.model.batches[-1]) == 2
    bench.run()
    assert (left.text[0], right.text[0]) == ("bcdefghijk", "qrstuvwxyz")


def test_the_cancelled_leave_the_queue_and_what_is_being_read() -> None:
    bench = Bench(rows=1, prefill_tokens=2)
    reading, first = bench.add(greedy("aaaaaa", 3))
    waiting, second = bench.add(greedy("b", 3, candidates=2))
    bench.scheduler.step()
    reading.cancel()
    waiting.cancel()
    bench.scheduler.step()
    assert bench.scheduler.idle()
    assert first.finish[0].reason is CANCELLED
    assert {index: end.reason for index, end in second.finish.items()} == {0: CANCELLED, 1: CANCELLED}
    assert bench.model.batches == []


def test_a_deadline_ends_work_and_keeps_what_was_made() -> None:
    bench = Bench()
    _, heard = bench.add(greedy("a", 50, deadline=10.0))
    bench.scheduler.step()
    bench.scheduler.step()
    bench.clock.now = 10.0
    bench.scheduler.step()
    assert (heard.text[0], heard.finish[0].reason) == ("bc", CANCELLED)
    assert bench.scheduler.idle()


class Timed(Heard):
    """Remembers when a job ended."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.ended = 0.0

    def deltas(self, deltas: Sequence[Delta]) -> None:
        super().deltas(deltas)
        self.ended = self._clock.now


def slow(bench: Bench, decode: float, read: float) -> None:
    """The model takes so long for each decode and each piece of a prompt."""
    model: Any = bench.model
    decoding, reading = model.decode, model.prefill

    def slow_decode(*arguments: Any) -> Any:
        bench.clock.now += decode
        return decoding(*arguments)

    def slow_read(*arguments: Any) -> Any:
        bench.clock.now += read
        return reading(*arguments)

    model.decode, model.prefill = slow_decode, slow_read


@settings(deadline=None)
@given(decode=st.floats(0.01, 2), read=st.floats(0.01, 2), spare=st.floats(0, 3), others=st.booleans())
def test_whoever_has_tokens_is_told_of_them_before_its_deadline(
    decode: float, read: float, spare: float, others: bool
) -> None:
    """Once steps have been measured. A second prompt is read while the first call is near its end."""
    bench = Bench(context=256, prefill_tokens=2)
    slow(bench, decode, read)
    bench.model.stride = 0  # an answer without an end
    bench.add(greedy("ab", 3))
    bench.run()  # what steps take is known
    heard, deadline = Timed(bench.clock), bench.clock.now + 3 * (decode + read) + spare
    request = GenerationRequest(greedy("a", 100, deadline=deadline), heard, bench.clock.now)
    bench.scheduler.add(request)
    if others:
        bench.add(greedy("cdefghij", 3))
    while 0 not in heard.finish:
        bench.scheduler.step()
    assert heard.finish[0].reason in (CANCELLED, FinishReason.LENGTH)
    assert heard.tokens[0]
    assert heard.ended <= deadline + 1e-9


def test_who_has_no_token_yet_is_not_ended_early() -> None:
    bench = Bench()
    slow(bench, 1.0, 1.0)
    bench.add(greedy("ab", 3))
    bench.run()
    heard = Timed(bench.clock)
    bench.scheduler.add(GenerationRequest(greedy("a", 100, deadline=bench.clock.now + 0.5), heard, bench.clock.now))
    bench.run()
    assert heard.tokens[0] == [ord("b")]
    assert heard.finish[0].reason is CANCELLED


def test_a_row_that_fails_fails_alone_and_is_wiped() -> None:
    bench = Bench()
    _, left = bench.add(greedy("a", 6))
    _, broken = bench.add(greedy([POISON - 2], 6))
    _, right = bench.add(greedy("p", 6))
    bench.run()
    assert broken.error is not None
    assert broken.error.message == "generation failed"
    assert bench.model.wiped == [1]
    assert (left.text[0], right.text[0]) == ("bcdefg", "qrstuv")


def test_a_prompt_that_fails_fails_alone() -> None:
    bench = Bench()
    _, left = bench.add(greedy("a", 6))
    _, broken = bench.add(greedy([5, BROKEN], 6))
    _, right = bench.add(greedy("p", 6))
    bench.run()
    assert broken.error is not None
    assert (left.text[0], right.text[0]) == ("bcdefg", "qrstuv")


def test_prompts_that_fail_one_after_another_mean_that_the_model_is_broken() -> None:
    bench = Bench()
    bench.model.read_fault = ValueError("x")
    heard = [bench.add(greedy("a"))[1] for _ in range(4)]
    with pytest.raises(ValueError, match="x"):
        bench.run()
    bench.scheduler.fail(Unavailable("gone"))
    assert [isinstance(one.error, Unavailable) for one in heard] == [False] * 3 + [True]


def test_a_listener_that_raises_loses_its_own_job_alone() -> None:
    bench = Bench()
    deaf, heard = bench.add(greedy("a", 6))
    heard.deltas = lambda deltas: 1 / 0  # type: ignore[method-assign, assignment]
    _, other = bench.add(greedy("p", 3))
    bench.run()
    assert other.text[0] == "qrs"
    assert deaf.finish_reason(0.0) is CANCELLED


@settings(deadline=None)
@given(
    cap=st.integers(3, 40),
    candidates=st.integers(1, 6),
    most=st.integers(1, 12),
    rows=st.integers(1, 4),
)
def test_the_cap_is_never_exceeded_and_never_wasted(cap: int, candidates: int, most: int, rows: int) -> None:
    bench = Bench(rows=rows)
    _, heard = bench.add(greedy("abc", most, candidates=candidates, token_cap=cap))
    bench.run()
    made = sum(map(len, heard.tokens.values()))
    assert made == min(cap - 3, candidates * most)
    assert len(heard.finish) == candidates
    whole = [len(heard.tokens.get(index, [])) == most for index in range(candidates)]
    ends = [heard.finish[index].reason for index in range(candidates)]
    assert all(end is (LENGTH if done else BUDGET) for end, done in zip(ends, whole, strict=True))


def test_a_spent_cap_frees_the_rows_at_the_next_step() -> None:
    bench = Bench()
    bench.add(greedy("abc", 50, candidates=2, token_cap=7))
    bench.run()
    assert len(bench.model.batches) == 1


def test_the_context_is_a_length_too() -> None:
    bench = Bench(context=10)
    _, heard = bench.add(greedy("abcdefg", 50))
    bench.run()
    assert (heard.text[0], heard.finish[0].reason) == ("hij", LENGTH)


def test_the_end_token_is_counted_and_has_no_text() -> None:
    bench = Bench(end=ord("e"))
    _, heard = bench.add(greedy("abc", 50))
    bench.run()
    assert heard.tokens[0] == [100, 101]
    assert heard.text[0] == "d"
    assert (heard.finish[0].reason, heard.finish[0].stop_matched) == (STOP, "")


def test_a_stop_sequence_across_tokens_is_cut_and_its_tokens_reported() -> None:
    bench = Bench()
    _, heard = bench.add(greedy("a", 50, stop=("ef", "xyz")))
    bench.run()
    assert heard.text[0] == "bcd"
    assert heard.tokens[0] == [98, 99, 100, 101, 102]
    assert (heard.finish[0].reason, heard.finish[0].stop_matched) == (STOP, "ef")
    assert [delta.text for step in heard.steps for delta in step] == ["b", "c", "d", "", ""]


def test_text_held_back_comes_with_the_end() -> None:
    bench = Bench()
    _, heard = bench.add(greedy("a", 3, stop=("cdX",)))
    bench.run()
    assert heard.text[0] == "bcd"


def order_of(bench: Bench, *jobs: tuple[str, dict[str, Any]]) -> list[str]:
    """The names of jobs in the order of their ends, all put in at once."""
    order: list[str] = []
    for name, fields in jobs:
        _, heard = bench.add(greedy("a", **{"most": 1, **fields}))
        heard.deltas = partial(lambda name, deltas: order.append(name), name)  # type: ignore[method-assign]
    bench.run()
    return order


def test_interactive_calls_pass_batch_calls_but_not_for_ever() -> None:
    batch = ("batch", {"priority": Priority.BATCH})
    order = order_of(Bench(rows=1), batch, *[("call", {})] * (INTERACTIVE_STREAK + 3))
    assert order == ["call"] * INTERACTIVE_STREAK + ["batch"] + ["call"] * 3


def test_a_flood_of_one_tenant_delays_anothers_single_call_by_its_share() -> None:
    flood = [("flood", {"tenant": "loud"})] * 100
    order = order_of(Bench(rows=1), *flood, ("single", {"tenant": "quiet"}))
    assert order.index("single") <= 1


def test_two_that_flood_get_as_many_tokens_each_and_not_as_many_calls() -> None:
    bench, order = Bench(rows=1), list[str]()

    def add(name: str, most: int) -> None:
        _, heard = bench.add(greedy("a", most, tenant=name))
        heard.deltas = lambda deltas: order.extend(name for delta in deltas if delta.finish)  # type: ignore[method-assign]

    for _ in range(20):
        add("long", 9)
    for _ in range(100):
        add("short", 1)  # a prompt of one and an answer of one, against ten
    bench.run()
    first = order[:48]
    assert abs(first.count("long") * 10 - first.count("short") * 2) <= 10


def test_who_was_idle_has_saved_nothing_up() -> None:
    bench = Bench(rows=1)
    bench.add(greedy("a", 1, tenant="b"))
    bench.run()
    flood = [("a", {"tenant": "a"})] * 20
    order_of(bench, *flood)
    order = order_of(bench, *flood, *[("b", {"tenant": "b"})] * 20)
    assert abs(order[:10].count("a") - 5) <= 1


def test_a_row_is_kept_for_who_has_none() -> None:
    bench = Bench(rows=3, reserved_rows=1)
    for _ in range(5):
        bench.add(greedy("a", 20, tenant="loud"))
    for _ in range(2):
        bench.scheduler.step()
    assert len(bench.model.batches[-1]) == 2
    _, heard = bench.add(greedy("p", 3, tenant="quiet"))
    bench.scheduler.step()
    assert heard.text[0] == "q", "the first token in the very next step"
    bench.run()


def test_batch_traffic_leaves_a_row_to_interactive_calls() -> None:
    bench = Bench(rows=2, reserved_rows=1)
    for _ in range(3):
        bench.add(greedy("a", 20, priority=Priority.BATCH))
    bench.scheduler.step()
    bench.scheduler.step()
    assert len(bench.model.batches[-1]) == 1
    _, heard = bench.add(greedy("p", 3))
    bench.scheduler.step()
    assert heard.text[0] == "q"
    bench.run()


def test_candidates_that_wait_for_rows_let_another_tenant_pass() -> None:
    bench = Bench(rows=3, reserved_rows=1)
    _, many = bench.add(greedy("abc", 6, candidates=9, tenant="loud"))
    bench.scheduler.step()
    _, single = bench.add(greedy("p", 2, tenant="quiet"))
    bench.scheduler.step()
    assert single.text[0] == "q"
    bench.run()
    assert many.text == dict.fromkeys(range(9), "defghi")
    assert bench.model.reads.count([97, 98, 99]) == 1


def test_a_prompt_that_a_candidate_still_has_is_not_read_again() -> None:
    bench = Bench(rows=3, reserved_rows=1)
    bench.add(greedy("x", 3, tenant="loud"))
    _, two = bench.add(greedy("abc", 9, candidates=2, tenant="loud"))
    bench.scheduler.step()
    bench.add(greedy("p", 1, tenant="quiet"))
    bench.run()
    assert two.text == dict.fromkeys(range(2), "defghijkl")
    assert bench.model.reads == [[120], [97, 98, 99], [112]]


@settings(deadline=None)
@given(
    jobs=st.lists(
        st.tuples(
            st.integers(1, 30), st.integers(1, 12), st.integers(1, 3), st.integers(0, 2), st.sampled_from(Priority)
        ),
        min_size=1,
        max_size=10,
    ),
    rows=st.integers(1, 5),
    reserved_rows=st.integers(0, 2),
    piece=st.integers(1, 40),
    gone=st.integers(0, 30),
)
def test_every_row_holds_one_calls_text_whoever_joins_and_leaves(
    jobs: list[tuple[int, int, int, int, Priority]], rows: int, reserved_rows: int, piece: int, gone: int
) -> None:
    """Each call counts on from a number of its own: a row that holds a piece of another's does not count."""
    bench = Bench(rows=rows, prefill_tokens=piece, reserved_rows=reserved_rows)
    asked = []
    for base, (size, most, count, tenant, priority) in enumerate(jobs, 1):
        prompt = range(base, base + size)
        asked.append(
            bench.add(greedy(prompt, most, candidates=count, tenant=f"{tenant}", priority=priority, stop=("\x7f",)))
        )
    for number in range(1000):  # more than ten of the longest one after the other
        if number == gone:
            asked[0][0].cancel()
        bench.scheduler.step()
        if number > gone and bench.scheduler.idle():
            break
    assert bench.scheduler.idle()
    for batch in bench.model.batches:
        for row in batch:
            assert row == list(range(row[0], row[0] + len(row)))
    for base, ((size, most, count, *_), (_, heard)) in enumerate(zip(jobs, asked, strict=True), 1):
        assert len(heard.finish) == count
        whole = list(range(base + size, base + size + most))
        for index in range(count):
            made = heard.tokens.get(index, [])
            assert made == whole if heard.finish[index].reason is LENGTH else made == whole[: len(made)]


@pytest.mark.parametrize("first", [Priority.INTERACTIVE, Priority.BATCH])
def test_a_long_prompt_delays_anothers_short_one_by_a_step_or_two(first: Priority) -> None:
    bench = Bench(rows=4, context=2000, prefill_tokens=10)
    _, long = bench.add(greedy([7] * 1000, 2, tenant="a", priority=first))
    for _ in range(5):
        bench.scheduler.step()
    _, short = bench.add(greedy("p", 3, tenant="b"))
    for _ in range(2):
        bench.scheduler.step()
    assert short.text[0][0] == "q"
    assert not long.text
    bench.run()
    assert long.tokens[0] == [8, 9]


def test_who_floods_with_short_prompts_does_not_keep_a_long_one_from_being_read() -> None:
    bench = Bench(rows=4, context=2000, prefill_tokens=10)
    _, long = bench.add(greedy([7] * 200, 1, tenant="a"))
    _, batch = bench.add(greedy([7] * 50, 1, tenant="b", priority=Priority.BATCH))
    for _ in range(500):
        bench.add(greedy([9] * 9, 1, tenant="c"))
    for _ in range(60):
        bench.scheduler.step()
    assert long.finish, "half of what is read is its own"
    assert batch.finish, "a ninth of it is"
    bench.run()


def test_long_prompts_of_two_tenants_are_read_by_turns() -> None:
    bench = Bench(rows=4, prefill_tokens=4)
    bench.add(greedy([1] * 12, 1, tenant="a"))
    bench.add(greedy([2] * 12, 1, tenant="b"))
    bench.run()
    assert [piece[0] for piece in bench.model.reads] == [1, 2, 1, 2, 1, 2]


def test_a_short_prompt_is_read_where_it_runs_and_a_long_one_out_of_its_way() -> None:
    bench = Bench(rows=4, prefill_tokens=4)
    bench.add(greedy([1] * 40, 1, tenant="a"))
    bench.scheduler.step()
    for _ in range(3):
        bench.add(greedy("p", 2, tenant="b"))
        bench.scheduler.step()
        bench.scheduler.step()
    assert bench.model.copies == []
    bench.run()
    assert bench.model.copies == [(3, 0, 40)]


def test_a_prompt_in_the_way_steps_aside_even_where_all_rows_are_taken() -> None:
    bench = Bench(rows=2, prefill_tokens=4)
    _, first = bench.add(greedy([1] * 9, 20, tenant="a"))
    _, second = bench.add(greedy([2] * 40, 3, tenant="b"))
    bench.run()
    spare = bench.model.spare
    assert bench.model.copies[:3] == [(0, spare, 8), (1, 0, 9), (spare, 1, 8)]
    assert (first.tokens[0], second.tokens[0]) == (list(range(2, 22)), [3, 4, 5])
    rows = [row for batch in bench.model.batches for row in batch]
    assert all(row[:9] == [1] * 9 or row[:40] == [2] * 40 for row in rows)


def test_more_tenants_than_are_remembered_all_get_their_turn_and_are_forgotten() -> None:
    bench = Bench(rows=1)
    heard = [bench.add(greedy("a", 1, tenant=str(number)))[1] for number in range(3000)]
    bench.run()
    assert all(one.text == {0: "b"} for one in heard)
    bench.add(greedy("a", 1, tenant="last"))
    assert len(bench.scheduler._queue._served) <= 1025
    bench.run()


def test_who_is_put_back_is_not_charged_twice_and_batch_traffic_keeps_its_turn() -> None:
    queue = VirtualTokenCounter()
    for priority in Priority:
        queue.add(GenerationRequest(greedy("abcd", priority=priority, tenant="a"), Heard(), 0.0))
    first = queue.next()
    assert first is not None
    for _ in range(3):
        queue.put_back(first)
        assert queue.next() is first
    assert queue._served["a"] == 4
    batch = queue.next()
    assert batch is not None
    queue.put_back(batch)
    queue.add(GenerationRequest(greedy("x", tenant="b"), Heard(), 0.0))
    assert queue.next() is batch


def test_fail_tells_everyone_once() -> None:
    bench = Bench(rows=1, prefill_tokens=2)
    heard = [bench.add(greedy("aa", 9, candidates=2))[1], bench.add(greedy("b"))[1]]
    bench.scheduler.step()
    bench.scheduler.fail(Unavailable("gone"))
    assert all(isinstance(one.error, Unavailable) for one in heard)
    assert bench.scheduler.idle()
