"""The [audit] section: its default is the log on disk, and an impossible section stops the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.audit import AuditConfig, AuditLog
from tests.support.fixtures import audit_log

REDIS = {"kind": "redis", "url": "redis://:secret@store/0"}


def made(**changes: Any) -> AuditConfig:
    return AuditConfig.model_validate({"directory": "/a", "keys": "/k", **changes})


def test_the_log_on_disk_is_the_default_and_required() -> None:
    (sink,) = made().sinks
    assert (sink.kind, sink.required) == ("file", True)


def test_each_sink_has_terms_of_its_own(tmp_path: Path) -> None:
    sinks = [
        {"kind": "file", "timeout_seconds": 2},
        {**REDIS, "queue_records": 7},
        {"kind": "otlp", "target": "collector:4317", "required": True},
        {"kind": "stdout"},
    ]
    log = AuditLog(audit_log.config(tmp_path, sinks=sinks, timeout_seconds=3, queue_records=9))
    options = [queue.options for queue in log.queues]
    assert [each.name for each in options] == ["file", "redis", "otlp", "stdout"]
    assert [each.required for each in options] == [True, False, True, False]
    assert [each.timeout_seconds for each in options] == [2, 3, 3, 3]
    assert [each.queue_records for each in options] == [9, 7, 9, 9]


@pytest.mark.parametrize(
    "sinks",
    [
        [],
        [{"kind": "syslog"}],
        [{"kind": "file"}, {"kind": "file"}],
        [{"kind": "stdout"}, {"kind": "stdout"}],
        [{"kind": "redis"}],
        [{"kind": "redis", "url": "http://store"}],
        [{"kind": "otlp"}],
        [{"kind": "otlp", "target": "c:1", "insecure": True, "ca": "/ca.pem"}],
        [{"kind": "stdout", "url": "x"}],
        [{"kind": "stdout", "timeout_seconds": 0}],
        [{"kind": "stdout", "queue_records": 0}],
    ],
)
def test_what_cannot_be_meant_is_refused(sinks: list[dict[str, Any]]) -> None:
    with pytest.raises(ValidationError, match="sinks"):
        made(sinks=sinks)


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(made(sinks=[REDIS]))
