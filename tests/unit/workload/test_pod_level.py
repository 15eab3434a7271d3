"""Resources of the Pod as a whole: the limits of its own cgroup, and its class of service."""

from __future__ import annotations

from typing import Any

import pytest

from isoplane.workload.pod import PodAdapter, qos_class

FULL = {"cpu": "1", "memory": "1Gi"}


def spec(level: dict[str, Any] | None, *containers: dict[str, Any], **more: Any) -> dict[str, Any]:
    declared = [
        {"name": f"c{n}", "image": "x", "resources": resources} for n, resources in enumerate(containers or ({},))
    ]
    return {"containers": declared, **({} if level is None else {"resources": level}), **more}


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (spec(None), "BestEffort"),
        (spec({}), "BestEffort"),
        (spec({"limits": FULL}), "Guaranteed"),
        (spec({"limits": FULL, "requests": {"cpu": "1000m", "memory": "1024Mi"}}), "Guaranteed"),
        (spec({"limits": FULL, "requests": {"cpu": "1", "memory": "1Mi"}}), "Burstable"),
        (spec({"limits": {"cpu": "1"}}), "Burstable"),
        (spec({"requests": {"memory": "1Mi"}}), "Burstable"),
        # The containers' own do not count beside those of the Pod.
        (spec({"limits": FULL}, {"requests": {"cpu": "1m"}}), "Guaranteed"),
        (spec({"requests": {"cpu": "1"}}, {"limits": FULL}), "Burstable"),
        # Without the Pod's: every container.
        (spec(None, {"limits": FULL}, {"limits": FULL}), "Guaranteed"),
        (spec(None, {"limits": FULL}, {}), "Burstable"),
        (spec(None, {"limits": {"cpu": "0", "memory": "0"}}), "BestEffort"),
        (spec(None, {"limits": {"ephemeral-storage": "1Gi"}}), "BestEffort"),
    ],
)
def test_class_of_service(declared: dict[str, Any], expected: str) -> None:
    assert qos_class(declared) == expected


@pytest.mark.parametrize(
    ("declared", "limits"),
    [
        (spec(None, {"limits": FULL}), (0, 0)),
        (spec({"requests": FULL}), (0, 0)),
        (spec({"limits": {"memory": "48Mi"}}), (0, 48 << 20)),
        (spec({"limits": {"cpu": "1m"}}, {"limits": FULL}), (1, 0)),
        (spec({"limits": {"cpu": "0"}}), (0, 0)),
        (spec({"limits": FULL}, overhead={"cpu": "250m", "memory": "1Mi"}), (1250, (1 << 30) + (1 << 20))),
    ],
)
def test_the_pods_cgroup_has_what_is_charged(declared: dict[str, Any], limits: tuple[int, int]) -> None:
    workload = PodAdapter().project({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": declared})
    assert (workload.cpu_limit, workload.memory_limit) == limits
    for name, limit in zip(("cpu", "memory"), limits, strict=True):
        assert limit in (0, workload.limits.get(name))
