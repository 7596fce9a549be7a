"""Errors at the command line: one line, with what to look up, and nothing of ours; the exit status says which kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshgate import errors
from meshgate.cli import failures
from meshgate.cli.connection import Connection
from meshgate.client import CallFailed
from meshgate.runtime.config import ConfigError

CONNECTION = Connection("host:1", Path("ca.pem"), None, None, 1.0)


@pytest.mark.parametrize(
    ("error", "said", "status"),
    [
        (
            errors.InvalidArgument.of("sampling.top_p", "above 0, to 1"),
            "INVALID_ARGUMENT: sampling.top_p: above 0, to 1",
            failures.FAILED,
        ),
        (
            errors.LimitExceeded("too many requests", retry_after=1.5, request_id="r1"),
            "RATE_LIMITED: too many requests · retry after 1.5 s · request r1",
            failures.FAILED,
        ),
        (
            errors.Unavailable("x", reason="UNAVAILABLE"),
            "UNAVAILABLE: host:1 can't be reached; is `make up` running?",
            failures.UNAVAILABLE,
        ),
        (
            errors.Unavailable("SSL: CERTIFICATE_VERIFY_FAILED: self signed"),
            "UNAVAILABLE: host:1 has no certificate of the CA that --ca or MESHGATE_CA names",
            failures.UNAVAILABLE,
        ),
        (
            errors.Unavailable("draining", reason="DRAINING", request_id="r2"),
            "DRAINING: draining · request r2",
            failures.UNAVAILABLE,
        ),
        (CallFailed(errors.NotFound("no such model", reason="X")), "X: no such model", failures.FAILED),
        (errors.NotFound("two\nlines"), "NOT_FOUND: two lines", failures.FAILED),
        (ConfigError("no token"), "no token", failures.FAILED),
        (failures.UsageError("-n: a number"), "-n: a number", failures.USAGE),
        (FileNotFoundError(2, "No such file or directory", "a.txt"), "a.txt: No such file or directory", 1),
        (OSError("what"), "input or output failed", 1),
        (
            UnicodeEncodeError("ascii", "secret é", 7, 8, "why"),
            "the encoding ascii can't show the text; PYTHONUTF8=1 makes it UTF-8",
            failures.USAGE,
        ),
        (UnicodeDecodeError("utf-8", b"secret", 0, 1, "why"), "the text is not valid UTF-8", failures.USAGE),
    ],
)
def test_what_is_said(error: Exception, said: str, status: int) -> None:
    assert failures.explain(error, CONNECTION) == (f"meshgate: {said}", status)


@pytest.mark.parametrize("kind", [RuntimeError, ValueError, TypeError])
def test_a_defect_keeps_its_text_to_itself(kind: type[Exception]) -> None:
    line, status = failures.explain(kind("a secret"))
    assert "secret" not in line
    assert kind.__name__ in line
    assert status == failures.FAILED


def test_a_reason_is_that_of_a_call() -> None:
    assert failures.reason(CallFailed(errors.InvalidArgument("x", reason="INPUT_TOO_LONG"))) == "INPUT_TOO_LONG"
    assert failures.reason(RuntimeError()) is None
