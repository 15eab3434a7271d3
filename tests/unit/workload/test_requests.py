"""Effective requests and limits, of Pods, as Kubernetes counts them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.workload.requests import pod_asks

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
