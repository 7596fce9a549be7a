"""A commit that returns is durable; one sync serves all waiting calls; a failing disk refuses calls and recovers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.audit import AuditLog, AuditRecord
from gateway.audit.chain.fsync import Disk
from meshgate.errors import Unavailable
from meshgate.runtime.config import ConfigError
from tests.support.fixtures import audit_log
from tests.support.fixtures.audit_log import FaultyDisk, record


@asynccontextmanager
async def opened(directory: Path, disk: Disk | None = None, **changes: Any) -> AsyncIterator[AuditLog]:
    log = AuditLog(audit_log.config(directory, **changes), disk=disk, monotonic=lambda: 0.0)
    await log.start()
    try:
        yield log
    finally:
        await log.stop()


async def unavailable(log: AuditLog, entry: AuditRecord | None = None) -> str:
    with pytest.raises(Unavailable) as caught:
        await log.commit(entry or record())
    return caught.value.reason


def health(log: AuditLog) -> bool:
    return log.healthy


async def test_what_is_committed_is_on_disk(tmp_path: Path) -> None:
    async with opened(tmp_path) as log:
        await log.commit(record(request_id="here"))
        assert b'"request_id":"here"' in audit_log.segment(tmp_path / "audit").read_bytes()
    report = audit_log.verified(tmp_path / "audit")
    assert (report.broken, report.records, report.uncovered) == (None, 3, 0)


async def test_all_who_wait_share_one_sync(tmp_path: Path) -> None:
    disk = FaultyDisk()
    async with opened(tmp_path, disk, checkpoint_records=1000) as log:
        disk.gate.clear()
        disk.reached.clear()
        first = asyncio.create_task(log.commit(record(0)))
        await asyncio.to_thread(disk.reached.wait)
        before = disk.syncs
        rest = [asyncio.create_task(log.commit(record(number))) for number in range(1, 200)]
        await asyncio.sleep(0)
        disk.gate.set()
        await asyncio.gather(first, *rest)
        assert disk.syncs - before == 2
    assert audit_log.verified(tmp_path / "audit").records == 202


async def test_nobody_is_told_before_the_sync(tmp_path: Path) -> None:
    disk = FaultyDisk()
    async with opened(tmp_path, disk) as log:
        disk.gate.clear()
        disk.reached.clear()
        waiting = asyncio.create_task(log.commit(record()))
        await asyncio.to_thread(disk.reached.wait)
        assert not waiting.done()
        disk.gate.set()
        await waiting


@pytest.mark.parametrize("room", [0, 1, 100, 600])
async def test_a_full_disk_fails_closed_and_recovers(tmp_path: Path, room: int) -> None:
    disk = FaultyDisk()
    async with opened(tmp_path, disk) as log:
        await log.commit(record(1, request_id="before"))
        disk.room = room
        assert await unavailable(log, record(2, request_id="lost", peer="x" * 1000)) == "AUDIT_UNAVAILABLE"
        assert not health(log)
        assert await unavailable(log) == "AUDIT_UNAVAILABLE"
        disk.room = None
        await log.commit(record(3, request_id="after"))
        assert health(log)
    content = audit_log.segment(tmp_path / "audit").read_bytes()
    assert [name in content for name in (b'"before"', b'"lost"', b'"after"')] == [True, False, True]
    assert audit_log.verified(tmp_path / "audit").broken is None


async def test_a_failed_sync_counts_as_not_written(tmp_path: Path) -> None:
    disk = FaultyDisk()
    async with opened(tmp_path, disk) as log:
        disk.sync_fails = True
        assert await unavailable(log) == "AUDIT_UNAVAILABLE"
        disk.sync_fails = False
        await log.commit(record(1))
    report = audit_log.verified(tmp_path / "audit")
    assert (report.broken, report.records) == (None, 4)  # a gap is owned to


async def test_a_disk_that_cannot_even_take_back_is_repaired_first(tmp_path: Path) -> None:
    disk = FaultyDisk()
    async with opened(tmp_path, disk) as log:
        disk.room, disk.truncate_fails = 50, True
        await unavailable(log)
        disk.room = None
        assert await unavailable(log) == "AUDIT_UNAVAILABLE"
        disk.truncate_fails = False
        await log.commit(record(1))
    assert audit_log.verified(tmp_path / "audit").broken is None


async def test_a_failed_checkpoint_is_late_and_harms_no_record(tmp_path: Path) -> None:
    disk = FaultyDisk()
    async with opened(tmp_path, disk, checkpoint_records=1, segment_bytes=4096) as log:
        disk.room = len(b"") + 700  # for the record, and not for its checkpoint
        await log.commit(record(1))
        disk.room = None
        for number in range(2, 30):
            await log.commit(record(number))
    report = audit_log.verified(tmp_path / "audit")
    assert (report.broken, report.uncovered) == (None, 0)


async def test_a_full_disk_while_a_segment_begins(tmp_path: Path) -> None:
    disk = FaultyDisk()
    async with opened(tmp_path, disk, segment_bytes=4096) as log:
        for number in range(60):
            disk.room = 20
            await unavailable(log)
            disk.room = None
            await log.commit(record(number))
    report = audit_log.verified(tmp_path / "audit")
    assert report.broken is None
    assert report.segments > 3


async def test_waiting_has_a_bound(tmp_path: Path) -> None:
    disk = FaultyDisk()
    async with opened(tmp_path, disk, timeout_seconds=0.05) as log:
        disk.gate.clear()
        assert await unavailable(log) == "AUDIT_UNAVAILABLE"
        disk.gate.set()


async def test_the_queue_has_a_bound(tmp_path: Path) -> None:
    disk = FaultyDisk()
    async with opened(tmp_path, disk, queue_records=3) as log:
        disk.gate.clear()
        waiting = [asyncio.create_task(log.commit(record(number))) for number in range(3)]
        await asyncio.sleep(0)
        assert await unavailable(log) == "AUDIT_UNAVAILABLE"
        disk.gate.set()
        await asyncio.gather(*waiting)
        await log.commit(record(9))


async def test_a_caller_that_leaves_leaves_its_record(tmp_path: Path) -> None:
    disk = FaultyDisk()
    async with opened(tmp_path, disk) as log:
        disk.gate.clear()
        disk.reached.clear()
        leaving = asyncio.create_task(log.commit(record(request_id="left")))
        await asyncio.to_thread(disk.reached.wait)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        disk.gate.set()
        await log.commit(record())
    assert b'"left"' in audit_log.segment(tmp_path / "audit").read_bytes()


@pytest.mark.parametrize("bad", [{"stages_us": {"x": object()}}, {"peer": "x" * 100_000}])
async def test_a_record_that_cannot_be_written_harms_no_other(tmp_path: Path, bad: dict[str, Any]) -> None:
    async with opened(tmp_path) as log:
        outcome = await asyncio.gather(
            log.commit(record(1)), log.commit(record(2, **bad)), log.commit(record(3)), return_exceptions=True
        )
    assert [type(result) for result in outcome] == [type(None), Unavailable, type(None)]
    assert audit_log.verified(tmp_path / "audit").broken is None


async def test_before_start_and_after_stop_nothing_is_accepted(tmp_path: Path) -> None:
    log = AuditLog(audit_log.config(tmp_path))
    assert await unavailable(log) == "AUDIT_UNAVAILABLE"
    await log.start()
    await log.stop()
    assert await unavailable(log) == "AUDIT_UNAVAILABLE"
    await log.stop()


async def test_what_waits_is_written_before_the_end(tmp_path: Path) -> None:
    log = AuditLog(audit_log.config(tmp_path))
    await log.start()
    waiting = [asyncio.create_task(log.commit(record(number))) for number in range(50)]
    await asyncio.sleep(0)
    await log.stop()
    await asyncio.gather(*waiting)
    assert audit_log.verified(tmp_path / "audit").records == 52


async def test_a_checkpoint_is_made_when_its_time_comes(tmp_path: Path) -> None:
    log = AuditLog(audit_log.config(tmp_path, checkpoint_seconds=0.1))
    await log.start()
    path = tmp_path / "audit" / "checkpoints.jsonl"
    async with asyncio.timeout(10):
        while not path.read_bytes():  # noqa: ASYNC110 - nothing tells us but the file
            await asyncio.sleep(0.01)
    await log.stop()


async def test_a_broken_log_stops_the_start(tmp_path: Path) -> None:
    directory = audit_log.written(tmp_path)
    path = audit_log.segment(directory)
    path.write_bytes(path.read_bytes().replace(b'"bob"', b'"eve"', 1))
    with pytest.raises(ConfigError, match="not as it was left: record 1"):
        await AuditLog(audit_log.config(tmp_path)).start()


async def test_a_log_in_use_stops_the_start(tmp_path: Path) -> None:
    async with opened(tmp_path):
        with pytest.raises(ConfigError, match="another process"):
            await AuditLog(audit_log.config(tmp_path)).start()


async def test_digests_are_of_this_logs_key(tmp_path: Path) -> None:
    async with opened(tmp_path / "one") as one, opened(tmp_path / "two") as two:
        digests = []
        for log in (one, one, two):
            hmacs = log.content_hmacs()
            hmacs.request.update(b"prompt")
            digests.append((hmacs.request.hexdigest(), hmacs.key_id))
    assert digests[0] == digests[1] != digests[2]
