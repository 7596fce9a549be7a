"""A log whose files are moved, cut or replaced under a running gateway: it is noticed within a second, calls are
refused rather than recorded where nobody will look, the process log names the file, and the next start says what to do.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from gateway.audit import AuditLog
from gateway.audit.chain.checkpoint import FILE
from gateway.audit.chain.file_watch import CHECK_SECONDS, LogFileChanged
from gateway.audit.sinks.file_sink import FileSink
from meshgate import errors
from meshgate.runtime.config import ConfigError
from tests.support.fixtures import audit_log
from tests.support.fixtures.audit_log import Clock, FastDisk
from tests.support.fixtures.waiting import until

Disturb = Callable[[Path], None]

SEALED: Final = "audit-00000001.jsonl"
CURRENT: Final = "audit-00000002.jsonl"


def renamed(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replaced(path: Path) -> None:
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").replace(path)


def emptied(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:100])


def written_to(path: Path) -> None:
    path.chmod(0o600)
    with path.open("ab") as file:
        file.write(b"x\n")


def linked(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def replaced_folder(path: Path) -> None:
    renamed(path)
    shutil.copytree(path.with_name("elsewhere"), path)


def made_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


DISTURBANCES: Final[dict[str, tuple[Disturb, str]]] = {
    "renamed": (renamed, "was renamed or removed"),
    "unlinked": (Path.unlink, "was renamed or removed"),
    "replaced by a copy": (replaced, "was replaced"),
    "replaced by a link": (linked, "was replaced"),
    "replaced by a directory": (made_a_directory, "was replaced"),
    "emptied": (emptied, "was emptied"),
    "cut": (cut, "was cut from"),
    "written to": (written_to, "was written to by another process"),
    "unreadable": (lambda path: path.chmod(0), "can't be read any more"),
}
FOLDERS: Final[dict[str, tuple[Disturb, str]]] = {
    "moved": (lambda path: renamed(path), "the directory of the audit log was renamed or removed"),
    "removed": (lambda path: shutil.rmtree(path), "the directory of the audit log was renamed or removed"),
    "replaced": (replaced_folder, "the directory of the audit log was replaced"),
}


async def begun(tmp_path: Path) -> AuditLog:
    """A running log with one sealed segment and one that goes on."""
    log = AuditLog(audit_log.config(tmp_path, segment_bytes=4096))
    await log.start()
    number = 0
    while not (tmp_path / "audit" / CURRENT).exists():
        await log.commit(audit_log.record(number))
        number += 1
    await log.commit(audit_log.record(number))
    assert log.healthy
    return log


async def noticed(log: AuditLog, caplog: pytest.LogCaptureFixture, what: str) -> None:
    """While nobody calls; then whoever does is refused, and nothing is written."""
    assert await until(lambda: not log.healthy) < 20 * CHECK_SECONDS  # a busy machine; see the test with a clock
    with pytest.raises(errors.Unavailable) as refused:
        await log.commit(audit_log.record(99))
    assert refused.value.reason == "AUDIT_UNAVAILABLE"
    (said,) = [record for record in caplog.records if record.message == "audit records not written"]
    assert what in vars(said)["why"]
    assert "meshgate audit verify" in vars(said)["why"]
    assert not said.exc_info


@pytest.mark.parametrize("name", [CURRENT, FILE, SEALED])
@pytest.mark.parametrize(("disturb", "what"), DISTURBANCES.values(), ids=DISTURBANCES)
async def test_a_file_that_is_not_what_or_where_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, disturb: Disturb, what: str, name: str
) -> None:
    log = await begun(tmp_path)
    try:
        disturb(tmp_path / "audit" / name)
        await noticed(log, caplog, f"{name} {what}")
    finally:
        await log.stop()
    assert not [record for record in caplog.records if record.exc_info]


@pytest.mark.parametrize(("disturb", "what"), FOLDERS.values(), ids=FOLDERS)
async def test_a_directory_that_is_not_where_it_was(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, disturb: Disturb, what: str
) -> None:
    log = await begun(tmp_path)
    try:
        disturb(tmp_path / "audit")
        await noticed(log, caplog, what)
    finally:
        await log.stop()


async def test_what_is_put_back_goes_on(tmp_path: Path) -> None:
    log = await begun(tmp_path)
    path = tmp_path / "audit" / CURRENT
    path.rename(path.with_name("elsewhere"))
    await until(lambda: not log.healthy)
    path.with_name("elsewhere").rename(path)
    await until(lambda: log.healthy)
    await log.commit(audit_log.record(1))
    await log.stop()
    assert audit_log.verified(tmp_path / "audit").broken is None


@pytest.mark.parametrize("busy", [False, True])
def test_it_is_noticed_within_a_second_and_not_looked_for_at_each_record(tmp_path: Path, busy: bool) -> None:
    """By the clock: a write or, where there is none, the time at which the sink wants to be woken."""
    clock, disk = Clock(), FastDisk()
    sink = FileSink(audit_log.config(tmp_path), "", disk, clock=clock.wall, monotonic=clock.monotonic)
    sink.open()
    sink.write([audit_log.encoded(1)])
    (tmp_path / "audit" / SEALED).rename(tmp_path / "audit" / "elsewhere")
    for number in range(20):
        sink.write([audit_log.encoded(number)])  # no time passes, and nothing is looked at
    clock.advance(CHECK_SECONDS)
    assert CHECK_SECONDS < 1
    assert sink.due() == 0
    with pytest.raises(Exception, match="was renamed or removed"):
        sink.write([audit_log.encoded(3)]) if busy else sink.idle()
    with pytest.raises(LogFileChanged):
        sink.write([audit_log.encoded(4)])
    sink.close()
    assert (tmp_path / "audit" / "elsewhere").read_bytes().count(b"\n") == 22


@pytest.mark.parametrize("name", [CURRENT, FILE, SEALED])
@pytest.mark.parametrize("disturb", [renamed, Path.unlink, emptied, cut], ids=["renamed", "unlinked", "emptied", "cut"])
async def test_the_next_start_says_what_to_do(tmp_path: Path, disturb: Disturb, name: str) -> None:
    log = await begun(tmp_path)
    await log.stop()
    disturb(tmp_path / "audit" / name)
    if name == SEALED and disturb in (emptied, cut):
        return  # a start reads the last segment alone
    for _ in range(2):
        with pytest.raises(ConfigError) as refused:
            await AuditLog(audit_log.config(tmp_path)).start()
        said = str(refused.value)
        assert said.startswith("audit.directory: the audit log is not as it was left: ")
        assert "Put back what was moved, cut or replaced" in said
        assert "move the whole directory aside" in said
        assert "\n" not in said
        assert str(tmp_path) not in said
    if name != CURRENT and disturb is renamed:
        (tmp_path / "audit" / "elsewhere").rename(tmp_path / "audit" / name)
        again = AuditLog(audit_log.config(tmp_path))
        await again.start()
        await again.stop()
        assert audit_log.verified(tmp_path / "audit").broken is None


async def test_a_log_moved_aside_as_a_whole_begins_anew_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = await begun(tmp_path)
    await log.stop()
    assert not [record for record in caplog.records if record.message == "audit log begins"]
    (tmp_path / "audit").rename(tmp_path / "kept")
    again = AuditLog(audit_log.config(tmp_path))
    await again.start()
    await again.stop()
    (said,) = [record for record in caplog.records if record.message == "audit log begins"]
    assert "move this one aside and that one back" in vars(said)["why"]
    assert said.levelno == logging.WARNING
    for directory in ("audit", "kept"):
        assert audit_log.verified(tmp_path / directory).broken is None
