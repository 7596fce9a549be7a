"""The reference of metrics, made from the calls that register them and from the gateway's own collector."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from unittest.mock import MagicMock

from gateway.metrics.call_metrics import CallMetrics, GatewayMetricsConfig
from meshgate.runtime.metrics_server import Gauges, Reading
from services.batching.metrics import export
from tools.reference.markdown import Pages, anchored, page, prose, table

ROOT: Final = Path(__file__).parents[2]
_HEAD: Final = """\
Each process answers `GET /metrics` at the address in its key `metrics.listen`, in the text format of Prometheus. Worker
N of a gateway answers at that port + N. A histogram has the series `_bucket`, `_sum` and `_count`."""
_PROCESS: Final = {
    "process_virtual_memory_bytes": ("gauge", "Virtual memory."),
    "process_resident_memory_bytes": ("gauge", "Resident memory."),
    "process_start_time_seconds": ("gauge", "Start of the process, in seconds since the Unix epoch."),
    "process_cpu_seconds_total": ("counter", "CPU time of user and system."),
    "process_open_fds": ("gauge", "Open file descriptors."),
    "process_max_fds": ("gauge", "Largest number of open file descriptors."),
}
_COLLECTOR: Final = {
    "python_gc_objects_collected_total": ("counter", "Objects that the garbage collector freed."),
    "python_gc_objects_uncollectable_total": ("counter", "Objects that the garbage collector could not free."),
    "python_gc_collections_total": ("counter", "Runs of the garbage collector."),
}


class Metric(NamedTuple):
    """A metric as Prometheus shows it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str


class _Recorder(Gauges):
    """Keeps what is registered instead of reading it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Metric] = []

    def gauge(self, name: str, about: str, read: Callable[[], Reading], label: str = "") -> None:
        self.found.append(Metric(name, "gauge", (label,) if label else (), about))

    def counter(self, name: str, about: str, read: Callable[[], Reading], label: str = "") -> None:
        self.found.append(Metric(name, "counter", (label,) if label else (), about))


def pages() -> Pages:
    """One page, a section for each part."""
    models = "The process that holds the models of the embedding or classification service."
    parts = (
        _section("Gateway", "", [*_calls(), *_registered("gateway")]),
        _section("Generation service", "", _registered("services/generation")),
        _section("Embedding and classification services", "", _batcher()),
        _section("Model process", models, list(_process_of("meshgate_models_"))),
        _section("Every process", "", [*_process_of(""), *_garbage()]),
    )
    return {"metrics.md": page("Metrics", _HEAD, *parts)}


def _section(title: str, about: str, found: list[Metric]) -> str:
    rows = ([anchored(each.name), each.kind, ", ".join(each.labels), prose(each.help)] for each in sorted(found))
    listed = table(["metric", "type", "labels", "meaning"], rows)
    return "\n\n".join(part for part in (f"## {title}", about, listed) if part)


def _calls() -> Iterator[Metric]:
    """The metrics of calls: families that the gateway makes when it is asked."""
    for family in CallMetrics(GatewayMetricsConfig()).collect():
        labels: tuple[str, ...] = getattr(family, "_labelnames", ())
        name = f"{family.name}_total" if family.type == "counter" else family.name
        yield Metric(name, family.type, tuple(labels), family.documentation)


def _registered(folder: str) -> list[Metric]:
    """The metrics that the modules of a folder register by their full names."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / folder).rglob("*.py")))
    return [metric for tree in trees for node in ast.walk(tree) for metric in _of(node)]


def _of(node: ast.AST) -> Iterator[Metric]:
    match node:
        case ast.Call(ast.Attribute(attr="gauge" | "counter" as kind), [name, about, _, *labels]):
            texts = [_text(each) for each in (name, about, *labels)]
            if str(texts[0]).startswith("meshgate_"):
                yield Metric(str(texts[0]), kind, tuple(map(str, texts[2:])), str(texts[1]))


def _text(node: ast.expr) -> Any:
    return node.value if isinstance(node, ast.Constant) else None


def _batcher() -> list[Metric]:
    recorder = _Recorder()
    export(recorder, MagicMock())
    return recorder.found


def _process_of(prefix: str) -> Iterator[Metric]:
    """The metrics that prometheus_client has of a process, on Linux."""
    return (Metric(f"{prefix}{name}", kind, (), about) for name, (kind, about) in _PROCESS.items())


def _garbage() -> Iterator[Metric]:
    return (Metric(name, kind, ("generation",), about) for name, (kind, about) in _COLLECTOR.items())
