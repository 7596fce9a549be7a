"""SIGKILL, for real: every record whose call has its outcome is on disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fixtures import audit_log

_WRITER = """
import asyncio, itertools, sys
from pathlib import Path
from gateway.audit import AuditLog
from tests.support.fixtures import audit_log

async def call(log, number):
    await log.commit(audit_log.record(number, request_id=str(number)))
    print(number, flush=True)

async def caller(log, numbers):
    for number in numbers:
        await call(log, number)

async def main():
    log = AuditLog(audit_log.config(Path(sys.argv[1]), segment_bytes=16384))
    await log.start()
    await asyncio.gather(*(caller(log, itertools.count(start, 16)) for start in range(16)))

asyncio.run(main())
"""


@pytest.mark.parametrize("after", [1, 57, 400])
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, after: int) -> None:
    root = str(Path(__file__).parents[3])
    writer = subprocess.Popen(
        [sys.executable, "-c", _WRITER, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert writer.stdout is not None
    told = {writer.stdout.readline().strip().decode() for _ in range(after)}
    writer.send_signal(signal.SIGKILL)
    told |= {line.decode() for line in writer.stdout.read().split(b"\n")[:-1]}
    writer.stdout.close()
    writer.wait()
    audit_log.ledger(tmp_path).close()
    report = audit_log.verified(tmp_path / "audit")
    assert report.broken is None
    assert told <= written(tmp_path / "audit")


def written(directory: Path) -> set[str]:
    """The request ids on disk."""
    lines = (line for path in directory.glob("audit-*.jsonl") for line in path.read_bytes().splitlines())
    return {json.loads(line)["record"].get("request_id", "") for line in lines}
