"""The selection of the queued inputs that run in one batch.

A batch is padded to its longest input, so its cost is longest x count. `select_batch` therefore takes inputs of similar
length. They lie around the first input of the queue, so that no input waits for ever.
"""

from __future__ import annotations

from collections.abc import Sequence


def select_batch(lengths: Sequence[int], budget: int) -> list[int]:
    """The indices of the inputs of the next batch. `lengths` are the inputs' tokens in queue order.

    The batch always contains the first input. Its padded cost, longest x count, is at most `budget` tokens, unless the
    first input alone exceeds it. At most half of the cost is padding. Of equally long inputs, earlier ones are taken.
    """
    if not lengths:
        return []
    by_length = sorted(range(len(lengths)), key=lengths.__getitem__)
    low, high = _grow([lengths[index] for index in by_length], by_length.index(0), budget)
    return by_length[low : high + 1]


def _grow(lengths: Sequence[int], anchor: int, budget: int) -> tuple[int, int]:
    """The widest range of sorted `lengths` around `anchor` within the budget, at most half padding; inclusive."""
    low = high = anchor
    total = lengths[anchor]
    while True:
        shorter = low > 0 and _fits(lengths[high], high - low + 2, total + lengths[low - 1], budget)
        longer = high + 1 < len(lengths) and _fits(lengths[high + 1], high - low + 2, total + lengths[high + 1], budget)
        if longer and not (shorter and lengths[anchor] - lengths[low - 1] < lengths[high + 1] - lengths[anchor]):
            high += 1
            total += lengths[high]
        elif shorter:
            low -= 1
            total += lengths[low]
        else:
            return low, high


def _fits(longest: int, count: int, total: int, budget: int) -> bool:
    padded = longest * count
    return padded <= budget and padded <= 2 * total
