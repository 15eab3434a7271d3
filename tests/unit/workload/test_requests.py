"""Effective requests and limits, as Kubernetes and KubeVirt count them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.workload.requests import (
    pod_asks,
    vmi_limits,
    vmi_requests,
    vmi_scopes,
    vmi_unspecified,
)

MI = 2**20


def asked(spec: dict[str, Any]) -> dict[str, int]:
    return pod_asks(spec).requests


def limited(spec: dict[str, Any]) -> dict[str, int]:
    return pod_asks(spec).limits


def container(
    name: str = "c", always: bool = False, limits: dict[str, Any] | None = None, **requests: Any
) -> dict[str, Any]:
    made: dict[str, Any] = {"name": name, "resources": {"requests": requests}}
    if limits is not None:
        made["resources"]["limits"] = limits
    if always:
        made["restartPolicy"] = "Always"
    return made


def test_containers_add_up_and_inits_take_the_greatest() -> None:
    spec = {
        "containers": [container(cpu="100m", memory="64Mi"), container(cpu="0.25", memory="64Mi")],
        "initContainers": [container(cpu="300m", memory="1Mi"), container(cpu="1", memory="10Mi")],
    }
    assert asked(spec) == {"cpu": 1000, "memory": 128 * MI}


def test_a_sidecar_counts_with_the_mains_and_with_later_inits_only() -> None:
    spec = {
        "containers": [container(cpu="100m")],
        "initContainers": [container(cpu="500m"), container(cpu="200m", always=True), container(cpu="400m")],
    }
    # mains + sidecar = 300m; first init alone = 500m; second init beside the sidecar = 600m.
    assert asked(spec) == {"cpu": 600}


def test_requests_default_to_limits() -> None:
    assert asked({"containers": [container(limits={"cpu": "2", "memory": "1Gi"}, cpu="1")]}) == {
        "cpu": 1000,
        "memory": 1024 * MI,
    }


def test_pod_level_resources_win_and_overhead_is_added() -> None:
    spec = {
        "containers": [container(cpu="100m", memory="1Mi")],
        "resources": {"requests": {"cpu": "2", "example.com/x": 1}, "limits": {"cpu": "3", "memory": "10Mi"}},
        "overhead": {"cpu": "10m", "memory": "1Mi"},
    }
    assert asked(spec) == {"cpu": 2010, "memory": 2 * MI}
    assert limited(spec) == {"cpu": 3010, "memory": 11 * MI}


def test_a_pod_level_limit_stands_in_for_a_request_that_nobody_made() -> None:
    assert asked({"containers": [container()], "resources": {"limits": {"cpu": 1}}}) == {"cpu": 1000}


def test_overhead_needs_a_limit_to_be_added_to() -> None:
    assert limited({"containers": [container()], "overhead": {"cpu": "10m"}}) == {}


def test_unspecified_names_containers() -> None:
    spec = {"containers": [container("b", cpu=1), container("a", limits={"cpu": 1, "memory": "1Mi"})]}
    assert pod_asks(spec).unspecified == {"requests.memory": ("b",), "limits.cpu": ("b",), "limits.memory": ("b",)}
    spec["resources"] = {"requests": {"cpu": "2"}}
    assert pod_asks(spec).unspecified == {"limits.cpu": ("b",), "limits.memory": ("b",)}, (
        "what limits nothing is insisted on"
    )
    spec["resources"] = {"limits": {"cpu": "2", "memory": "1Gi"}}
    assert pod_asks(spec).unspecified == {}, "whoever limits the Pod need not limit each container"
    zero = {"containers": [container("a", limits={"cpu": 0, "memory": "1Mi"})]}
    assert pod_asks(zero).unspecified == {"limits.cpu": ("a",)}, "a cgroup takes 0 for no limit"


@pytest.mark.parametrize(
    ("spec", "scopes"),
    [
        ({"containers": [container()]}, {"BestEffort", "NotTerminating"}),
        ({"containers": [container(cpu=1)], "activeDeadlineSeconds": 5}, {"NotBestEffort", "Terminating"}),
        ({"containers": [container(cpu=0)]}, {"BestEffort", "NotTerminating"}),
        (
            {
                "containers": [container()],
                "affinity": {
                    "podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"namespaceSelector": {}}]}
                },
            },
            {"BestEffort", "NotTerminating", "CrossNamespacePodAffinity"},
        ),
    ],
)
def test_scopes(spec: dict[str, Any], scopes: set[str]) -> None:
    assert pod_asks(spec).scopes == scopes


GUEST = {"domain": {"cpu": {"cores": 2}, "memory": {"guest": "1Gi"}, "devices": {}}}


def test_modes_of_a_machine() -> None:
    assert vmi_requests(GUEST) == {"cpu": 200, "memory": (1024 + 276) * MI}
    assert vmi_requests(GUEST, "Requests") == {"cpu": 200, "memory": 1024 * MI}
    assert vmi_requests(GUEST, "GuestOnly") == {"cpu": 2000, "memory": 1024 * MI}
    with pytest.raises(ValueError, match="GuestOnly"):
        vmi_requests(GUEST, "Everything")


def test_explicit_requests_of_a_machine_win() -> None:
    spec = {"domain": {"resources": {"requests": {"cpu": "1500m", "memory": "512Mi"}}, "memory": {"guest": "1Gi"}}}
    assert vmi_requests(spec, "Requests") == {"cpu": 1500, "memory": 512 * MI}


def test_overcommit_and_allocation_ratio() -> None:
    assert vmi_requests(GUEST, "Requests", memory_overcommit=200, cpu_allocation_ratio=3) == {
        "cpu": 667,
        "memory": 512 * MI,
    }


def test_pinned_cpus_count_whole_and_limit_equals_request() -> None:
    spec = {
        "domain": {**GUEST["domain"], "cpu": {"cores": 2, "dedicatedCpuPlacement": True, "isolateEmulatorThread": True}}
    }
    assert vmi_requests(spec)["cpu"] == 3000
    assert vmi_limits(spec) == {name: vmi_requests(spec)[name] for name in ("cpu", "memory")}


def test_hugepages_hold_the_guest_and_memory_the_rest() -> None:
    spec = {"domain": {**GUEST["domain"], "memory": {"guest": "1Gi", "hugepages": {"pageSize": "2Mi"}}}}
    assert vmi_requests(spec) == {"cpu": 200, "hugepages-2Mi": 1024 * MI, "memory": 276 * MI}


def test_devices_are_extended_resources() -> None:
    gpus = [{"name": "a", "deviceName": "vendor.example/gpu"}, {"name": "b", "deviceName": "vendor.example/gpu"}]
    spec = {"domain": {**GUEST["domain"], "devices": {"gpus": gpus}}}
    assert vmi_requests(spec, "Requests")["vendor.example/gpu"] == 2


def test_limits_of_a_machine() -> None:
    assert vmi_limits(GUEST) == {}, "what is not stated limits nothing, and is not charged"
    zero = {"domain": {**GUEST["domain"], "resources": {"limits": {"memory": "0", "cpu": 0}}}}
    assert vmi_limits(zero) == {}
    assert vmi_unspecified(vmi_limits(zero)) == {"limits.cpu": ("compute",), "limits.memory": ("compute",)}
    stated = {"domain": {**GUEST["domain"], "resources": {"limits": {"memory": "2Gi", "cpu": "4"}}}}
    # The overhead follows the request, which the limit stands in for.
    assert vmi_limits(stated)["memory"] > 2048 * MI
    assert vmi_limits(stated)["cpu"] == 4000


def test_scopes_of_a_machine() -> None:
    assert vmi_scopes(GUEST) == {"NotTerminating", "NotBestEffort"}


@given(
    st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=5),
    st.lists(st.integers(0, 50), min_size=1, max_size=4),
)
def test_the_formula_of_the_sidecar_proposal(inits: list[tuple[int, bool]], mains: list[int]) -> None:
    """max(Σ mains + Σ sidecars, max over inits of own + the sidecars before it), computed in another way."""
    spec = {
        "containers": [container(cpu=f"{m}m") for m in mains],
        "initContainers": [container(cpu=f"{m}m", always=side) for m, side in inits],
    }
    steps = [own + sum(m for m, side in inits[:i] if side) for i, (own, _) in enumerate(inits)]
    assert asked(spec)["cpu"] == max([sum(mains) + sum(m for m, side in inits if side), *steps])


def test_page_tables_are_counted_for_a_stated_request_alone() -> None:
    stated = {"domain": {**GUEST["domain"], "resources": {"requests": {"memory": "1Gi"}}}}
    assert vmi_requests(stated)["memory"] - vmi_requests(GUEST)["memory"] == 2 * MI


def test_what_is_set_aside_beside_the_guest_is_counted() -> None:
    memory = {"guest": "1Gi", "reservedOverhead": {"addedOverhead": "500Mi"}}
    spec = {"domain": {**GUEST["domain"], "memory": memory}}
    assert vmi_requests(spec)["memory"] - vmi_requests(GUEST)["memory"] == 500 * MI


def test_huge_pages_are_no_part_of_the_memory_limit() -> None:
    spec = {
        "domain": {
            "memory": {"guest": "64Mi", "hugepages": {"pageSize": "2Mi"}},
            "resources": {"requests": {"memory": "64Mi"}, "limits": {"memory": "128Mi"}},
        }
    }
    overhead = vmi_requests(spec)["memory"]
    assert vmi_requests(spec)["hugepages-2Mi"] == 64 * MI
    assert vmi_limits(spec)["memory"] == 64 * MI + overhead


@pytest.mark.parametrize(("cores", "isolate", "even", "cpus"), [
    (2, True, True, 4), (3, True, True, 4), (2, True, False, 3), (2, False, True, 2),
])  # fmt: skip
def test_pinned_cpus_are_filled_up_to_an_even_number(cores: int, isolate: bool, even: bool, cpus: int) -> None:
    cpu = {"cores": cores, "dedicatedCpuPlacement": True, "isolateEmulatorThread": isolate}
    spec = {"domain": {**GUEST["domain"], "cpu": cpu}}
    assert vmi_requests(spec, even_parity=even)["cpu"] == 1000 * cpus
    assert vmi_limits(spec, even_parity=even)["cpu"] == 1000 * cpus
