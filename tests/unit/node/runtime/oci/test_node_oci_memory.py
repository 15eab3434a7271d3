"""Memory as the kubelet divides it: the size of an emptyDir in memory, and who is killed first."""

from __future__ import annotations

from typing import Any

import pytest

from isoplane.node.runtime.oci import container, volumes
from isoplane.node.runtime.oci.environment import Facts
from isoplane.node.runtime.protocol import Materials
from isoplane.workload.pod import PodAdapter
from isoplane.workload.shape import Workload

GIB = 1 << 30
FULL = {"cpu": "1", "memory": "1Gi"}


def workload(level: dict[str, Any], *containers: dict[str, Any]) -> Workload:
    declared = [{"name": f"c{n}", "image": "x", "resources": asked} for n, asked in enumerate(containers)]
    meta = {"name": "p", "namespace": "default", "uid": "u"}
    return PodAdapter().project({"metadata": meta, "spec": {"containers": declared, "resources": level}})


@pytest.mark.parametrize(
    ("own", "made", "size"),
    [
        ("", workload({}, {}), 8 * GIB),
        ("1Gi", workload({}, {}), GIB),
        ("16Gi", workload({}, {}), 8 * GIB),
        ("", workload({}, {"limits": FULL}, {"limits": FULL}), 2 * GIB),
        ("3Gi", workload({}, {"limits": FULL}, {"limits": FULL}), 2 * GIB),
        ("", workload({"limits": FULL}, {}), GIB),
    ],
)
def test_an_empty_dir_in_memory_is_never_without_a_size(own: str, made: Workload, size: int) -> None:
    facts = Facts(made, Materials(), host_memory=8 * GIB)
    assert volumes.memory_size({"medium": "Memory", "sizeLimit": own}, "v", facts) == size


@pytest.mark.parametrize(
    ("made", "score"),
    [
        (workload({}, {}), 1000),
        (workload({"limits": FULL, "requests": FULL}, {}, {}), -997),
        (workload({"requests": {"memory": "4Gi"}}, {}, {}), 750),
        (workload({"requests": {"memory": "4Gi"}}, {"requests": {"memory": "2Gi"}}, {}), 625),
        (workload({}, {"requests": {"memory": "2Gi"}}, {}), 750),
        (workload({}, {"requests": FULL, "limits": FULL}, {}), 875),
        (workload({}, {"requests": {"cpu": "1m"}}, {}), 999),
        (workload({}, {"requests": {"memory": "9Gi"}}, {}), 3),
    ],
)
def test_who_is_killed_first(made: Workload, score: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "host_memory", lambda: 8 * GIB)
    assert container.oom_score(made.units[0], made) == score


@pytest.mark.parametrize(
    ("sidecar", "mains", "level", "score"),
    [
        ("1Gi", ["2Gi", "4Gi"], "", 750),
        ("4Gi", ["2Gi", "4Gi"], "", 500),
        ("1Gi", ["0", "4Gi"], "", 875),
        ("1Gi", ["2Gi"], "5Gi", 625),
    ],
)
def test_a_sidecar_is_killed_no_sooner_than_what_it_serves(
    sidecar: str, mains: list[str], level: str, score: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "host_memory", lambda: 8 * GIB)

    def asking(name: str, memory: str) -> dict[str, Any]:
        return {"name": name, "image": "x", "resources": {"requests": {"memory": memory}}}

    spec = {
        "initContainers": [{**asking("s", sidecar), "restartPolicy": "Always"}],
        "containers": [asking(f"c{n}", memory) for n, memory in enumerate(mains)],
        "resources": {"requests": {"memory": level}} if level else {},
    }
    made = PodAdapter().project({"metadata": {"name": "p", "namespace": "default", "uid": "u"}, "spec": spec})
    assert container.oom_score(made.units[0], made) == score
