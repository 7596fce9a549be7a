"""Verification is for logs of any size: what a record costs is bounded, and what is held does not grow with them."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.fixtures import audit_log
from tests.support.fixtures.audit_log import FastDisk

RECORDS: Final = 20_000
CPU_PER_RECORD: Final = 50e-6
"""Ten times what it takes: a million in well under a minute."""
HELD: Final = 1024 * 1024


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One of several segments, several times as large as what may be held."""
    home = tmp_path_factory.mktemp("large")
    made = audit_log.ledger(home, FastDisk(), checkpoint_records=1000, segment_bytes=1024 * 1024)
    for start in range(0, RECORDS, 100):
        made.append([audit_log.encoded(start + number) for number in range(100)])
    made.close()
    directory = home / "audit"
    assert sum(path.stat().st_size for path in directory.iterdir()) > 5 * HELD
    yield directory


def test_what_a_record_costs_is_bounded(log: Path) -> None:
    began = time.process_time()
    report = audit_log.verified(log)
    assert report.broken is None
    assert report.records > RECORDS
    assert (time.process_time() - began) / report.records < CPU_PER_RECORD


def test_what_is_held_does_not_grow_with_the_log(log: Path) -> None:
    tracemalloc.start()
    try:
        assert audit_log.verified(log).broken is None
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < HELD
