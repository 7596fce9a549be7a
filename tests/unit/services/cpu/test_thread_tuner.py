"""Steps run with the number of threads that is fastest now."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from services.classification import model_worker
from services.classification.config import EngineConfig, ZeroShotConfig
from services.cpu.thread_tuner import ThreadTuner
from services.generation.model.causal_model import CausalModel


class Machine:
    """Steps take what `seconds` says of a number of threads."""

    def __init__(self, threads: int, seconds: Callable[[int], float]) -> None:
        self.seconds = seconds
        self.now = 0.0
        self.used: list[int] = []
        self.crew = ThreadTuner(threads, self.used.append, lambda: self.now)

    def steps(self, count: int, rows: int = 1) -> Counter[int]:
        """How many of that many steps had which number of threads."""
        before = len(self.used)
        for _ in range(count):
            with self.crew.decoding(rows):
                self.now += self.seconds(self.used[-1])
        return Counter(self.used[before:])


@pytest.mark.parametrize("threads", [0, 1])
def test_where_there_is_no_choice_none_is_made(threads: int) -> None:
    machine = Machine(threads, lambda _: 1.0)
    for _ in range(50):
        with machine.crew.decoding(1), machine.crew.reading(7):
            pass
    assert machine.used == []


def test_it_begins_with_all_and_stays_with_what_is_fastest() -> None:
    machine = Machine(2, lambda threads: 1.0 / threads)
    assert machine.steps(1) == {2: 1}
    assert machine.steps(1000)[2] > 975
    alone = Machine(2, lambda threads: float(threads))
    assert alone.steps(1000)[1] > 975


def test_what_is_much_slower_is_tried_ever_less_often_and_what_is_near_again_and_again() -> None:
    machine = Machine(2, lambda threads: 20.0 if threads == 2 else 1.0)
    machine.steps(10)
    assert machine.steps(1000)[2] <= 18
    assert machine.steps(1000)[2] <= 6
    near = Machine(2, lambda threads: 1.04 if threads == 2 else 1.0)
    assert near.steps(1000)[2] == pytest.approx(3 * 1000 / 18, abs=8)


def test_it_changes_with_the_machine_at_once_where_that_became_slow() -> None:
    machine = Machine(2, lambda threads: 1.0 / threads)
    machine.steps(100)
    machine.seconds = lambda threads: 5.0 if threads == 2 else 1.0
    assert machine.steps(10)[2] <= 3
    assert machine.steps(100)[1] >= 90
    machine.seconds = lambda threads: 1.0 / threads
    machine.steps(1100)
    assert machine.steps(100)[2] >= 90


def test_of_many_threads_the_best_number_is_found() -> None:
    machine = Machine(48, lambda threads: abs(threads - 8) + 1.0)
    assert machine.steps(200)[8] > 120
    assert set(machine.used) <= {1, 2, 4, 8, 16, 32, 48}
    assert machine.steps(1000)[8] > 975


def test_sizes_are_apart_and_like_ones_are_not() -> None:
    machine = Machine(2, lambda threads: 1.0 / threads)
    machine.steps(50, rows=16)
    machine.seconds = lambda threads: float(threads)
    machine.steps(50, rows=1)
    assert machine.steps(1, rows=1) == {1: 1}
    assert machine.steps(1, rows=17) == {2: 1}, "as 16"


def test_prompts_are_counted_by_the_token_and_a_step_that_fails_says_nothing() -> None:
    now, used = [0.0], list[int]()
    crew = ThreadTuner(2, used.append, lambda: now[0])
    for tokens in [64, 80, 95] * 50:
        with crew.reading(tokens):
            now[0] += tokens / used[-1]
    assert Counter(used)[2] > 140
    with pytest.raises(ValueError, match="no"), crew.reading(64):
        now[0] += 1e6
        raise ValueError("no")
    with crew.reading(64):
        pass
    assert used[-1] == 2


def test_a_first_step_that_is_slow_for_once_decides_nothing() -> None:
    seen = set[int]()

    def seconds(threads: int) -> float:
        first = threads not in seen
        seen.add(threads)
        return 9.0 if first else float(threads)

    assert Machine(2, seconds).steps(100)[1] > 90


def test_what_is_known_from_other_times_holds_nobody_up() -> None:
    machine = Machine(4, lambda threads: abs(threads - 1) + 1.0)
    machine.steps(300)
    machine.seconds = lambda threads: 1.0 / threads
    machine.steps(3000)
    machine.seconds = lambda threads: 40.0 / threads  # longer contexts: nothing is as fast as it was
    assert machine.steps(2000)[4] > 1600


def test_a_model_that_is_loaded_while_others_serve_has_all_threads() -> None:
    """torch starts new threads with what any thread asked for last."""
    asked = """
import threading, torch
from services.cpu import thread_tuner
before = torch.get_num_threads()
other = threading.Thread(target=torch.set_num_threads, args=(1,))
other.start()
other.join()
print(thread_tuner.THREADS == before)
"""
    run = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "True"


@pytest.mark.parametrize(("dtype", "numbers"), [(torch.float32, [0]), (torch.bfloat16, [1, 2])])
def test_where_last_bits_depend_on_it_nothing_is_chosen(dtype: torch.dtype, numbers: list[int]) -> None:
    config = LlamaConfig(
        vocab_size=20, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    module: Any = LlamaForCausalLM(config)
    model = CausalModel(module.to(dtype).eval(), rows=1, context=20, threads=2)
    assert model._crew._numbers == numbers


def test_zero_shot_has_the_threads_it_was_given_whoever_changed_them_before(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    monkeypatch.setattr(
        "services.classification.model.loading.load_zero_shot", lambda *_: seen.append(torch.get_num_threads())
    )
    monkeypatch.setattr(model_worker, "_ready", lambda *_: None)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        model_worker.load_zero_shot(ZeroShotConfig.model_validate({}), EngineConfig.model_validate({"threads": 3}))
    finally:
        torch.set_num_threads(before)
    assert seen == [3]
