"""Our kinds as CustomResourceDefinitions on a real API server: established, and refusing what the embedded plane refuses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from control_plane_support import ControlPlane

from isoplane.client.api import Api
from isoplane.objects.crd import crd
from isoplane.objects.defaults import apply_defaults
from isoplane.objects.errors import ApiError, Cause, Invalid
from isoplane.objects.kinds import COHORTS, QUOTAPOLICIES, TENANTQUOTAS, Resource
from isoplane.objects.validation import validate

KINDS = (QUOTAPOLICIES, COHORTS, TENANTQUOTAS)


def selected(scope: str, operator: str, *values: str, hard: dict[str, str] | None = None) -> dict[str, Any]:
    expression: dict[str, Any] = {"scopeName": scope, "operator": operator}
    if values:
        expression["values"] = list(values)
    return {"hard": hard or {"pods": "1"}, "scopeSelector": {"matchExpressions": [expression]}}


CASES: list[tuple[Resource, dict[str, Any], bool]] = [
    (QUOTAPOLICIES, {}, True),
    (QUOTAPOLICIES, {"evictionThreshold": -5, "minRunSeconds": 30, "vmAccounting": "GuestOnly", "maxPending": 0}, True),
    (QUOTAPOLICIES, {"evictionThreshold": 2**31}, False),
    (QUOTAPOLICIES, {"maxPriority": 500}, True),
    (QUOTAPOLICIES, {"maxPriority": "high"}, False),
    (QUOTAPOLICIES, {"evictionThreshold": "high"}, False),
    (QUOTAPOLICIES, {"minRunSeconds": -1}, False),
    (QUOTAPOLICIES, {"maxPending": -1}, False),
    (QUOTAPOLICIES, {"vmAccounting": "Guests"}, False),
    (QUOTAPOLICIES, {"kubevirtVersion": "0.1"}, False),
    (
        QUOTAPOLICIES,
        {"cohort": "pool", "guaranteed": {"requests.cpu": 2, "requests.memory": "1Gi", "pods": "10"}},
        True,
    ),
    (QUOTAPOLICIES, {"guaranteed": {"requests.nvidia.com/gpu": "1", "count/virtualmachines.kubevirt.io": 3}}, True),
    (QUOTAPOLICIES, {"guaranteed": {"requests.cpu": "-1"}}, False),
    (QUOTAPOLICIES, {"guaranteed": {"requests.cpu": -1}}, False),
    (QUOTAPOLICIES, {"guaranteed": {"requests.cpu": "much"}}, False),
    (QUOTAPOLICIES, {"guaranteed": {"requests.cpu": True}}, False),
    (QUOTAPOLICIES, {"guaranteed": {"bananas": "1"}}, False),
    (QUOTAPOLICIES, {"guaranteed": {"pods": "1500m"}}, False),
    (QUOTAPOLICIES, {"guaranteed": "all"}, False),
    (QUOTAPOLICIES, {"migrationReserve": {"bananas": "1"}}, False),
    (QUOTAPOLICIES, {"cohort": "Pool!"}, False),
    (QUOTAPOLICIES, {"cohort": "a" * 254}, False),
    (QUOTAPOLICIES, {"borrowingLimit": {"requests.cpu": "1"}}, False),
    (QUOTAPOLICIES, {"lendingLimit": {"requests.cpu": "1"}}, False),
    (QUOTAPOLICIES, {"cohort": "pool", "borrowingLimit": {"requests.cpu": "1"}, "lendingLimit": {"pods": "1"}}, True),
    (QUOTAPOLICIES, {"cohort": "pool", "guaranteed": {"cpu": "1"}, "lendingLimit": {"cpu": "500m"}}, True),
    (QUOTAPOLICIES, {"cohort": "pool", "guaranteed": {"cpu": "1"}, "lendingLimit": {"cpu": "1001m"}}, False),
    (COHORTS, {}, True),
    (COHORTS, {"overcommit": {"cpu": 1.5, "memory": "1.25", "pods": 1000}, "maxGraceSeconds": 60}, True),
    (COHORTS, {"overcommit": {"cpu": "0.001", "memory": "1000.0"}}, True),
    (COHORTS, {"overcommit": {"cpu": 0}}, False),
    (COHORTS, {"overcommit": {"cpu": "0.0"}}, False),
    (COHORTS, {"overcommit": {"cpu": 1000.5}}, False),
    (COHORTS, {"overcommit": {"cpu": "1001"}}, False),
    (COHORTS, {"overcommit": {"cpu": "3/2"}}, False),
    (COHORTS, {"overcommit": {"cpu": "-1"}}, False),
    (COHORTS, {"overcommit": {"cpu": "much"}}, False),
    (COHORTS, {"overcommit": {"cpu": True}}, False),
    (COHORTS, {"overcommit": {"cpu": {"by": 2}}}, False),
    (COHORTS, {"overcommit": {"cpu": [2]}}, False),
    (COHORTS, {"maxGraceSeconds": 0}, False),
    (TENANTQUOTAS, {}, True),
    (
        TENANTQUOTAS,
        {"hard": {"requests.cpu": 4, "limits.memory": "8Gi", "pods": "10", "requests.nvidia.com/gpu": 1}},
        True,
    ),
    (TENANTQUOTAS, {"hard": {"cpu": "4", "requests.ephemeral-storage": "1Gi", "hugepages-2Mi": "64Mi"}}, True),
    *[
        (TENANTQUOTAS, {"hard": {name: "1"}}, False)
        for name in (
            "count/pods",
            "count/deployments.apps",
            "services",
            "configmaps",
            "persistentvolumeclaims",
            "requests.storage",
            "gold.storageclass.storage.k8s.io/requests.storage",
            "services.nodeports",
            "bananas",
            "nvidia.com/gpu",
        )
    ],
    (TENANTQUOTAS, {"hard": {"requests.cpu": "-1"}}, False),
    (TENANTQUOTAS, {"hard": {"pods": "1.5"}}, False),
    (TENANTQUOTAS, {"hard": {"requests.cpu": "much"}}, False),
    (TENANTQUOTAS, {"hard": {"pods": "1"}, "scopes": ["BestEffort"]}, True),
    (TENANTQUOTAS, {"hard": {"cpu": "1"}, "scopes": ["BestEffort"]}, False),
    (TENANTQUOTAS, {"hard": {"ephemeral-storage": "1"}, "scopes": ["Terminating"]}, False),
    (TENANTQUOTAS, {"hard": {"pods": "1"}, "scopes": ["BestEffort", "NotBestEffort"]}, False),
    (TENANTQUOTAS, {"hard": {"pods": "1"}, "scopes": ["VolumeAttributesClass"]}, False),
    (TENANTQUOTAS, {"hard": {"pods": "1"}, "scopes": ["Sometimes"]}, False),
    (TENANTQUOTAS, selected("PriorityClass", "In", "high"), True),
    (TENANTQUOTAS, selected("PriorityClass", "Exists"), True),
    (TENANTQUOTAS, selected("PriorityClass", "In"), False),
    (TENANTQUOTAS, selected("PriorityClass", "Exists", "high"), False),
    (TENANTQUOTAS, selected("PriorityClass", "Near", "high"), False),
    (TENANTQUOTAS, selected("Terminating", "In", "high"), False),
    (TENANTQUOTAS, selected("Sometimes", "Exists"), False),
    (TENANTQUOTAS, selected("BestEffort", "Exists", hard={"cpu": "1"}), False),
    (TENANTQUOTAS, selected("NotBestEffort", "Exists", hard={"cpu": "1"}), True),
]


@pytest.fixture(scope="module")
def served(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    manifests = yaml.safe_dump_all(crd(kind) for kind in KINDS)
    control_plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=manifests)
    names = [f"crd/{kind.qualified}" for kind in KINDS]
    control_plane.kubectl("wait", "--for=condition=Established", *names, "--timeout=30s")
    yield control_plane
    control_plane.kubectl("delete", *names, "--timeout=50s")


def made(kind: Resource, spec: dict[str, Any]) -> dict[str, Any]:
    meta = {"name": "default", **({"namespace": "default"} if kind.namespaced else {})}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": meta, "spec": spec}


def here(kind: Resource, spec: dict[str, Any]) -> set[str]:
    """The fields that the embedded plane names."""
    obj = made(kind, {**spec})
    apply_defaults(kind, obj)
    return {plain(cause.field) for cause in validate(kind, obj)}


def where(cause: Cause) -> str:
    """The field of a cause; some of another server's causes have it in their message only."""
    return plain(cause.field if cause.field != "<nil>" else "".join(re.findall(r"spec[.\w]*", cause.message)[:1]))


