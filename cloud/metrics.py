"""Counters, gauges and histograms in Prometheus' text format, summed over the processes that share a folder.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text, 0.0.4).
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import msgspec

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
PICTURES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


@dataclass(frozen=True, slots=True)
class Family:
    """A metric's kind and help; `buckets` are the upper bounds of a histogram's."""

    kind: str
    help: str
    buckets: tuple[float, ...] = ()


FAMILIES = {
    "edge_cloud_requests_total": Family("counter", "Inference requests answered, by model and HTTP status."),
    "edge_cloud_pictures_total": Family("counter", "Pictures answered."),
    "edge_cloud_received_bytes_total": Family("counter", "Bytes of inference requests read."),
    "edge_cloud_kept_total": Family("counter", "Examples offered for keeping, by what became of them."),
    "edge_cloud_request_seconds": Family("histogram", "From the headers of a request to its answer.", SECONDS),
    "edge_cloud_queue_seconds": Family("histogram", "A picture's wait for a lane.", SECONDS),
    "edge_cloud_inference_seconds": Family("histogram", "One inference of a batch.", SECONDS),
    "edge_cloud_batch_pictures": Family("histogram", "Pictures in a batch.", PICTURES),
    "edge_cloud_queue_pictures": Family("gauge", "Pictures accepted and not answered yet."),
    "edge_cloud_held_bytes": Family("gauge", "Bytes of requests in memory."),
    "edge_cloud_connections": Family("gauge", "Open connections."),
    "edge_cloud_resident_bytes": Family("gauge", "Resident memory of the process."),
}

Series = dict[str, dict[str, list[float]]]
"""Family → labels as they are written → one value, or a histogram's counts by bucket, the count beyond them and the sum."""


class Metrics:
    """This process's figures; from any thread. In `shared`, the processes of one endpoint publish theirs to each other."""

    def __init__(self, shared: Path | None = None) -> None:
        self._lock = threading.Lock()
        self._series: Series = {name: {} for name in FAMILIES}
        self._shared = shared
        self._worker = str(os.getpid()) if shared else ""

    def add(self, name: str, amount: float = 1.0, **labels: object) -> None:
        """Count."""
        with self._lock:
            self._series[name].setdefault(_written(labels), [0.0])[0] += amount

    def observe(self, name: str, value: float, **labels: object) -> None:
        """A histogram's next value."""
        buckets = FAMILIES[name].buckets
        with self._lock:
            counts = self._series[name].setdefault(_written(labels), [0.0] * (len(buckets) + 2))
            counts[bisect_left(buckets, value)] += 1
            counts[-1] += value

    def set(self, name: str, value: float, **labels: object) -> None:
        """A gauge's value now, by process where there are several."""
        with self._lock:
            self._series[name][_written(labels | ({"worker": self._worker} if self._worker else {}))] = [float(value)]

    def publish(self) -> None:
        """Let the other processes see these figures."""
        if self._shared is not None:
            temporary = self._shared / f".{self._worker}"
            with self._lock:
                temporary.write_bytes(msgspec.json.encode(self._series))
            temporary.replace(self._shared / self._worker)

    def text(self) -> str:
        """The exposition of all processes: counters and histograms summed, gauges of those that live."""
        with self._lock:
            total: Series = {name: {key: list(values) for key, values in rows.items()} for name, rows in self._series.items()}
        for other in self._others():
            for name, rows in other.items():
                for key, values in rows.items():
                    before = total[name].get(key, [0.0] * len(values))
                    total[name][key] = [a + b for a, b in zip(before, values, strict=True)]
        return "\n".join(line for name, rows in total.items() for line in _lines(name, rows)) + "\n"

    def _others(self) -> Iterator[Series]:
        for path in sorted(self._shared.glob("[0-9]*")) if self._shared else []:
            if path.name != self._worker:
                series = msgspec.json.decode(path.read_bytes(), type=Series)
                alive = os.path.exists(f"/proc/{path.name}")
                yield {name: rows for name, rows in series.items() if alive or FAMILIES[name].kind != "gauge"}


def _written(labels: dict[str, object]) -> str:
    return _joined(tuple(labels.items()))


@lru_cache(1024)
def _joined(labels: tuple[tuple[str, object], ...]) -> str:
    return ",".join(f'{key}="{_escaped(str(value))}"' for key, value in labels)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _lines(name: str, rows: dict[str, list[float]]) -> Iterator[str]:
    family = FAMILIES[name]
    yield f"# HELP {name} {family.help}"
    yield f"# TYPE {name} {family.kind}"
    for labels, values in rows.items():
        if not family.buckets:
            yield f"{name}{{{labels}}} {values[0]:.17g}" if labels else f"{name} {values[0]:.17g}"
            continue
        count = 0.0
        for bound, one in zip((*map(str, family.buckets), "+Inf"), values, strict=False):
            count += one
            yield f'{name}_bucket{{{labels},le="{bound}"}} {count:.17g}'
        yield f"{name}_sum{{{labels}}} {values[-1]:.17g}"
        yield f"{name}_count{{{labels}}} {count:.17g}"
