"""What the tables say of what was measured."""

from __future__ import annotations

from bench import table
from bench.load import Load
from bench.rounds import Round

TITLES = {"direct": "the backend", "bare": "pass-through", "meshgate": "Meshgate"}


def measured(calls: int, cpu_us: float, ms: float) -> Round:
    """A round of one second with so many calls, all as long."""
    return Round(Load(1.0, calls, [ms / 1e3] * calls), cpu_us * calls / 1e6, 50_000_000)


ROUNDS = {
    "direct": [measured(100, 0, 1.0), measured(50, 0, 2.0), measured(100, 0, 1.0)],
    "bare": [measured(80, 100, 2.0), measured(40, 300, 4.0), measured(80, 100, 2.0)],
    "meshgate": [measured(60, 150, 2.5), measured(30, 600, 6.0), measured(60, 130, 2.3)],
}


def test_ratios_are_of_the_same_round() -> None:
    rows = table.calls(ROUNDS, TITLES, 1).rows
    # Of medians it would be 150 / 100 with no trace of the slow round, in which it was twice as much.
    assert [row[3] for row in rows] == ["-", "1.00 (1.00-1.00)", "1.50 (1.30-2.00)"]
    assert [row[2] for row in rows] == ["-", "100", "150"]
    assert [row[1] for row in rows] == ["100", "80", "60"]


def test_what_is_added_is_over_the_direct_call_of_the_same_round() -> None:
    rows = table.calls(ROUNDS, TITLES, 1).rows
    assert [row[6] for row in rows] == ["-", "1.00", "1.50"]
    assert [row[4] for row in rows] == ["1.00", "2.00", "2.50"]


def test_without_a_baseline_there_is_no_ratio() -> None:
    rows = table.streams({"meshgate": ROUNDS["meshgate"]}, TITLES, 8, 200).rows
    assert [row[3:] for row in rows] == [("-", "2.50", "-")]


def test_markdown_has_a_line_for_each_server() -> None:
    made = table.calls(ROUNDS, TITLES, 64)
    lines = made.markdown().splitlines()
    assert lines[0] == "Unary calls, 64 callers, median of 3 rounds of 1.0 s"
    assert [line.split("|")[1].strip() for line in lines[4:]] == list(TITLES.values())
    assert {line.count("|") for line in lines[2:]} == {len(made.columns) + 1}


def test_quantiles_of_few_calls() -> None:
    load = Load(1.0, 3, [1.0, 2.0, 3.0])
    assert (load.quantile(0.5), load.quantile(0.99), load.quantile(1.0)) == (2.0, 3.0, 3.0)
