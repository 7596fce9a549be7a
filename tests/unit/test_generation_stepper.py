"""Continuous batching: who joins, who leaves, who waits, and that nobody pays for another."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from meshgate.errors import Unavailable
from services.generation.engine import FinishReason, Priority
from services.generation.stepper import BATCH_HANDICAP_SECONDS
from tests.generation_doubles import BROKEN, POISON, Bench, greedy

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
    bench.stepper.step()
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
    bench.stepper.step()
    bench.add(greedy("x" * 12, 1))
    before = len(short.tokens[0])
    for _ in range(3):
        bench.stepper.step()
    assert len(short.tokens[0]) == before + 3
    assert bench.model.reads[1:] == [[120] * 4] * 3


def test_a_cancelled_one_leaves_within_one_step_and_harms_no_neighbour() -> None:
    bench = Bench()
    _, left = bench.add(greedy("a", 10))
    gone, heard = bench.add(greedy("h", 10))
    _, right = bench.add(greedy("p", 10))
    bench.stepper.step()
    gone.cancel()
    bench.stepper.step()
    assert heard.finish[0].reason is CANCELLED
    assert len(bench.model.batches[-1]) == 2
    bench.run()
    assert (left.text[0], right.text[0]) == ("bcdefghijk", "qrstuvwxyz")


def test_the_cancelled_leave_the_queue_and_what_is_being_read() -> None:
    bench = Bench(rows=1, prefill_tokens=2)
    reading, first = bench.add(greedy("aaaaaa", 3))
    waiting, second = bench.add(greedy("b", 3, candidates=2))
    bench.stepper.step()
    reading.cancel()
    waiting.cancel()
    bench.stepper.step()
    assert bench.stepper.idle()
    assert first.finish[0].reason is CANCELLED
    assert {index: end.reason for index, end in second.finish.items()} == {0: CANCELLED, 1: CANCELLED}
    assert bench.model.batches == []


def test_a_deadline_ends_work_and_keeps_what_was_made() -> None:
    bench = Bench()
    _, heard = bench.add(greedy("a", 50, deadline=10.0))
    bench.stepper.step()
    bench.stepper.step()
    bench.clock.now = 10.0
    bench.stepper.step()
    assert (heard.text[0], heard.finish[0].reason) == ("bc", CANCELLED)
    assert bench.stepper.idle()


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
    heard = [bench.add(greedy([BROKEN]))[1] for _ in range(4)]
    try:
        bench.run()
    except ValueError:
        bench.stepper.fail(Unavailable("gone"))
    assert [one.error is not None for one in heard] == [True] * 4


def test_a_listener_that_raises_loses_its_own_job_alone() -> None:
    bench = Bench()
    deaf, heard = bench.add(greedy("a", 6))
    heard.deltas = lambda deltas: 1 / 0  # type: ignore[method-assign, assignment]
    _, other = bench.add(greedy("p", 3))
    bench.run()
    assert other.text[0] == "qrs"
    assert deaf.verdict(0.0) is CANCELLED


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


def test_interactive_calls_pass_batch_calls_but_not_for_ever() -> None:
    bench = Bench(rows=1)
    order: list[str] = []

    def add(name: str, priority: Priority) -> None:
        _, heard = bench.add(greedy("a", 1, priority=priority))
        heard.deltas = lambda deltas: order.append(name)  # type: ignore[method-assign]

    add("batch", Priority.BATCH)
    bench.clock.now = BATCH_HANDICAP_SECONDS - 1
    add("soon", Priority.INTERACTIVE)
    bench.clock.now = BATCH_HANDICAP_SECONDS + 1
    add("late", Priority.INTERACTIVE)
    bench.run()
    assert order == ["soon", "batch", "late"]


def test_fail_tells_everyone_once() -> None:
    bench = Bench(rows=1, prefill_tokens=2)
    heard = [bench.add(greedy("aa", 9, candidates=2))[1], bench.add(greedy("b"))[1]]
    bench.stepper.step()
    bench.stepper.fail(Unavailable("gone"))
    assert all(isinstance(one.error, Unavailable) for one in heard)
    assert bench.stepper.idle()
