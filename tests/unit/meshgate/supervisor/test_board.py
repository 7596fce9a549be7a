"""What the supervisor knows of each part: its state, how long it took, and whether what is heard is news."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshgate.supervisor.board import Board, State
from meshgate.supervisor.mesh import together

HEARD = (State.STARTING, State.LOADING, State.SERVING)


class Clock:
    """A clock that stands still until it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> Board:
    return Board(("a", "b"), clock)


def state(board: Board) -> State:
    return board.parts["a"].state


def test_it_is_ready_when_all_serve(board: Board) -> None:
    assert board.heard("a", State.SERVING)
    assert not board.ready
    assert board.heard("b", State.SERVING)
    assert board.ready


def test_what_was_known_is_no_news(board: Board) -> None:
    assert board.heard("a", State.LOADING)
    assert not board.heard("a", State.LOADING)


def test_how_long_it_took_to_serve_does_not_grow(board: Board, clock: Clock) -> None:
    clock.now += 2
    board.heard("a", State.LOADING)
    assert board.seconds("a") == 2
    clock.now += 3
    board.heard("a", State.SERVING)
    clock.now += 100
    assert board.seconds("a") == 5


def test_one_that_stops_serving_is_waited_for_from_then_on(board: Board, clock: Clock) -> None:
    board.heard("a", State.SERVING)
    clock.now += 100
    board.heard("a", State.LOADING)
    clock.now += 7
    board.heard("a", State.SERVING)
    assert board.seconds("a") == 7


def test_the_dead_count_down_to_their_next_start_and_are_not_heard(board: Board, clock: Clock) -> None:
    board.heard("a", State.SERVING)
    board.died("a", 4.0)
    clock.now += 1
    assert board.seconds("a") == 3
    assert not board.heard("a", State.STARTING)
    assert state(board) is State.DEAD
    clock.now += 9
    assert board.seconds("a") == 0
    board.started("a")
    assert state(board) is State.STARTING
    clock.now += 6
    board.heard("a", State.SERVING)
    assert board.seconds("a") == 6


EVENTS = st.one_of(
    st.tuples(st.just("heard"), st.sampled_from(HEARD)),
    st.tuples(st.just("died"), st.floats(0, 30)),
    st.tuples(st.just("started"), st.none()),
    st.tuples(st.just("wait"), st.floats(0, 100)),
)


@given(st.lists(EVENTS, max_size=40))
def test_whatever_happens_no_time_is_negative_and_the_dead_never_serve(events: list[tuple[str, object]]) -> None:
    clock = Clock()
    board = Board(("a",), clock)
    for what, value in events:
        match what, value:
            case "heard", State():
                dead = board.parts["a"].state is State.DEAD
                assert not (board.heard("a", value) and dead)
            case "died", float():
                board.died("a", value)
                assert not board.ready
            case "started", _:
                board.started("a")
            case "wait", float():
                clock.now += value
        assert board.seconds("a") >= 0


@given(st.dictionaries(st.text(max_size=3), st.sampled_from(HEARD), min_size=1))
def test_a_process_serves_when_all_of_it_does(states: dict[str, State]) -> None:
    order = list(HEARD)
    assert together(states) is min(states.values(), key=order.index)
