"""What was measured, as a table: medians over the rounds, and ratios within each round."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from rich.table import Table as Drawn

from bench.rounds import Round, Rounds

BASELINE: Final = "bare"
"""Whose CPU is 1."""
DIRECT: Final = "direct"
"""Whose latency is taken off."""
_NONE: Final = "-"

Row = Sequence[str]
Picked = Callable[[Round], float]


@dataclass(frozen=True)
class Table:
    """A table to print or to keep."""

    title: str
    columns: Row
    rows: Sequence[Row]

    def drawn(self) -> Drawn:
        """For a terminal."""
        made = Drawn(title=self.title)
        for number, column in enumerate(self.columns):
            made.add_column(column, justify="right" if number else "left", no_wrap=True)
        for row in self.rows:
            made.add_row(*row)
        return made

    def markdown(self) -> str:
        """For RESULTS.md."""
        lines = (self.columns, ["---", *["---:"] * (len(self.columns) - 1)], *self.rows)
        return f"{self.title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def calls(rounds: Rounds, titles: Mapping[str, str], callers: int) -> Table:
    """Unary calls."""
    columns = ("server", "calls/s", "CPU us/call", "x bare (range)", "p50 ms", "p99 ms", "+p50 ms", "+p99 ms", "RSS MB")
    rows = [
        (titles[name], *_figures(rounds, name), *_latencies(rounds, name), _memory(rounds[name])) for name in rounds
    ]
    return Table(f"Unary calls, {callers} caller{'s' * (callers > 1)}, {_method(rounds)}", columns, rows)


def streams(rounds: Rounds, titles: Mapping[str, str], callers: int, chunks: int) -> Table:
    """Server streams."""
    columns = ("server", "messages/s", "CPU us/message", "x bare (range)", "stream p50 ms", "+p50 ms")
    rows = [(titles[name], *_figures(rounds, name), *_latencies(rounds, name)[::2]) for name in rounds]
    return Table(f"Streams of {chunks} messages, {callers} callers, {_method(rounds)}", columns, rows)


def _method(rounds: Rounds) -> str:
    items = next(iter(rounds.values()))
    return f"median of {len(items)} rounds of {items[0].load.elapsed:.1f} s"


def _figures(rounds: Rounds, name: str) -> Row:
    """How many a second, CPU for each, and that CPU as a multiple of the bare pass-through's in the same round."""
    items = rounds[name]
    rate = f"{_median(items, lambda item: item.per_second):,.0f}"
    if not any(item.cpu for item in items):
        return rate, _NONE, _NONE
    return rate, f"{_median(items, lambda item: item.cpu_us):.0f}", _ratio(rounds, name)


def _ratio(rounds: Rounds, name: str) -> str:
    if BASELINE not in rounds:
        return _NONE
    ratios = [item.cpu_us / bare.cpu_us for item, bare in zip(rounds[name], rounds[BASELINE], strict=True)]
    return f"{median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"


def _latencies(rounds: Rounds, name: str) -> Row:
    """Half and 99 of 100 calls, and what each is more than the direct call's in the same round."""
    picked: tuple[Picked, ...] = (lambda item: item.load.quantile(0.5), lambda item: item.load.quantile(0.99))
    return (
        *(f"{_median(rounds[name], pick) * 1e3:.2f}" for pick in picked),
        *(_added(rounds, name, p) for p in picked),
    )


def _added(rounds: Rounds, name: str, pick: Picked) -> str:
    if DIRECT not in rounds or name == DIRECT:
        return _NONE
    added = (pick(item) - pick(direct) for item, direct in zip(rounds[name], rounds[DIRECT], strict=True))
    return f"{median(added) * 1e3:.2f}"


def _memory(items: Iterable[Round]) -> str:
    most = max(item.resident for item in items)
    return f"{most / 1e6:.0f}" if most else _NONE


def _median(items: Iterable[Round], pick: Picked) -> float:
    return median(map(pick, items))
