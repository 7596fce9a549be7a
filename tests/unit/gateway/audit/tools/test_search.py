"""A search finds its records, in the requested order, over all writers, and in constant memory."""

from __future__ import annotations

import tracemalloc
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.audit import record as records
from gateway.audit.chain import segments
from gateway.audit.tools.search import Query, search
from tests.support.fixtures import audit_log
from tests.support.fixtures.audit_log import Clock, FastDisk

START = 1_800_000_000_000_000
OTHERS = {"genesis", "segment", "closed"}


def fill(home: Path, numbers: range, writer: str = "", **changes: Any) -> Path:
    clock = Clock()
    clock.now = START / 1e6 - 1
    made = audit_log.ledger(home, FastDisk(), writer=writer, clock=clock, segment_bytes=4096)
    for number in numbers:
        clock.now = (START + number) / 1e6
        event = "refused" if number % 5 == 0 else "ended"
        fields = {"tenant": f"t{number % 3}", "event": event, "reason": "RATE_LIMITED" if number % 5 == 0 else ""}
        made.append([records.encode(audit_log.record(number, **{**fields, **changes}))])
    made.close()
    return home / "audit"


def numbers(root: Path, query: Query, *, newest_first: bool = False) -> list[int]:
    found = search(root, query, newest_first=newest_first)
    return [record["time"] - START for record in found if record["event"] not in OTHERS]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"tenant": "t1"}, lambda n: n % 3 == 1),
        ({"tenant": "t1", "reason": "RATE_LIMITED"}, lambda n: n % 3 == 1 and n % 5 == 0),
        ({"event": "refused"}, lambda n: n % 5 == 0),
        ({"request_id": f"{7:032x}"}, lambda n: n == 7),
        ({"subject": "bob", "status": "OK", "decision": "allow"}, lambda n: True),
        ({"tenant": "t"}, lambda n: False),
    ],
)
def test_fields(tmp_path: Path, fields: dict[str, str], expected: Any) -> None:
    root = fill(tmp_path, range(60))
    assert numbers(root, Query(fields=fields)) == [n for n in range(60) if expected(n)]


def test_time_and_order(tmp_path: Path) -> None:
    root = fill(tmp_path, range(60))
    query = Query(since=START + 10, until=START + 20)
    assert numbers(root, query) == list(range(10, 20))
    assert numbers(root, query, newest_first=True) == list(range(19, 9, -1))


@pytest.mark.parametrize("method", ["Generate", "/meshgate.v1.GenerationService/Generate"])
def test_a_method_by_its_last_part_or_whole_also_within_an_envelope(tmp_path: Path, method: str) -> None:
    fill(tmp_path, range(3), method="/meshgate.v1.EmbeddingService/Embed")
    fill(tmp_path, range(3, 6))
    sealed = {"method": "/meshgate.v1.SealedService/Call", "target": "/meshgate.v1.GenerationService/Generate"}
    root = fill(tmp_path, range(6, 9), **sealed)
    assert numbers(root, Query(method=method)) == [3, 4, 5, 6, 7, 8]
    assert numbers(root, Query(method="enerate")) == []


def test_writers_are_merged_by_time(tmp_path: Path) -> None:
    for worker in range(3):
        fill(tmp_path, range(worker, 60, 3), writer=f"worker-{worker}")
    root = tmp_path / "audit"
    assert numbers(root, Query()) == list(range(60))
    assert numbers(root, Query(), newest_first=True) == list(range(59, -1, -1))


@pytest.mark.parametrize("subject", ['","tenant":"t9', "\\", '"', "\u00e9\u20ac", "a\nb", "\ud800"])
def test_what_a_caller_is_called_is_found_and_forges_nothing(tmp_path: Path, subject: str) -> None:
    root = fill(tmp_path, range(1), subject=subject)
    assert numbers(root, Query(fields={"tenant": "t9"})) == []
    assert numbers(root, Query(fields={"subject": subject})) == [0]


@settings(deadline=None)
@given(st.lists(st.integers(0, 200_000) | st.integers(0, 200), max_size=8), st.binary(max_size=50))
def test_reading_backwards_is_reading_forwards_backwards(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], unfinished: bytes
) -> None:
    lines = [bytes([65 + at]) * (size % segments.MAX_LINE) + b"\n" for at, size in enumerate(sizes)]
    path = tmp_path_factory.getbasetemp() / "backwards"
    path.write_bytes(b"".join(lines) + unfinished.replace(b"\n", b""))
    assert list(segments.lines_reversed(path)) == lines[::-1]


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    made = audit_log.ledger(tmp_path, FastDisk(), checkpoint_records=10_000)
    line = [audit_log.encoded(number) for number in range(200)]
    for _ in range(100):
        made.append(line)
    made.close()
    root = tmp_path / "audit"
    size = audit_log.segment(root).stat().st_size
    tracemalloc.start()
    count = sum(1 for _ in search(root, Query(), newest_first=True))
    count += sum(1 for _ in search(root, Query(), newest_first=False))
    assert audit_log.verified(root).broken is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 2 * 20_002
    assert peak < 2 * 1024 * 1024 < size / 3


def test_the_first_results_come_without_reading_the_rest(tmp_path: Path) -> None:
    root = fill(tmp_path, range(60))
    audit_log.segment(root, 1).chmod(0o600)
    audit_log.segment(root, 1).write_bytes(b"\xff" * 1000 + b"\n")
    found = list(islice(search(root, Query(), newest_first=True), 5))
    assert found[0]["event"] == "closed"
    assert next(search(root, Query(), newest_first=False))["event"] == "unreadable"
