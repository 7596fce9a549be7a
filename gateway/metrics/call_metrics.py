"""The metrics of every call, at a cost of a few microseconds each.

Counting adds to integers on the event loop. Names, labels and buckets are made when Prometheus asks (see
`meshgate.runtime.metrics_server`). A caller cannot create a series. A method that is not served is `unknown`. A tenant
has its own series only if the configuration names it; all other tenants share one.

Times are counted in buckets that double from one microsecond. The bucket of a time is the bit length of its number, so
no search is needed, and any quantile is within a factor of two.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import Field

from gateway.authentication.names import TenantName
from gateway.call import Call
from gateway.metrics.outcome import Outcome
from gateway.routes import PUBLIC_ROUTES
from meshgate.runtime.metrics_server import MetricsConfig

UNKNOWN: Final = "unknown"
OTHER: Final = "OTHER"
_MAX_REASONS: Final = 100
_MICROSECONDS: Final = 1_000_000
_BOUNDS: Final = {length: repr((1 << length) / _MICROSECONDS) for length in range(4, 28)}
"""The upper bounds that are exported, in seconds, from 16 us to 134 s, by the bit length of the times below."""


class GatewayMetricsConfig(MetricsConfig):
    """The metrics section of the gateway."""

    tenants: tuple[TenantName, ...] = Field((), max_length=1000)
    """Tenants with series of their own for calls, bytes and tokens; all others share one with an empty name."""


class StageTimes:
    """How often something took how long."""

    __slots__ = ("buckets", "total")

    def __init__(self) -> None:
        self.buckets = [0] * 64
        """Counts by the length in bits of the time in microseconds."""
        self.total = 0
        """Microseconds."""

    def told(self) -> tuple[list[tuple[str, float]], float]:
        """Cumulative buckets by their upper bound in seconds, and the sum in seconds, as Prometheus wants them."""
        counts = list(accumulate(self.buckets))
        buckets = [(_BOUNDS[length], float(counts[length])) for length in _BOUNDS]
        return [*buckets, ("+Inf", float(counts[-1]))], self.total / _MICROSECONDS


class _Share:
    """The counts of one tenant, or of all unnamed tenants, for one method."""

    __slots__ = ("bytes_in", "bytes_out", "codes", "input_tokens", "output_tokens")

    def __init__(self) -> None:
        self.codes: dict[str, int] = defaultdict(int)
        self.bytes_in = self.bytes_out = self.input_tokens = self.output_tokens = 0

    def add(self, call: Call, code: str) -> None:
        self.codes[code] += 1
        self.bytes_in += call.bytes_in
        self.bytes_out += call.bytes_out
        self.input_tokens += call.input_tokens
        self.output_tokens += call.output_tokens


class _Method:
    """The counts of one method."""

    __slots__ = ("in_flight", "name", "shares", "times")

    def __init__(self, name: str, tenants: Iterable[str]) -> None:
        self.name = name
        self.in_flight = 0
        self.times = StageTimes()
        self.shares = {tenant: _Share() for tenant in ("", *tenants)}


class CallMetrics(Collector):
    """Counts calls. `began` and `ended` are each called once for a call, whatever becomes of it."""

    def __init__(self, config: GatewayMetricsConfig) -> None:
        names = {path: path.removeprefix("/") for path in PUBLIC_ROUTES}
        self._methods = {path: _Method(name, config.tenants) for path, name in names.items()}
        self._unknown = _Method(UNKNOWN, config.tenants)
        self._stages: dict[str, StageTimes] = defaultdict(StageTimes)
        self._refused: dict[str, int] = defaultdict(int)
        self._failed: dict[str, int] = defaultdict(int)

    def began(self, call: Call) -> None:
        """Counts a call that has begun."""
        self._methods.get(call.method, self._unknown).in_flight += 1

    def ended(self, call: Call, outcome: Outcome) -> None:
        """Counts a call that has ended with `outcome`."""
        method = self._methods.get(call.method, self._unknown)
        method.in_flight -= 1
        principal = call.principal
        shares = method.shares
        share = shares.get(principal.tenant) if principal is not None else None
        (share or shares[""]).add(call, outcome.code)
        if outcome.reason:
            _count(self._failed if call.admitted else self._refused, outcome.reason)
        total = 0
        for stage, microseconds in call.stages.items():
            total += microseconds
            times = self._stages[stage]
            times.total += microseconds
            times.buckets[microseconds.bit_length()] += 1
        method.times.total += total
        method.times.buckets[total.bit_length()] += 1

    def describe(self) -> Iterable[Metric]:
        """The metrics as exported, before any call."""
        return self.collect()

    def collect(self) -> Iterator[Metric]:
        methods = [*self._methods.values(), self._unknown]
        yield _in_flight(methods)
        yield _calls(methods)
        yield from _amounts(methods)
        yield _times("meshgate_gateway_call_seconds", "Time of a call, from start to end", "method", _used(methods))
        yield _times("meshgate_gateway_stage_seconds", "Time of a call in each stage", "stage", self._stages)
        yield _reasons("meshgate_gateway_refused_calls", "Calls that were not let in", self._refused)
        yield _reasons("meshgate_gateway_failed_calls", "Calls that were let in and did not end well", self._failed)


def _count(reasons: dict[str, int], reason: str) -> None:
    """Reasons are ours and few; a service's own are bounded here."""
    reasons[reason if reason in reasons or len(reasons) < _MAX_REASONS else OTHER] += 1


def _used(methods: Iterable[_Method]) -> Mapping[str, StageTimes]:
    return {method.name: method.times for method in methods if any(share.codes for share in method.shares.values())}


def _in_flight(methods: Iterable[_Method]) -> Metric:
    family = GaugeMetricFamily("meshgate_gateway_calls_in_flight", "Calls that go on now", labels=["method"])
    for method in methods:
        family.add_metric([method.name], method.in_flight)
    return family


def _calls(methods: Iterable[_Method]) -> Metric:
    family = CounterMetricFamily("meshgate_gateway_calls", "Calls that have ended", labels=["method", "tenant", "code"])
    for method, tenant, share in _shares(methods):
        for code, count in share.codes.items():
            family.add_metric([method, tenant, code], count)
    return family


def _amounts(methods: Iterable[_Method]) -> Iterator[Metric]:
    labels = ["method", "tenant", "direction"]
    volume = CounterMetricFamily("meshgate_gateway_message_bytes", "Bytes of messages", labels=labels)
    tokens = CounterMetricFamily("meshgate_gateway_tokens", "Tokens of models", labels=labels)
    for method, tenant, share in _shares(methods):
        volume.add_metric([method, tenant, "in"], share.bytes_in)
        volume.add_metric([method, tenant, "out"], share.bytes_out)
        if share.input_tokens or share.output_tokens:
            tokens.add_metric([method, tenant, "in"], share.input_tokens)
            tokens.add_metric([method, tenant, "out"], share.output_tokens)
    yield volume
    yield tokens


def _shares(methods: Iterable[_Method]) -> Iterator[tuple[str, str, _Share]]:
    for method in methods:
        for tenant, share in method.shares.items():
            if share.codes:
                yield method.name, tenant, share


def _times(name: str, about: str, label: str, found: Mapping[str, StageTimes]) -> Metric:
    family = HistogramMetricFamily(name, about, labels=[label])
    for value, times in found.items():
        buckets, total = times.told()
        family.add_metric([value], buckets=buckets, sum_value=total)
    return family


def _reasons(name: str, about: str, found: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, about, labels=["reason"])
    for reason, count in found.items():
        family.add_metric([reason], count)
    return family