def plain(field: str) -> str:
    """``spec.overcommit[cpu]`` and ``spec.overcommit.cpu``: the two ways of naming an entry of a map."""
    return re.sub(r"\[([^\]]*)\]", r".\1", field)


async def test_what_is_refused_and_where(served: ControlPlane) -> None:
    """Field by field; of a whole map of amounts another server names the map, and the embedded plane the entry."""
    async with served.api() as api:
        for kind, spec, good in CASES:
            wanted = here(kind, spec)
            assert bool(wanted) is not good, f"embedded: {kind.kind} {spec}: {wanted}"
            told = await there(api, kind, spec)
            assert bool(told) is not good, f"{kind.kind} {spec}: {told}"
            missing = {f for f in wanted if not any(f == t or f.startswith(f"{t}.") for t in told if t != "spec")}
            assert not missing, f"{kind.kind} {spec}: {wanted} here, {told} there"


async def there(api: Api, kind: Resource, spec: dict[str, Any]) -> set[str]:
    """The fields that a real API server names; what it takes it stores with the defaults of the embedded plane."""
    namespace = "default" if kind.namespaced else ""
    try:
        stored = await api.create(kind, made(kind, {**spec}), namespace=namespace)
    except ApiError as refused:
        return {where(cause) for cause in refused.causes} or {refused.message}
    await api.delete(kind, "default", namespace)
    defaulted = made(kind, {**spec})
    apply_defaults(kind, defaulted)
    assert stored["spec"] == defaulted["spec"], f"{kind.kind} {spec}: other defaults"
    return set()


