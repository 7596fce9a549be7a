"""The load report in a replica's trailers, by which the gateway's weighted_round_robin distributes calls.

The message is xds.data.orca.v3.OrcaLoadReport (gRFC A51). Protobuf encodes it from a description of the four fields
that a report has, because the package of the whole message (xds-protos) is large.

gRPC gives a replica calls in proportion to its calls a second over its utilisation (gRFC A58). Utilisation here is
the mean number of calls in flight, over `FULL`. By Little's law (L = lambda W), calls a second over calls in flight is
one over the time of a call, computing and queueing together. So replicas that answer sooner get more calls, and those
with a longer queue fewer, until all answer equally soon. The value of `FULL` cancels out between replicas that agree on
it. The report also has the processor's load, for information; it says nothing about a GPU's load.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from meshgate import errors

KEY: Final = "endpoint-load-metrics-bin"
"""The trailer that holds a report."""
FULL: Final = 100.0
"""Calls in flight that count as a utilisation of 1; it may be more."""

_WINDOW_SECONDS: Final = 0.5
_FIELDS: Final = {"cpu_utilization": 1, "rps_fractional": 6, "eps": 7, "application_utilization": 9}
"""The numbers of the message's fields, in xds/data/orca/v3/orca_load_report.proto. All of them are doubles."""

_CALLERS: Final = (
    errors.InvalidArgument,
    errors.Unauthenticated,
    errors.PermissionDenied,
    errors.NotFound,
    errors.LimitExceeded,
    errors.DeadlineExceeded,
    errors.Cancelled,
    errors.Unimplemented,
)
"""The codes that are not the replica's failure."""

Trailer = tuple[str, bytes]


def _report_class() -> Any:
    """The class of the message, in a pool of its own: another library may have the whole message."""
    file = descriptor_pb2.FileDescriptorProto(name="orca.proto", package="xds.data.orca.v3", syntax="proto3")
    message = file.message_type.add(name="OrcaLoadReport")
    for name, number in _FIELDS.items():
        message.field.add(name=name, number=number, type="TYPE_DOUBLE", label="LABEL_OPTIONAL")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("xds.data.orca.v3.OrcaLoadReport"))


_Report: Final = _report_class()


def encode(**doubles: float) -> bytes:
    """An OrcaLoadReport with these fields. Raises ValueError for a field it does not have."""
    encoded: bytes = _Report(**doubles).SerializeToString()
    return encoded


class Load:
    """The load of this process: calls come with `enter` and go with `leave`. For one event loop."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, cpu_clock: Callable[[], float] = time.process_time
    ) -> None:
        """Both clocks in seconds; `cpu_clock` is what was used of all processors together."""
        self._clock = clock
        self._cpu_clock = cpu_clock
        self._processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._held = 0
        self._held_seconds = 0.0
        self._done = self._failed = 0
        self._trailers: tuple[Trailer, ...] = ()
        self._at = self._began = clock()
        self._cpu = cpu_clock()

    def enter(self) -> None:
        """Counts a call that has begun."""
        self._count()
        self._held += 1

    def leave(self, *, failed: bool) -> None:
        """Counts a call that has ended. `failed` is the replica's failure, not the caller's."""
        now = self._count()
        self._held -= 1
        self._done += 1
        self._failed += failed
        if now - self._began >= _WINDOW_SECONDS:
            self._report(now)

    def trailers(self) -> tuple[Trailer, ...]:
        """The report of the last window that is over; nothing before there was one."""
        return self._trailers

    def _count(self) -> float:
        now = self._clock()
        self._held_seconds += self._held * (now - self._at)
        self._at = now
        return now

    def _report(self, now: float) -> None:
        """Ends the window and makes its report. All calls of the next window send this one, which is recent enough."""
        elapsed, cpu = now - self._began, self._cpu_clock()
        report = encode(
            cpu_utilization=max(0.0, cpu - self._cpu) / elapsed / self._processors,
            rps_fractional=self._done / elapsed,
            eps=self._failed / elapsed,
            application_utilization=self._held_seconds / elapsed / FULL,
        )
        self._trailers = ((KEY, report),)
        self._began, self._cpu, self._held_seconds = now, cpu, 0.0
        self._done = self._failed = 0


class InHand:
    """One call, for the length of a `with`. One that ends well takes the report along in its trailers."""

    __slots__ = ("_context", "_load")

    def __init__(self, load: Load, context: Any) -> None:
        self._load = load
        self._context = context

    def __enter__(self) -> None:
        self._load.enter()

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        self._load.leave(failed=kind is not None and issubclass(kind, Exception) and not issubclass(kind, _CALLERS))
        trailers = self._load.trailers()
        if kind is None and trailers:
            self._context.set_trailing_metadata((*(self._context.trailing_metadata() or ()), *trailers))
