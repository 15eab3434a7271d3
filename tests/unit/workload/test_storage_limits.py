"""What a workload takes of the disk against its limits, in the kubelet's words."""

from __future__ import annotations

from typing import Any

import pytest

from isoplane.workload import eviction
from isoplane.workload.eviction import StorageUse
from isoplane.workload.pod import PodAdapter
from isoplane.workload.shape import Workload

MI = 1 << 20


def pod(limits: dict[str, str], *volumes: dict[str, Any]) -> Workload:
    containers = [
        {"name": name, "image": "x", **({"resources": {"limits": {"ephemeral-storage": limit}}} if limit else {})}
        for name, limit in limits.items()
    ]
    spec = {"containers": containers, "volumes": list(volumes)}
    return PodAdapter().project({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec})


def empty(name: str, **source: str) -> dict[str, Any]:
    return {"name": name, "emptyDir": source}


@pytest.mark.parametrize(
    ("workload", "use", "message"),
    [
        (pod({"c": "2Mi"}), StorageUse({"c": 2 * MI}), ""),
        (pod({"c": ""}), StorageUse({"c": 99 * MI}, {"v": 99 * MI}), ""),
        (pod({"c": "0"}), StorageUse({"c": 99 * MI}), ""),
        (
            pod({"c": "2Mi"}),
            StorageUse({"c": 2 * MI + 1}),
            "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. ",
        ),
        (
            pod({"c": "2Mi", "d": "4Mi"}),
            StorageUse({"c": 3 * MI, "d": MI}),
            'Container c exceeded its local ephemeral storage limit "2Mi". ',
        ),
        (
            pod({"c": "2Mi"}, empty("v")),
            StorageUse({"c": MI}, {"v": 2 * MI}),
            "Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. ",
        ),
        (
            pod({"c": "2Mi"}, empty("v", sizeLimit="1Mi")),
            StorageUse({"c": 9 * MI}, {"v": MI + 1}),
            'Usage of EmptyDir volume "v" exceeds the limit "1Mi". ',
        ),
        (pod({"c": ""}, empty("v", sizeLimit="1Mi")), StorageUse({"c": 9 * MI}, {"v": MI}), ""),
        (pod({"c": ""}, empty("v", sizeLimit="0")), StorageUse({}, {"v": MI}), ""),
        (pod({"c": ""}, empty("v", sizeLimit="1Mi", medium="Memory")), StorageUse({}, {"v": 2 * MI}), ""),
    ],
)
def test_who_takes_too_much_is_told_of_what(workload: Workload, use: StorageUse, message: str) -> None:
    verdict = eviction.judge(workload, use)
    assert (verdict.message if verdict else "") == message
    if verdict:
        assert verdict.reason == "Evicted"
        assert eviction.is_limited(workload)


def test_nothing_is_measured_without_a_limit() -> None:
    assert not eviction.is_limited(pod({"c": ""}, empty("v"), empty("m", sizeLimit="1Mi", medium="Memory")))
