"""Ranks of one model without processes: what is said on the line, who follows, and what becomes of a lost rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgate.runtime.config import ConfigError
from services.generation.parallel import Leader, command, follow, ranks

ARGUMENTS = st.lists(st.one_of(st.integers(0, 2**40), st.lists(st.integers(0, 2**40), max_size=20)), max_size=4)


class Model:
    """Notes its steps; fails at the one it is told to."""

    rows, context, spare, whole = 4, 64, 4, False

    def __init__(self, fail_at: int = -1) -> None:
        self.steps: list[tuple[Any, ...]] = []
        self._fail_at = fail_at

    def enter_thread(self) -> None:
        self.steps.append(("enter_thread",))

    def __getattr__(self, name: str) -> Any:
        if name not in command.STEPS:
            raise AttributeError(name)

        def step(*arguments: Any) -> str:
            if len(self.steps) == self._fail_at:
                raise MemoryError
            self.steps.append((name, *arguments))
            return f"scores of {name}"

        return step


class Line:
    """A line in memory, that may break."""

    def __init__(self) -> None:
        self.said: list[list[int]] = []
        self.broken = False

    def tell(self, words: Sequence[int]) -> None:
        if self.broken:
            raise RuntimeError("connection closed by peer")
        self.said.append(list(words))

    def listen(self) -> list[int]:
        if not self.said:
            raise RuntimeError("connection closed by peer")
        return self.said.pop(0)


def leading(model: Model, line: Line) -> tuple[Leader, list[str]]:
    lost: list[str] = []
    given_model: Any = model
    return Leader(given_model, line, lambda: lost.append("lost")), lost


@given(step=st.integers(0, command.STOP), arguments=ARGUMENTS)
def test_a_command_is_heard_as_it_was_told(step: int, arguments: list[Any]) -> None:
    assert command.decode(command.encode(step, arguments)) == (step, arguments)


@pytest.mark.parametrize("words", [[], [99], [-1], [0, 3, 1, 2], [0, -1], [0, -2, 5]])
def test_what_is_no_command_is_refused(words: list[int]) -> None:
    with pytest.raises(ValueError, match=r"step|short"):
        command.decode(words)


def test_followers_run_the_leaders_steps_in_order_and_end_with_it() -> None:
    line, model, other = Line(), Model(), Model()
    leader, lost = leading(model, line)
    assert leader.prefill(4, [5, 6, 7], 0) == "scores of prefill"
    leader.copy(4, 0, 3)
    leader.decode([8], [3])
    leader.wipe(4)
    leader.shrink(9)
    leader.store(5, 1, 32, 32)
    leader.restore(5, 2, 32)
    leader.forget()
    leader.stop()
    following: Any = other
    follow(following, line)
    assert other.steps == [("enter_thread",), *model.steps]
    assert model.steps == [
        ("prefill", 4, [5, 6, 7], 0),
        ("copy", 4, 0, 3),
        ("decode", [8], [3]),
        ("wipe", 4),
        ("shrink", 9),
        ("store", 5, 1, 32, 32),
        ("restore", 5, 2, 32),
        ("forget",),
    ]
    assert lost == []


def test_a_lost_follower_is_the_end_said_once() -> None:
    line = Line()
    leader, lost = leading(Model(), line)
    line.broken = True
    for _ in range(2):
        with pytest.raises(RuntimeError):
            leader.decode([1], [1])
    assert lost == ["lost"]


def test_a_step_that_fails_here_is_the_end_too_since_others_may_have_run_it() -> None:
    line, model = Line(), Model(fail_at=0)
    leader, lost = leading(model, line)
    with pytest.raises(MemoryError):
        leader.prefill(4, [1], 0)
    with pytest.raises(RuntimeError, match="lost"):
        leader.prefill(4, [1], 0)
    assert (lost, len(line.said), model.steps) == (["lost"], 1, [])
    leader.stop()
    assert len(line.said) == 1


def test_a_follower_whose_leader_is_gone_ends_with_an_error() -> None:
    following: Any = Model()
    with pytest.raises(RuntimeError):
        follow(following, Line())


@pytest.mark.parametrize(("started", "size"), [("1", 2), ("2", 1), ("4", 2)])
def test_ranks_that_were_not_started_as_configured_are_refused(
    monkeypatch: pytest.MonkeyPatch, started: str, size: int
) -> None:
    monkeypatch.setenv("WORLD_SIZE", started)
    with pytest.raises(ConfigError, match=r"engine\.tensor_parallel"):
        ranks.check(size)
