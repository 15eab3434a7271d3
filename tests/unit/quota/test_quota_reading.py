"""Whatever validation lets through can be read: a quota that the decision cannot read would stop every write of its namespace."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoplane.objects.defaults import apply_defaults
from isoplane.objects.kinds import BUILT_IN, COHORTS, QUOTAPOLICIES, RESOURCEQUOTAS, Resource
from isoplane.objects.validation import validate
from isoplane.quota.charge import count_name
from isoplane.quota.read import capacity, policy_of, quota_of

CASES = 2_000 if os.environ.get("CI") else 500
SCOPES = (
    "Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "PriorityClass", "CrossNamespacePodAffinity",
    "VolumeAttributesClass", "Other", "",
)  # fmt: skip
names = st.sampled_from(
    [
        "pods",
        "cpu",
        "requests.cpu",
        "limits.memory",
        "configmaps",
        "requests.storage",
        "count/pods",
        "count/x.y",
        "a/b",
        "nope",
    ]
)
quantities = st.sampled_from(["0", "1", "1500m", "2Gi", "-1", "1e3", "1e40", "x", "", 3, 1.5, None])
amounts = st.dictionaries(names, quantities, max_size=3)
expressions = st.lists(
    st.fixed_dictionaries(
        {
            "scopeName": st.sampled_from(SCOPES),
            "operator": st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist", "Gt"]),
        },
        optional={"values": st.lists(st.sampled_from(["a", "b"]), max_size=2)},
    ),
    max_size=2,
)


def accepted(resource: Resource, obj: dict[str, Any]) -> bool:
    apply_defaults(resource, obj)
    return not validate(resource, obj)


@settings(max_examples=CASES)
@given(amounts, st.lists(st.sampled_from(SCOPES), max_size=2), expressions)
def test_an_accepted_quota_can_be_read(hard: dict[str, Any], scopes: list[str], found: list[Any]) -> None:
    spec = {"hard": hard, "scopes": scopes, "scopeSelector": {"matchExpressions": found}}
    obj = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "a"}, "spec": spec}
    if accepted(RESOURCEQUOTAS, obj):
        assert set(quota_of(obj).hard) == set(hard)


@settings(max_examples=CASES // 4)
@given(amounts, amounts, st.sampled_from([None, -5, 0, 2**31, "x"]), st.sampled_from([None, 0, -1, 60, 1.5]))
def test_an_accepted_policy_can_be_read(guaranteed: Any, lending: Any, threshold: Any, seconds: Any) -> None:
    spec = {
        "cohort": "default", "guaranteed": guaranteed, "lendingLimit": lending, "evictionThreshold": threshold,
        "minRunSeconds": seconds,
    }  # fmt: skip
    obj = {
        "apiVersion": "isoplane.io/v1alpha1", "kind": "QuotaPolicy", "metadata": {"name": "default", "namespace": "a"},
        "spec": spec,
    }  # fmt: skip
    if accepted(QUOTAPOLICIES, obj):
        assert policy_of(obj).threshold == threshold


@given(st.dictionaries(names, st.sampled_from(["1.5", 2, 0.5, "x", "1/0", -1, 0, "1e400", "inf", "nan"]), max_size=2))
def test_an_accepted_cohort_can_be_read(overcommit: Any) -> None:
    meta = {"name": "default"}
    obj = {"apiVersion": "isoplane.io/v1alpha1", "kind": "Cohort", "metadata": meta, "spec": {"overcommit": overcommit}}
    if accepted(COHORTS, obj):
        assert capacity(obj, [{"status": {"allocatable": {"cpu": "2"}}}])["requests.cpu"] >= 0


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"scopes": ["BestEffort"], "hard": {"requests.cpu": "1"}}, "unsupported scope applied to resource"),
        ({"scopes": ["Terminating"], "hard": {"configmaps": "1"}}, "unsupported scope applied to resource"),
        ({"scopes": ["BestEffort", "NotBestEffort"], "hard": {"pods": "1"}}, "conflicting scopes"),
        ({"selector": [("BestEffort", "NotIn")], "hard": {"pods": "1"}}, "must be 'Exist' when scope is any of"),
        ({"selector": [("Terminating", "Exists"), ("NotTerminating", "Exists")], "hard": {"pods": "1"}}, "conflicting"),
    ],
)
def test_what_scopes_cannot_count_is_refused(spec: dict[str, Any], said: str) -> None:
    if selector := spec.pop("selector", None):
        found = [
            {"scopeName": name, "operator": operator, "values": ["x"] * (operator == "NotIn")}
            for name, operator in selector
        ]
        spec["scopeSelector"] = {"matchExpressions": found}
    obj = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q", "namespace": "a"}, "spec": spec}
    apply_defaults(RESOURCEQUOTAS, obj)
    assert any(said in cause.message for cause in validate(RESOURCEQUOTAS, obj))


def test_every_served_kind_has_a_name_to_count_it_by() -> None:
    counted = [resource for resource in BUILT_IN if resource.namespaced and not resource.computed]
    assert {count_name(resource) for resource in counted} >= {
        "count/pods", "count/configmaps", "count/secrets", "count/leases.coordination.k8s.io",
        "count/networkpolicies.networking.k8s.io", "count/poddisruptionbudgets.policy",
        "count/virtualmachines.kubevirt.io", "count/virtualmachineinstances.kubevirt.io",
    }  # fmt: skip
    hard = {count_name(resource): "1" for resource in counted}
    obj = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "q", "namespace": "a"},
        "spec": {"hard": hard},
    }
    assert accepted(RESOURCEQUOTAS, obj)
