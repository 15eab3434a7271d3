"""What a schema cannot say: checks that look at several fields, one file a family of kinds.

``for_kind`` gives the check of a new or changed object and the check of a change.  Both run on objects that passed the
type checks, so that a field, where present, has its type.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from isoplane.objects.kinds import Resource
from isoplane.objects.rules import cluster, data, machine, network, pod, quota
from isoplane.objects.rules.report import Report

Check = Callable[[dict[str, Any], Report], None]
UpdateCheck = Callable[[dict[str, Any], dict[str, Any], Report], None]


def _nothing(obj: dict[str, Any], report: Report) -> None:
    """A kind whose schema says everything."""


def _anything(obj: dict[str, Any], old: dict[str, Any], report: Report) -> None:
    """A kind of which everything may change."""


@dataclass(frozen=True, slots=True)
class Rules:
    """``check`` takes the object; ``check_update`` the new and the old one."""

    check: Check = _nothing
    check_update: UpdateCheck = _anything


_RULES: dict[tuple[str, str], Rules] = {
    ("", "Pod"): Rules(pod.check, pod.check_update),
    ("", "Node"): Rules(cluster.check_node),
    ("", "Event"): Rules(cluster.check_event),
    ("", "ConfigMap"): Rules(data.check_configmap, data.check_configmap_update),
    ("", "Secret"): Rules(data.check_secret, data.check_secret_update),
    ("", "ResourceQuota"): Rules(quota.check_resourcequota, quota.check_resourcequota_update),
    ("", "LimitRange"): Rules(quota.check_limitrange),
    ("scheduling.k8s.io", "PriorityClass"): Rules(quota.check_priorityclass, quota.check_priorityclass_update),
    ("networking.k8s.io", "NetworkPolicy"): Rules(network.check_policy),
    ("policy.networking.k8s.io", "ClusterNetworkPolicy"): Rules(network.check_cluster_policy),
    ("policy", "PodDisruptionBudget"): Rules(cluster.check_budget),
    ("coordination.k8s.io", "Lease"): Rules(cluster.check_lease),
    ("kubevirt.io", "VirtualMachine"): Rules(machine.check_machine),
    ("kubevirt.io", "VirtualMachineInstance"): Rules(machine.check_instance, machine.check_instance_update),
    ("isoplane.io", "QuotaPolicy"): Rules(quota.check_quotapolicy),
    ("isoplane.io", "Cohort"): Rules(quota.check_cohort),
}
_NONE = Rules()


def for_kind(resource: Resource) -> Rules:
    """The rules of a kind; a kind without any has empty ones."""
    return _RULES.get((resource.group, resource.kind), _NONE)
