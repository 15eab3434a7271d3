"""What controllers and workloads tell at a scrape; the controllers' names are controller-runtime's and client-go's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from isoplane.client.controller import Controller
from isoplane.client.informer import Informers
from isoplane.objects import metadata
from isoplane.objects.exposition import Family, Kind, Sample
from isoplane.workload.lifecycle import UNREACHABLE
from isoplane.workload.registry import adapter_for, workload_resources


def controller_families(controllers: Sequence[Controller]) -> Iterator[Family]:
    """Counters of every controller's loop and the depth of its queue."""

    def each(name: str, kind: Kind, help_: str, value: Callable[[Controller], float], label: str) -> Family:
        return Family(name, kind, help_, [Sample({label: one.name}, value(one)) for one in controllers])

    results: list[Sample] = []
    times: list[Sample] = []
    for one in controllers:
        seen = one.metrics
        outcomes = {
            "success": seen.reconciles - seen.failures - seen.conflicts,
            "error": seen.failures,
            "conflict": seen.conflicts,
        }
        results += [Sample({"controller": one.name, "result": result}, count) for result, count in outcomes.items()]
        times.append(Sample({"controller": one.name}, seen.seconds, "_sum"))
        times.append(Sample({"controller": one.name}, seen.reconciles, "_count"))
    yield Family("controller_runtime_reconcile_total", "counter", "Reconciliations, by how they ended.", results)
    yield each(
        "controller_runtime_reconcile_errors_total",
        "counter",
        "Reconciliations that failed, conflicts aside.",
        lambda one: one.metrics.failures,
        "controller",
    )
    yield Family(
        "controller_runtime_reconcile_time_seconds", "summary", "Time in reconciliations, waiting included.", times
    )
    yield each(
        "isoplane_controller_stalled_total",
        "counter",
        "Keys that came back again and again without progress and were backed off.",
        lambda one: one.metrics.stalled,
        "controller",
    )
    yield each(
        "isoplane_controller_slowest_seconds",
        "gauge",
        "The longest reconciliation since the start.",
        lambda one: one.metrics.slowest,
        "controller",
    )
    yield each("workqueue_depth", "gauge", "Keys that wait for a worker.", lambda one: len(one.queue), "name")
    yield each(
        "workqueue_retries_total",
        "counter",
        "Keys that were put back after a failure or a conflict.",
        lambda one: one.metrics.failures + one.metrics.conflicts,
        "name",
    )


def workload_families(informers: Informers) -> Iterator[Family]:
    """How many workloads there are, by namespace, kind and stage. Projections are the caches' own, made once a version."""
    found: Counter[tuple[str, str, str]] = Counter()
    for resource in workload_resources():
        informer, adapter = informers.of(resource), adapter_for(resource)
        assert adapter is not None
        for obj in informer.items():
            workload = informer.derived(adapter.project, obj)
            ready = metadata.condition(obj, "Ready") or {}
            lost = ready.get("status") == "Unknown" and not workload.finished
            found[workload.namespace, resource.kind, UNREACHABLE if lost else str(workload.stage)] += 1
    yield Family(
        "isoplane_workloads",
        "gauge",
        "Workloads by the stage of their life cycle.",
        [
            Sample({"namespace": namespace, "kind": kind, "stage": stage}, count)
            for (namespace, kind, stage), count in sorted(found.items())
        ],
    )
