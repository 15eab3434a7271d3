"""A cgroup limit is never above what quota counts: for random Pods and VMIs, the charge beside what the runtimes would write."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.node.runtime.qemu.command import HEAP, PER_CPU, translation_cache
from isoplane.objects.accounting import KUBEVIRT_VERSIONS, MODES
from isoplane.objects.kinds import PODS, VIRTUALMACHINEINSTANCES
from isoplane.objects.topology import vcpus
from isoplane.objects.validation import validate
from isoplane.workload.accounting import Accounting
from isoplane.workload.machine import guest_memory
from isoplane.workload.registry import adapter_for
from isoplane.workload.shape import UnitRole, Workload

MI = 2**20
COMPUTE = ("cpu", "memory")


def project(resource: Any, obj: dict[str, Any]) -> Workload:
    adapter = adapter_for(resource)
    assert adapter is not None
    return adapter.project(obj)


AMOUNTS = st.fixed_dictionaries({}, optional={"cpu": st.integers(0, 4), "memory": st.sampled_from(["0", "1Mi", "1Gi"])})
CONTAINERS = st.fixed_dictionaries(
    {"name": st.just("c"), "image": st.just("i")}, optional={"resources": st.fixed_dictionaries({"limits": AMOUNTS})}
)
INITS = st.tuples(CONTAINERS, st.booleans()).map(
    lambda pair: {**pair[0], **({"restartPolicy": "Always"} if pair[1] else {})}
)


def side_by_side(workload: Workload, name: str) -> list[list[int]]:
    """The limits of the units that may run at one time, 0 for none: every init step, then everything else."""
    field = {"cpu": "cpu_limit", "memory": "memory_limit"}[name]
    sidecars: list[int] = []
    moments: list[list[int]] = []
    for unit in workload.units:
        limit = int(getattr(unit, field))
        if unit.role is UnitRole.SIDECAR:
            sidecars.append(limit)
        elif unit.role is UnitRole.INIT:
            moments.append([*sidecars, limit])
    moments.append([*sidecars, *(int(getattr(u, field)) for u in workload.units if u.role is UnitRole.MAIN)])
    return moments


@given(st.lists(CONTAINERS, min_size=1, max_size=3), st.lists(INITS, max_size=3))
def test_a_pods_cgroups_stay_within_its_charge(containers: list[dict[str, Any]], inits: list[dict[str, Any]]) -> None:
    spec = {"containers": containers, "initContainers": inits}
    workload = project(PODS, {"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": spec})
    for name in COMPUTE:
        moments = side_by_side(workload, name)
        unlimited = any(0 in moment for moment in moments)
        assert unlimited == (f"limits.{name}" in workload.unspecified), "a quota on it has to insist"
        if not unlimited:
            assert max(sum(moment) for moment in moments) <= workload.limits.get(name, 0)


def machine(guest: int, limits: dict[str, Any], requests: dict[str, Any], cores: int, pinned: bool) -> dict[str, Any]:
    resources = {key: value for key, value in (("limits", limits), ("requests", requests)) if value}
    cpu = {"cores": cores, **({"dedicatedCpuPlacement": True} if pinned else {})}
    domain = {"memory": {"guest": f"{guest}Mi"}, "cpu": cpu, "resources": resources, "devices": {}}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "m", "namespace": "n", "uid": "u"},
        "spec": {"domain": domain},
    }


@given(
    st.sampled_from([64, 256, 4096]),
    st.fixed_dictionaries({}, optional={"cpu": st.integers(0, 4), "memory": st.sampled_from(["0", "64Mi", "5Gi"])}),
    st.fixed_dictionaries({}, optional={"memory": st.sampled_from(["1Mi", "64Mi"])}),
    st.integers(1, 4),
    st.booleans(),
    st.builds(Accounting, st.sampled_from(MODES), st.sampled_from(KUBEVIRT_VERSIONS)),
)
def test_a_machines_cgroup_stays_within_its_charge(
    guest: int, limits: dict[str, Any], requests: dict[str, Any], cores: int, pinned: bool, accounting: Accounting
) -> None:
    obj = machine(guest, limits, requests, cores, pinned)
    adapter = adapter_for(VIRTUALMACHINEINSTANCES)
    assert adapter is not None
    (unit,) = project(VIRTUALMACHINEINSTANCES, obj).units
    claim = adapter.claim(obj, accounting)
    for name, limit in (("cpu", unit.cpu_limit), ("memory", unit.memory_limit)):
        assert (not limit) == (f"limits.{name}" in claim.unspecified)
        assert limit <= claim.limits.get(name, 0)


@given(st.sampled_from([64, 256, 4096]), st.integers(0, 6000), st.integers(1, 4))
def test_a_machine_that_uses_all_of_its_guest_is_not_killed_at_its_limit(guest: int, more: int, cores: int) -> None:
    """What QEMU takes beside the guest under emulation, its translation cache full, fits into the overhead that is added."""
    obj = machine(guest, {"memory": f"{guest + more}Mi"}, {}, cores, False)
    (unit,) = project(VIRTUALMACHINEINSTANCES, obj).units
    memory, cpus = guest_memory(obj["spec"]), vcpus(obj["spec"]["domain"])
    qemu = memory // 512 + (HEAP + PER_CPU * cpus) * MI + 2 * MI * translation_cache(memory, cpus, unit.memory_limit)
    assert memory + qemu <= unit.memory_limit


BASE = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "n"}}


def refused(spec: dict[str, Any]) -> dict[str, str]:
    """Path → message of what validation finds wrong."""
    containers = spec.pop("containers", [{"name": "c", "image": "i"}])
    causes = validate(PODS, {**BASE, "spec": {"containers": containers, **spec}})
    return {cause.field: cause.message for cause in causes}


def asks(**resources: Any) -> dict[str, Any]:
    return {"name": "c", "image": "i", "resources": resources}


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"overhead": {"cpu": "10m"}}, "spec.overhead"),
        ({"overhead": {"cpu": "-10"}}, "spec.overhead"),
        ({"resources": {"requests": {"cpu": "-1"}}}, "spec.resources.requests[cpu]"),
        ({"resources": {"requests": {"example.com/x": "1"}}}, "spec.resources.requests[example.com/x]"),
        ({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}, "spec.resources.requests"),
        ({"resources": {"claims": [{"name": "x"}]}}, "spec.resources.claims"),
        (
            {"containers": [asks(requests={"cpu": "2"})], "resources": {"requests": {"cpu": "1"}}},
            "spec.resources.requests[cpu]",
        ),
        (
            {"containers": [asks(requests={"cpu": "2"})], "resources": {"requests": {"cpu": "0"}}},
            "spec.resources.requests[cpu]",
        ),
        (
            {"containers": [asks(limits={"memory": "2Gi"})], "resources": {"limits": {"memory": "1Gi"}}},
            "spec.containers[0].resources.limits[memory]",
        ),
        (
            {"containers": [asks(requests={"memory": "7Ei"}), {**asks(requests={"memory": "7Ei"}), "name": "d"}]},
            "spec.containers",
        ),
    ],
)
def test_what_would_give_quota_away_is_refused(spec: dict[str, Any], path: str) -> None:
    assert path in refused(spec)


def test_what_upstream_takes_is_taken() -> None:
    level = {"requests": {"cpu": "3"}, "limits": {"cpu": "4", "memory": "1Gi"}}
    assert refused({"containers": [asks(requests={"cpu": "2"}, limits={"memory": "1Gi"})], "resources": level}) == {}
