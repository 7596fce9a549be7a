"""The count that stands at the end of a run: how many kinds of model are served right, and how many are refused."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

import pytest

Tally = Callable[[str, str, bool], None]
"""Counts a kind (second) of a service (first) once: whether it is served, or refused by its name."""

_KINDS: dict[str, dict[str, bool]] = defaultdict(dict)


@pytest.fixture(scope="session")
def tally() -> Tally:
    """Called by each test that has shown what becomes of a kind."""

    def count(service: str, kind: str, served: bool) -> None:
        _KINDS[service][kind] = served

    return count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line a service, with the names of those that are refused."""
    for service, kinds in sorted(_KINDS.items()):
        refused = sorted(kind for kind, served in kinds.items() if not served)
        right = len(kinds) - len(refused)
        terminalreporter.write_line(f"{service}: {right} kinds served right, {len(refused)} refused by name")
