"""What a workload takes of a quota by every name it has, and which quotas count it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from quota_world_support import charge

import samples_support as samples
from isoplane.objects.accounting import MODES
from isoplane.objects.kinds import CONFIGMAPS, PODS, VIRTUALMACHINEINSTANCES, VIRTUALMACHINES
from isoplane.objects.scheme import Scheme
from isoplane.quota.audit import entries
from isoplane.quota.charge import amounts, charge_of, count_name, counts_nothing, object_amounts
from isoplane.quota.model import Admit, Ask, Quota, ScopeTerm
from isoplane.quota.read import capacity, policy_of, quota_of
from isoplane.quota.scopes import counts, terms
from isoplane.workload.accounting import DEFAULT_ACCOUNTING, Accounting
from isoplane.workload.registry import adapter_for

SCHEME = Scheme()


def test_the_names_of_an_amount() -> None:
    asked = {"cpu": 100, "memory": 7, "ephemeral-storage": 5, "hugepages-2Mi": 3, "example.com/gpu": 2}
    assert amounts(asked, {"cpu": 200, "example.com/gpu": 2}) == {
        "cpu": 100, "requests.cpu": 100, "memory": 7, "requests.memory": 7, "ephemeral-storage": 5,
        "requests.ephemeral-storage": 5, "hugepages-2Mi": 3, "requests.hugepages-2Mi": 3, "requests.example.com/gpu": 2,
        "limits.cpu": 200,
    }  # fmt: skip


def test_counts_of_objects() -> None:
    assert count_name(VIRTUALMACHINES) == "count/virtualmachines.kubevirt.io"
    assert object_amounts(CONFIGMAPS) == {"count/configmaps": 1, "configmaps": 1}
    assert object_amounts(PODS) == {"count/pods": 1}


def pod(phase: str = "") -> dict[str, Any]:
    resources = {"requests": {"cpu": "1"}}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a", "uid": "u"},
        "spec": {"containers": [{"name": "c", "resources": resources}]}, "status": {"phase": phase} if phase else {},
    }  # fmt: skip


def test_what_ended_takes_only_its_object() -> None:
    adapter = adapter_for(PODS)
    assert adapter is not None
    live = charge_of(adapter.project(pod()), created=0)
    assert live.amounts == {"pods": 1, "count/pods": 1, "cpu": 1000, "requests.cpu": 1000}
    ended = charge_of(adapter.project(pod("Succeeded")), created=0)
    assert ended.amounts == {"count/pods": 1}
    assert ended.finished


@pytest.mark.parametrize(
    ("operator", "values", "matching"),
    [
        ("In", ["gold"], {"gold"}),
        ("NotIn", ["gold"], {"", "tin"}),
        ("Exists", [], {"gold", "tin"}),
        ("DoesNotExist", [], {""}),
    ],
)
def test_scope_selectors_compare_the_priority_class(operator: str, values: list[str], matching: set[str]) -> None:
    expression = {"scopeName": "PriorityClass", "operator": operator, "values": values}
    quota = Quota("q", {}, terms({"scopeSelector": {"matchExpressions": [expression]}}))
    assert {
        name for name in ("", "gold", "tin") if counts(quota, replace(charge("c"), priority_class=name))
    } == matching


def test_all_scopes_must_match() -> None:
    quota = Quota("q", {}, terms({"scopes": ["NotTerminating", "BestEffort"]}))
    assert not counts(quota, charge("c"))
    assert counts(quota, replace(charge("c"), scopes=frozenset({"NotTerminating", "BestEffort"})))


@pytest.mark.parametrize(
    "spec",
    [
        {"scopes": ["Nothing"]},
        {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Like"}]}},
        {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}},
        {"scopeSelector": {"matchExpressions": [{"scopeName": "BestEffort", "operator": "NotIn", "values": ["a"]}]}},
    ],
)
def test_scopes_that_cannot_be(spec: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"spec\.scope"):
        terms(spec)


def test_reading_what_configures_quota() -> None:
    quota = quota_of({"metadata": {"name": "q"}, "spec": {"hard": {"limits.cpu": "1.5", "requests.memory": "1Ki"}}})
    assert quota.hard == {"limits.cpu": 1500, "requests.memory": 1024}
    policy = policy_of({"spec": {"evictionThreshold": 0, "guaranteed": {"cpu": "2", "pods": 3}, "cohort": "default"}})
    assert (policy.threshold, policy.guaranteed) == (0, {"requests.cpu": 2000, "pods": 3})
    assert policy_of({"spec": {}}).threshold is None


def test_capacity_is_what_is_there_times_the_ratio_rounded_down() -> None:
    nodes = [{"status": {"allocatable": {"cpu": "1500m", "memory": "1001", "pods": "3"}}}] * 2
    cohort = {"spec": {"overcommit": {"cpu": 5, "memory": "1.2"}}}
    assert capacity(cohort, nodes) == {"requests.cpu": 15_000, "requests.memory": 2402, "pods": 6}


def test_an_audit_entry_tells_only_what_is_set() -> None:
    (entry,) = entries(Ask(charge("w", priority=7)), Admit("fits"), 12.5)
    assert entry.to_dict() == {
        "time": 12.5, "act": "admit", "workload": "pod/a/w", "uid": "w", "tenant": "a", "rule": "fits", "priority": 7,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "idle"),
    [
        *((name, False) for name in (
            "pods", "cpu", "requests.memory", "limits.ephemeral-storage", "hugepages-2Mi", "requests.hugepages-1Gi",
            "requests.example.com/gpu", "count/pods", "count/virtualmachines.kubevirt.io", "configmaps",
            "requests.cpu/vmi", "requests.memory/vmi", "requests.instances/vmi", "requests.example.com/vmi",
        )),
        *((name, True) for name in (
            "services", "requests.storage", "limits.hugepages-2Mi", "requests.cpus", "count/jobs.batch", "example.com/gpu",
            "limits.example.com/gpu", "count/virtualmachines", "requests.storage/vmi", "limits.cpu/vmi", "cpu/vmi",
        )),
    ],
)  # fmt: skip
def test_a_limit_that_nothing_can_use_up_is_told(name: str, idle: bool) -> None:
    told = counts_nothing(Quota("q", {name: 1}), SCHEME)
    assert [text.partition(":")[0] for text in told] == ([f"spec.hard[{name}]"] if idle else [])


def test_scopes_count_workloads_only() -> None:
    assert len(counts_nothing(Quota("q", {"configmaps": 1, "pods": 1}, (ScopeTerm("Terminating"),)), SCHEME)) == 1
    assert "volume claims" in counts_nothing(Quota("q", {"pods": 1}, (ScopeTerm("VolumeAttributesClass"),)), SCHEME)[0]


GUEST_NAMES = ("requests.cpu/vmi", "requests.memory/vmi", "requests.instances/vmi")


@pytest.mark.parametrize("mode", MODES)
def test_a_guest_is_counted_by_names_of_its_own(mode: str) -> None:
    """As KubeVirt's application-aware quota does: vCPUs and guest memory, whatever is requested and whatever it costs to run."""
    domain: dict[str, Any] = {"cpu": {"cores": 2, "sockets": 2}, "memory": {"guest": "1Gi"}, "devices": {}}
    domain["resources"] = {"requests": {"cpu": "100m", "memory": "512Mi"}}
    adapter = adapter_for(VIRTUALMACHINEINSTANCES)
    assert adapter is not None
    vmi = {**samples.vmi(), "spec": {"domain": domain}}
    taken = charge_of(adapter.claim(vmi, Accounting(mode)), created=0).amounts
    assert [taken[name] for name in GUEST_NAMES] == [4000, 2**30, 1]
    ended = charge_of(adapter.claim({**vmi, "status": {"phase": "Succeeded"}}, Accounting(mode)), created=0).amounts
    assert not set(GUEST_NAMES) & set(ended)


def test_no_pod_is_counted_as_a_guest() -> None:
    adapter = adapter_for(PODS)
    assert adapter is not None
    pod = samples.pod()
    pod["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1", "cpu/vmi": "3", "instances/vmi": "2"}}
    assert not set(GUEST_NAMES) & set(charge_of(adapter.claim(pod, DEFAULT_ACCOUNTING), created=0).amounts)
