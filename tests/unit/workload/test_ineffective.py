"""Fields without effect: told where they stand, and only when they are set."""

from __future__ import annotations

from typing import Any

import samples_support as samples
from isoplane.http.user import SYSTEM, User
from isoplane.objects.kinds import PODS, VIRTUALMACHINEINSTANCES, VIRTUALMACHINES, Resource
from isoplane.objects.scheme import Scheme
from isoplane.server.admission import AdmissionRequest
from isoplane.server.ineffective_admission import MOST, IneffectiveAdmission
from isoplane.workload.registry import adapter_for


def pod(**spec: Any) -> dict[str, Any]:
    made = samples.pod()
    return {**made, "spec": {**made["spec"], **spec}}


def told_of(obj: dict[str, Any], resource: Resource = PODS) -> list[str]:
    adapter = adapter_for(resource)
    assert adapter is not None
    return adapter.ineffective(obj)


def test_nothing_is_told_of_a_usual_pod_and_machine() -> None:
    assert told_of(samples.pod()) == []
    assert told_of(samples.vmi(), VIRTUALMACHINEINSTANCES) == []


def test_each_field_is_told_with_its_path() -> None:
    containers = [{"name": "a"}, {"name": "b", "ports": [{"containerPort": 1}, {"containerPort": 2, "hostPort": 80}]}]
    told = told_of(pod(containers=containers, imagePullSecrets=[{"name": "x"}]))
    assert [line.partition(": ")[0] for line in told] == [
        "spec.imagePullSecrets",
        "spec.containers[1].ports[1].hostPort",
    ]


def test_what_is_set_to_nothing_is_not_told() -> None:
    assert told_of(pod(imagePullSecrets=[], automountServiceAccountToken=False)) == []


def test_an_empty_map_is_something() -> None:
    affinity = {"affinity": {"podAffinity": {}}}
    assert [line.partition(": ")[0] for line in told_of(pod(**affinity))] == ["spec.affinity.podAffinity"]


def asked(resource: Resource, obj: dict[str, Any], user: User, old: dict[str, Any] | None = None) -> list[str]:
    request = AdmissionRequest(
        "UPDATE" if old else "CREATE",
        resource,
        "",
        "default",
        "x",
        obj,
        old,
        user,
        dry_run=False,
        now=0.0,
        view=None,  # type: ignore[arg-type]
        scheme=Scheme(),
    )
    return list(IneffectiveAdmission().in_transaction(None, request))  # type: ignore[arg-type]


def test_people_are_told_and_the_plane_is_not() -> None:
    odd = pod(imagePullSecrets=[{"name": "x"}])
    assert "credentials" in asked(PODS, odd, User("someone"))[0]
    assert asked(PODS, odd, SYSTEM) == []


def test_a_machine_is_told_of_its_template() -> None:
    template = {"spec": {"topologySpreadConstraints": [{}]}}
    [told] = asked(VIRTUALMACHINES, {"spec": {"template": template}}, User("someone"))
    assert told.startswith("spec.template.spec.topologySpreadConstraints: ")


def test_a_manifest_for_a_large_cluster_does_not_fill_the_screen() -> None:
    ports = [{"containerPort": n, "hostPort": n} for n in range(1, 40)]
    told = asked(PODS, pod(containers=[{"name": "a", "ports": ports}]), User("someone"))
    assert len(told) == MOST + 1
    assert told[-1].startswith("29 more")


def test_a_change_is_told_of_what_it_adds() -> None:
    old = {"spec": {"template": {"spec": {"subdomain": "a"}}}}
    new = {"spec": {"template": {"spec": {"subdomain": "a", "topologySpreadConstraints": [{}]}}}}
    [told] = asked(VIRTUALMACHINES, new, User("someone"), old)
    assert told.startswith("spec.template.spec.topologySpreadConstraints: ")
