"""The load that a replica reports: the bytes of the message, and the arithmetic on a clock of ours."""

from __future__ import annotations

from typing import Any

import pytest

from meshgate import errors
from meshgate.rpc import orca


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Context:
    def __init__(self, *trailers: tuple[str, str]) -> None:
        self._trailers: Any = trailers

    def set_trailing_metadata(self, trailers: Any) -> None:
        self._trailers = trailers

    def trailing_metadata(self) -> Any:
        return self._trailers


def parsed(load: orca.Load) -> Any:
    ((key, value),) = load.trailers()
    assert key == "endpoint-load-metrics-bin"
    return orca._Report.FromString(value)


def test_a_report_is_the_bytes_that_xds_protos_writes() -> None:
    """These are of xds-protos 1.85.0: the numbers and types of the fields are those of the published message."""
    encoded = orca.encode(cpu_utilization=0.25, rps_fractional=12.5, eps=0.5, application_utilization=1.75)
    assert encoded.hex() == "09000000000000d03f31000000000000294039000000000000e03f49000000000000fc3f"


def test_a_field_that_the_message_lacks_is_an_error() -> None:
    with pytest.raises(ValueError, match="queue"):
        orca.encode(queue=1.0)


def test_nothing_is_reported_before_a_window_is_over() -> None:
    load = orca.Load(Clock(), Clock())
    load.enter()
    load.leave(failed=False)
    assert load.trailers() == ()


def test_calls_a_second_over_utilisation_is_one_over_the_time_of_a_call() -> None:
    """What gRPC divides by: Little's law, whatever the arrivals."""
    clock = Clock()
    load = orca.Load(clock, Clock())
    for _ in range(10):  # two at a time, a quarter of a second each
        load.enter()
        load.enter()
        clock.now += 0.25
        load.leave(failed=False)
        load.leave(failed=False)
    report = parsed(load)
    assert report.rps_fractional / (report.application_utilization * orca.FULL) == pytest.approx(1 / 0.25, rel=0.2)


def test_the_processors_load_and_failures_are_of_the_window_alone() -> None:
    clock, cpu = Clock(), Clock()
    load = orca.Load(clock, cpu)
    load._processors = 2
    for failed, busy in ((True, 1.0), (False, 0.5)):
        load.enter()
        clock.now += 1.0
        cpu.now += busy
        load.leave(failed=failed)
        report = parsed(load)
        assert (report.cpu_utilization, report.eps) == (busy / 2, float(failed))


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        (errors.Internal("x"), 1.0),
        (errors.Unavailable("x"), 1.0),
        (RuntimeError("x"), 1.0),
        (errors.InvalidArgument("x"), 0.0),
        (errors.DeadlineExceeded("x"), 0.0),
    ],
)
def test_what_the_caller_did_wrong_is_not_the_replicas_failure(error: Exception, failed: float) -> None:
    clock = Clock()
    load = orca.Load(clock, Clock())
    with pytest.raises(type(error)), orca.InHand(load, Context()):
        clock.now += 1.0
        raise error
    assert parsed(load).eps == failed


def test_a_report_joins_the_trailers_that_are_there() -> None:
    clock, context = Clock(), Context(("x-meshgate-usage", "1,2"))
    load = orca.Load(clock, Clock())
    with orca.InHand(load, context):
        clock.now += 1.0
    assert [key for key, _ in context.trailing_metadata()] == ["x-meshgate-usage", orca.KEY]
