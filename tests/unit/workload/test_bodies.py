"""Which Pods are the bodies of which machines."""

from __future__ import annotations

from typing import Any

import pytest

from isoplane.workload.bodies import Bodies, machine_of, pair, without_bodies


def machine(name: str = "db", uid: str = "u1", namespace: str = "a") -> dict[str, Any]:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "namespace": namespace, "uid": uid},
    }


def launcher(name: str = "virt-launcher-db-x1", uid: str = "u1", **meta: Any) -> dict[str, Any]:
    owner = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "name": "db",
        "uid": uid,
        "controller": True,
    }
    labels = {"kubevirt.io": "virt-launcher", "kubevirt.io/created-by": uid, **meta.pop("labels", {})}
    whole = {"name": name, "namespace": "a", "uid": name, "labels": labels, "ownerReferences": [owner], **meta}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": whole, "status": {"phase": "Running"}}


def changed(path: str, value: Any) -> dict[str, Any]:
    """A launcher of which one thing is another."""
    pod = launcher()
    *way, last = path.split(".")
    place: Any = pod
    for step in way:
        place = place[int(step)] if step.isdigit() else place[step]
    place[last] = value
    return pod


def test_a_launcher_is_the_body_of_its_machine() -> None:
    pod = launcher()
    assert machine_of(pod) == "u1"
    assert pair([pod], [machine()]) == {"u1": Bodies(running=pod)}
    assert without_bodies([pod, machine()]) == [machine()]


@pytest.mark.parametrize(
    "pod",
    [
        changed("metadata.ownerReferences.0.uid", "u2"),
        changed("metadata.ownerReferences.0.controller", False),
        changed("metadata.ownerReferences.0.kind", "VirtualMachine"),
        changed("metadata.ownerReferences.0.apiVersion", "example.com/v1"),
        changed("metadata.ownerReferences", [{"kind": "Pod", "apiVersion": "v1", "uid": "u1", "controller": True}]),
        changed("metadata.labels", {"kubevirt.io/created-by": "u1"}),
        changed("metadata.labels", {"kubevirt.io": "hotplug-disk", "kubevirt.io/created-by": "u1"}),
        changed("metadata.labels", {"kubevirt.io": "virt-launcher", "kubevirt.io/created-by": "u2"}),
        changed("metadata.labels", None),
        changed("metadata.ownerReferences", "nobody"),
        changed("metadata.ownerReferences", [None]),
        changed("metadata.name", "forged"),
        changed("metadata.namespace", "b"),
        launcher(uid="of-the-instance-before"),
        {"kind": "Pod", "metadata": 7},
        {"kind": "Pod"},
    ],
)
def test_whoever_only_resembles_one_is_a_pod_like_any_other(pod: dict[str, Any]) -> None:
    assert pair([pod], [machine()]) == {}
    assert without_bodies([machine(), pod]) == [machine(), pod]


def test_a_body_whose_machine_is_not_there_is_kept() -> None:
    assert without_bodies([launcher()]) == [launcher()]


def test_a_migration_has_a_source_and_a_target() -> None:
    source = launcher("virt-launcher-db-b", creationTimestamp="2026-01-01T00:00:00Z")
    job = {"kubevirt.io/migrationJobUID": "m"}
    target = launcher("virt-launcher-db-a", creationTimestamp="2026-01-01T00:01:00Z", labels=job)
    assert pair([target, source], [machine()])["u1"] == Bodies(source, target)
    source["status"]["phase"] = "Succeeded"
    assert pair([source, target], [machine()])["u1"] == Bodies(target, others=(source,)), "it has arrived"


def test_a_second_body_without_a_migration_is_one_too_many() -> None:
    first = launcher("virt-launcher-db-1", creationTimestamp="2026-01-01T00:00:00Z")
    second = launcher("virt-launcher-db-2", creationTimestamp="2026-01-01T00:01:00Z")
    assert pair([second, first], [machine()])["u1"] == Bodies(first, others=(second,))
    assert without_bodies([first, second, machine()]) == [machine()]
