"""What was measured, as tables: medians over the rounds, and ratios within each round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import TypeVar

from bench.rounds import Round, Rounds
from bench.services.rounds import Interruption, StreamRound
from bench.services.starts import Started
from bench.table import Row, Table

RoundT = TypeVar("RoundT")
Titles = Mapping[str, str]


def rates(title: str, unit: str, rounds: Rounds, titles: Titles, ours: str) -> Table:
    """How many a second, and how many times that `ours` does in the same round."""
    columns = (
        *("server", f"{unit}s/s (range)", "ours / it (range)", f"CPU ms/{unit}"),
        *("call p50 ms", "call p99 ms", "RSS MB"),
    )
    rows = [(titles[name], *_rate(rounds, name, ours), *_costs(items)) for name, items in rounds.items()]
    return Table(f"{title}, {_method(rounds)}", columns, rows)


def streams(title: str, rounds: Mapping[str, Sequence[StreamRound]], titles: Titles) -> Table:
    """When the first piece comes, and then the next."""
    columns = (
        *("server", "tokens/s", "first p50 ms", "first p99 ms"),
        *("next p50 ms", "next p99 ms (range)", "CPU ms/token"),
    )
    rows = [(titles[name], *_streamed(items)) for name, items in rounds.items()]
    return Table(f"{title}, median of {_count(rounds)} rounds", columns, rows)


def interruptions(title: str, rounds: Mapping[str, Sequence[Interruption]], titles: Titles) -> Table:
    """What a long prompt does to those who listen."""
    columns = ("server", "next p99 ms before", "next p99 ms (range)", "longest ms", "its own first ms")
    rows = [
        (
            titles[name],
            _median(items, lambda item: item.before.gap(0.99) * 1e3),
            _ranged([item.during.gap(0.99) * 1e3 for item in items], 0),
            f"{max(item.during.gap(1.0) for item in items) * 1e3:.0f}",
            _median(items, lambda item: item.first * 1e3),
        )
        for name, items in rounds.items()
    ]
    return Table(f"{title}, median of {_count(rounds)} rounds", columns, rows)


def starts(title: str, started: Mapping[str, Sequence[Started]]) -> Table:
    """How long it takes until a process serves."""
    columns = ("server", "seconds (range)", "RSS MB")
    rows = [
        (name, _ranged([item.seconds for item in items], 1), f"{max(item.resident for item in items) / 1e6:.0f}")
        for name, items in started.items()
    ]
    return Table(f"{title}, median of {_count(started)} rounds", columns, rows)


def _rate(rounds: Rounds, name: str, ours: str) -> Row:
    items = rounds[name]
    rate = _ranged([item.per_second for item in items], 1)
    if ours not in rounds or name == ours:
        return rate, "-"
    ratios = [mine.per_second / item.per_second for mine, item in zip(rounds[ours], items, strict=True)]
    return rate, _ranged(ratios, 2)


def _costs(items: Sequence[Round]) -> Row:
    return (
        f"{median(item.cpu_us for item in items) / 1e3:.2f}",
        _median(items, lambda item: item.load.quantile(0.5) * 1e3),
        _median(items, lambda item: item.load.quantile(0.99) * 1e3),
        f"{max(item.resident for item in items) / 1e6:.0f}",
    )


def _streamed(items: Sequence[StreamRound]) -> Row:
    return (
        f"{median(item.pieces.tokens / item.pieces.elapsed for item in items):,.1f}",
        _median(items, lambda item: item.pieces.first(0.5) * 1e3),
        _median(items, lambda item: item.pieces.first(0.99) * 1e3),
        f"{median(item.pieces.gap(0.5) for item in items) * 1e3:.1f}",
        _ranged([item.pieces.gap(0.99) * 1e3 for item in items], 1),
        f"{median(item.cpu / item.pieces.tokens for item in items) * 1e3:.2f}",
    )


def _method(rounds: Rounds) -> str:
    seconds = median(item.load.elapsed for items in rounds.values() for item in items)
    return f"median of {_count(rounds)} rounds of about {seconds:.0f} s"


def _count(rounds: Mapping[str, Sequence[object]]) -> int:
    return len(next(iter(rounds.values())))


def _median(items: Iterable[RoundT], pick: Callable[[RoundT], float]) -> str:
    return f"{median(map(pick, items)):,.0f}"


def _ranged(values: Sequence[float], digits: int) -> str:
    low, middle, high = (f"{value:,.{digits}f}" for value in (min(values), median(values), max(values)))
    return f"{middle} ({low}-{high})"
