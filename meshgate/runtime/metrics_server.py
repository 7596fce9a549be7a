"""The metrics of a process for Prometheus: one registry and one small HTTP server for it, on an address of its own.

Each part counts with plain integers on the event loop, which are read when Prometheus asks. A call pays for an addition
and never for a lock, a label look-up or a formatted string. The event loop also reads the numbers, so none changes
meanwhile. Calls have their turn between two families of numbers. prometheus_client's own server is not used: it answers
each connection with a thread, and nothing bounds their number or their time.

Each worker has a registry at a port of its own, and Prometheus adds workers up as it adds up replicas. The multiprocess
mode of prometheus_client would join them with files that each observation writes to. Those files outlive their worker.

The answer names callers and their usage, and the server does not authenticate its clients. Bind it to the loopback
address, or to one that a network policy keeps for Prometheus.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from meshgate.rpc.listen_address import ListenTcp, host_and_port, unusable
from meshgate.runtime.config import ConfigError, Strict

_log = logging.getLogger(__name__)

_CONNECTIONS: Final = 8
_SECONDS: Final = 5.0
"""How long one connection may last, from its first byte to its last."""
_REQUEST_BYTES: Final = 8192
_PATH: Final = "/metrics"

Reading = float | Mapping[str, float]
"""A number, or numbers by the value of a label."""


class MetricsConfig(Strict):
    """Where Prometheus finds this process."""

    listen: ListenTcp | None = None
    """host:port; worker N of a gateway listens at port + N. Without it nothing listens."""


class _Source(NamedTuple):
    counts: bool
    name: str
    about: str
    label: str
    read: Callable[[], Reading]


class Gauges(Collector):
    """Numbers that a part keeps for itself, read when Prometheus asks: a queue's length, a cache's size."""

    def __init__(self) -> None:
        self._sources: list[_Source] = []

    def gauge(self, name: str, about: str, read: Callable[[], Reading], label: str = "") -> None:
        """A number that goes up and down. With `label`, `read` gives a mapping from the label's values."""
        self._sources.append(_Source(False, name, about, label, read))

    def counter(self, name: str, about: str, read: Callable[[], Reading], label: str = "") -> None:
        """A number that only grows. `name` ends with _total."""
        self._sources.append(_Source(True, name, about, label, read))

    def describe(self) -> Iterable[Metric]:
        """Nothing is read before the process runs."""
        return ()

    def collect(self) -> Iterable[Metric]:
        for source in self._sources:
            kind = CounterMetricFamily if source.counts else GaugeMetricFamily
            family: Metric = kind(source.name, source.about, labels=[source.label] if source.label else [])
            found = source.read()
            for value, number in found.items() if isinstance(found, Mapping) else [("", found)]:
                name = source.name if source.counts else family.name
                family.add_sample(name, {source.label: value} if source.label else {}, float(number))
            yield family


class MetricsServer:
    """Answers GET /metrics. `port` is the bound one once `start` returns, or 0 where nothing listens."""

    def __init__(self, config: MetricsConfig, *collectors: Collector, worker: int = 0) -> None:
        """`collectors` are exported beside the process's own memory, time and files."""
        self.port = 0
        self.registry = CollectorRegistry()
        self._listen = config.listen
        self._worker = worker
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        for collector in collectors:
            self.registry.register(collector)

    async def start(self) -> None:
        """Listens, where the configuration says so. Raises ConfigError for an address that can't be used."""
        if self._listen is None:
            return
        host, port = host_and_port(self._listen)
        chosen = port + self._worker if port else 0
        try:
            self._server = await asyncio.start_server(self._accept, host, chosen, limit=_REQUEST_BYTES)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"metrics.listen: {unusable(f'{host}:{chosen}')}") from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Closes the port and ends what is being answered."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
            for task in self._serving:
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)
            await server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._serving) >= _CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=0)  # so that drain waits until all has left
        try:
            async with asyncio.timeout(_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._answer(head))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            _log.debug("a connection for metrics ended early")
        finally:
            writer.transport.abort()

    async def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
        if method != b"GET":
            return _response("405 Method Not Allowed")
        if rest.partition(b" ")[0].partition(b"?")[0] != _PATH.encode():
            return _response("404 Not Found")
        try:
            return _response("200 OK", await self._told())
        except Exception:  # the border: a number that can't be read is for the log, not for who asks
            _log.exception("metrics can't be told")
            return _response("500 Internal Server Error")

    async def _told(self) -> bytes:
        """All numbers. A family takes a millisecond or so, during which no call goes on."""
        families = []
        for family in self.registry.collect():
            families.append(generate_latest(_One(family)))
            await asyncio.sleep(0)
        return b"".join(families)


class _One(Collector):
    """One family that has been read."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        yield self._family


def _response(status: str, body: bytes = b"") -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {CONTENT_TYPE_PLAIN_0_0_4}\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