async def test_unknown_fields_are_dropped_and_columns_printed(served: ControlPlane) -> None:
    async with served.api() as api:
        spec = {"evictionThreshold": 100, "guaranteed": {"requests.cpu": "2"}, "unknown": 1}
        stored = await api.create(QUOTAPOLICIES, made(QUOTAPOLICIES, spec), namespace="default")
        assert "unknown" not in stored["spec"]
    head, row = served.kubectl("get", "qp", "-n", "default").splitlines()
    assert head.split() == ["NAME", "THRESHOLD", "GUARANTEED", "COHORT", "AGE"]
    assert row.split()[:3] == ["default", "100", '{"requests.cpu":"2"}']
    assert "Amounts that no other tenant can take" in served.kubectl("explain", "quotapolicies.spec.guaranteed")


async def test_scopes_do_not_change_and_the_status_is_apart(served: ControlPlane) -> None:
    async with served.api() as api:
        spec = {"hard": {"pods": "1"}, "scopes": ["BestEffort"]}
        made_ = await api.create(
            TENANTQUOTAS, {**made(TENANTQUOTAS, spec), "status": {"used": {"pods": "9"}}}, namespace="default"
        )
        assert "status" not in made_
        told = await api.update(
            TENANTQUOTAS, {**made_, "status": {"hard": {"pods": "1"}, "used": {"pods": 0}}}, subresource="status"
        )
        assert told["status"]["used"] == {"pods": 0}
        for change in ({"scopes": ["NotBestEffort"]}, {"scopes": None}, selected("PriorityClass", "Exists")):
            with pytest.raises(Invalid) as refused:
                await api.patch(TENANTQUOTAS, "default", "default", {"spec": change}, kind="merge")
            field = next(name for name in change if name != "hard")
            assert {cause.field for cause in refused.value.causes} == {f"spec.{field}"}
        await api.patch(TENANTQUOTAS, "default", "default", {"spec": {"hard": {"pods": "2"}}}, kind="merge")
    head, row = served.kubectl("get", "tq", "-n", "default").splitlines()
    assert head.split() == ["NAME", "HARD", "USED", "AGE"]
    assert row.split()[:3] == ["default", '{"pods":"2"}', '{"pods":0}']
