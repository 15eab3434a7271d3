"""Defaults, as the Kubernetes API server and KubeVirt's admission set them, one function a kind.

Called before validation, so nothing here may trust a type: what is not of the expected shape is left for validation
to report.  Nulls are dropped first, as Go's decoder does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from isoplane.objects.defaulting import machine, pod, small
from isoplane.objects.defaulting.nulls import drop_nulls, has_nulls
from isoplane.objects.kinds import Resource
from isoplane.objects.schema.structure import structure

_DEFAULTS: dict[tuple[str, str], Callable[[dict[str, Any]], None]] = {
    ("", "Pod"): pod.apply,
    ("", "Namespace"): small.namespace,
    ("", "Node"): small.node,
    ("", "Secret"): small.secret,
    ("", "LimitRange"): small.limitrange,
    ("scheduling.k8s.io", "PriorityClass"): small.priorityclass,
    ("networking.k8s.io", "NetworkPolicy"): small.networkpolicy,
    ("kubevirt.io", "VirtualMachineInstance"): machine.apply_instance,
    ("kubevirt.io", "VirtualMachine"): machine.apply_machine,
    ("isoplane.io", "QuotaPolicy"): small.quotapolicy,
}


def apply_defaults(resource: Resource, obj: dict[str, Any]) -> None:
    """Fill in, in place, what the user left out. A generated name must be set before (a Namespace is labelled by it)."""
    if has_nulls(obj):
        drop_nulls(obj, structure(resource))
    default = _DEFAULTS.get((resource.group, resource.kind))
    if default is not None:
        default(obj)
