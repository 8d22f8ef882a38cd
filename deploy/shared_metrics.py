"""One page of metrics for several processes.

Counters and histograms stand in mapped files, one for each worker's number: the next process with that number goes on
counting in it, so sums never fall. Gauges tell of now, and are asked of those that run; `schemas/metric_names.py` says
of each whether the sum or the largest is shown. What is known of a process itself (`process_…`) has the label `worker`.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from prometheus_client import CollectorRegistry, generate_latest, values
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from schemas import metric_names

_OF_PROCESS: Final = "process_"
_FILE_BYTES: Final = 128 * 1024
"""More than a service's metrics need."""
_GAUGES: Final = {metric.name: metric for metric in metric_names.ALL if metric.kind == "gauge"}


class Family(msgspec.Struct, frozen=True):
    """A metric with its values in one process: for each its name, labels and number."""

    name: str
    help: str
    kind: str
    samples: list[tuple[str, dict[str, str], float]]


def keep_in_files(folder: Path, number: int) -> None:
    """Keep what this process counts in files of the folder; call it before any metric is made.

    Args:
        folder: shared by all processes of the service.
        number: the worker's; no two running processes may have the same.

    Raises:
        OSError: no space, or no right to write there.
    """
    for kind in ("counter", "histogram"):
        # The library would leave holes, and to fill one of them in a mapped file while the disk is full is fatal.
        with (folder / f"{kind}_{number}.db").open("ab") as file:
            if sys.platform != "darwin":  # has no such call
                os.posix_fallocate(file.fileno(), 0, _FILE_BYTES)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)  # where the library opens its files
    in_file = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]

    def value(kind: str, *args: Any, **kwargs: Any) -> Any:
        return (values.MutexValue if kind == "gauge" else in_file)(kind, *args, **kwargs)

    values.ValueClass = value  # the library's own way to choose the number in place of the process's


def gauges(registry: CollectorRegistry) -> list[Family]:
    """Read what is known of this process alone: its gauges, and those of the system about it."""
    return [
        Family(
            family.name,
            family.documentation,
            family.type,
            [(sample.name, sample.labels, sample.value) for sample in family.samples],
        )
        for family in registry.collect()
        if family.type == "gauge" or family.name.startswith(_OF_PROCESS)
    ]


def page(folder: Path, told: Mapping[int, Sequence[Family]]) -> bytes:
    """Write the metrics of all processes in Prometheus' text format.

    Args:
        folder: with the files of all.
        told: the gauges of those that run, by the worker's number.
    """
    # A file that a process is just making is empty for a moment: the library would fail to read it.
    files = [str(file) for file in sorted(folder.glob("*.db")) if file.stat().st_size]
    registry = CollectorRegistry()
    counted = MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]
    registry.register(_Made([*counted, *_merged(told)]))
    return generate_latest(registry)


def _merged(told: Mapping[int, Sequence[Family]]) -> Iterable[Metric]:
    merged: dict[str, Metric] = {}
    sums: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for number, families in sorted(told.items()):
        for family in families:
            made = merged.setdefault(family.name, Metric(family.name, family.help, family.kind))
            known = _GAUGES.get(family.name)
            for name, labels, value in family.samples:
                if known is None:
                    made.add_sample(name, {**labels, "worker": str(number)}, value)
                    continue
                key = name, tuple(labels.items())
                before = sums.get(key)
                if before is None:
                    sums[key] = value
                else:
                    sums[key] = max(before, value) if known.over_workers == "max" else before + value
    for (name, found), value in sums.items():
        merged[name].add_sample(name, dict(found), value)
    return merged.values()


class _Made(Collector):
    """Gives metrics that were made before."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics
