"""Prometheus asks: what it is told, what others are, and how little any of them can hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from meshgate.rpc.listen_address import host_and_port
from meshgate.runtime import metrics_server
from meshgate.runtime.config import ConfigError
from meshgate.runtime.metrics_server import Gauges, MetricsConfig, MetricsServer


@pytest.fixture
async def exposition() -> AsyncIterator[MetricsServer]:
    readings = Gauges()
    readings.gauge("meshgate_waiting", "What waits", lambda: 7)
    readings.counter("meshgate_lost_total", "What was lost", lambda: {"file": 1, "redis": 2}, "sink")
    made = MetricsServer(MetricsConfig(listen="127.0.0.1:0"), readings)
    await made.start()
    yield made
    await made.stop()


async def ask(exposition: MetricsServer, request: bytes) -> tuple[str, str]:
    """The status line's end and the body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", exposition.port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    head, _, body = answer.decode().partition("\r\n\r\n")
    return head.partition("\r\n")[0].removeprefix("HTTP/1.1 "), body


async def test_what_is_told(exposition: MetricsServer) -> None:
    status, body = await ask(exposition, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    samples = [s for family in text_string_to_metric_families(body) for s in family.samples]
    found = {(s.name, *s.labels.values()): s.value for s in samples}
    assert status == "200 OK"
    assert found["meshgate_waiting",] == 7
    assert (found["meshgate_lost_total", "file"], found["meshgate_lost_total", "redis"]) == (1, 2)
    assert found["process_resident_memory_bytes",] > 0


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET / HTTP/1.1", "404 Not Found"),
        (b"GET /metrics/../etc/passwd HTTP/1.1", "404 Not Found"),
        (b"POST /metrics HTTP/1.1", "405 Method Not Allowed"),
        (b"\x00\xff\xfe", "405 Method Not Allowed"),
        (b"GET /metrics?name[]=meshgate_waiting HTTP/1.0", "200 OK"),
    ],
)
async def test_what_is_asked(exposition: MetricsServer, request_line: bytes, status: str) -> None:
    assert (await ask(exposition, request_line + b"\r\n\r\n"))[0] == status


async def test_a_head_without_end_is_cut(exposition: MetricsServer) -> None:
    with pytest.raises((ConnectionResetError, BrokenPipeError, AssertionError)):
        assert (await ask(exposition, b"GET /metrics HTTP/1.1\r\n" + b"x" * 1_000_000))[1]
    assert (await ask(exposition, b"GET /metrics HTTP/1.1\r\n\r\n"))[0] == "200 OK"


async def test_connections_that_say_nothing_are_few_and_short(
    exposition: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics_server, "_SECONDS", 0.2)
    silent = [await asyncio.open_connection("127.0.0.1", exposition.port) for _ in range(50)]
    ends = [asyncio.create_task(reader.read()) for reader, _ in silent]
    async with asyncio.timeout(10):
        await asyncio.gather(*ends, return_exceptions=True)  # all are ended, those beyond the bound at once
    monkeypatch.undo()
    assert (await ask(exposition, b"GET /metrics HTTP/1.1\r\n\r\n"))[0] == "200 OK"
    for _, writer in silent:
        writer.close()


async def test_nothing_is_left_behind(exposition: MetricsServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", exposition.port)
    writer.write(b"GET /metrics HTTP/1.1\r\n")  # and no end
    await asyncio.sleep(0.01)
    await exposition.stop()
    assert await asyncio.wait_for(reader.read(), 10) == b"" or reader.at_eof()
    writer.close()
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection("127.0.0.1", exposition.port)


async def test_a_number_that_can_not_be_read_is_not_told_why() -> None:
    def fail() -> float:
        raise RuntimeError("a secret")

    readings = Gauges()
    readings.gauge("meshgate_waiting", "What waits", fail)
    made = MetricsServer(MetricsConfig(listen="127.0.0.1:0"), readings)
    await made.start()
    assert await ask(made, b"GET /metrics HTTP/1.1\r\n\r\n") == ("500 Internal Server Error", "")
    await made.stop()


async def test_workers_have_ports_of_their_own(exposition: MetricsServer) -> None:
    listen = f"127.0.0.1:{exposition.port - 1}"
    with pytest.raises(
        ConfigError, match=rf"^metrics\.listen: can't listen on 127\.0\.0\.1:{exposition.port}: another process uses it"
    ):
        await MetricsServer(MetricsConfig(listen=listen), worker=1).start()


async def test_off_by_default() -> None:
    made = MetricsServer(MetricsConfig())
    await made.start()
    assert made.port == 0
    await made.stop()


@pytest.mark.parametrize("listen", ["", "127.0.0.1", ":9464", "x:", "x:99999", "x:-1", "x:١"])
def test_an_address_that_is_none(listen: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        MetricsConfig(listen=listen)


@pytest.mark.parametrize(("listen", "expected"), [("[::1]:9464", ("::1", 9464)), ("x.example:1", ("x.example", 1))])
def test_an_address(listen: str, expected: tuple[str, int]) -> None:
    assert host_and_port(listen) == expected
