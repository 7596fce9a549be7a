"""Errors at the command line: one line, with what to look up, and nothing of ours."""

from __future__ import annotations

import pytest

from meshgate import errors
from meshgate.cli import failures
from meshgate.runtime.config import ConfigError


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            errors.InvalidArgument.of("sampling.top_p", "above 0, to 1"),
            "meshgate: INVALID_ARGUMENT: sampling.top_p: above 0, to 1",
        ),
        (
            errors.LimitExceeded("too many requests", retry_after=1.5, request_id="r1"),
            "meshgate: RATE_LIMITED: too many requests · retry after 1.5 s · request r1",
        ),
        (
            errors.Unavailable("x", reason="UNAVAILABLE"),
            "meshgate: UNAVAILABLE: the gateway can't be reached; is `make up` running?",
        ),
        (ConfigError("no token"), "meshgate: no token"),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), "meshgate: a.txt: No such file or directory"),
    ],
)
def test_what_is_said(error: Exception, said: str) -> None:
    assert failures.explain(error) == said


def test_a_defect_keeps_its_text_to_itself() -> None:
    assert "secret" not in failures.explain(RuntimeError("a secret"))
