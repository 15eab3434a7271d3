"""The built-in kinds that code names, by their constants. What is served is a :class:`~isoplane.objects.scheme.Scheme`.

A kind that no code names needs no line here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isoplane.objects.resource import Resource
from isoplane.objects.resources import BUILT_IN
from isoplane.objects.resources.clusternetworkpolicy import CLUSTERNETWORKPOLICIES
from isoplane.objects.resources.cohort import COHORTS
from isoplane.objects.resources.configmap import CONFIGMAPS
from isoplane.objects.resources.customresourcedefinition import CUSTOMRESOURCEDEFINITIONS
from isoplane.objects.resources.event import EVENTS
from isoplane.objects.resources.lease import LEASES
from isoplane.objects.resources.limitrange import LIMITRANGES
from isoplane.objects.resources.namespace import NAMESPACES
from isoplane.objects.resources.networkpolicy import NETWORKPOLICIES
from isoplane.objects.resources.node import NODES
from isoplane.objects.resources.pod import PODS
from isoplane.objects.resources.poddisruptionbudget import PODDISRUPTIONBUDGETS
from isoplane.objects.resources.priorityclass import PRIORITYCLASSES
from isoplane.objects.resources.quotadecision import QUOTADECISIONS
from isoplane.objects.resources.quotapolicy import QUOTAPOLICIES
from isoplane.objects.resources.quotausage import QUOTAUSAGES
from isoplane.objects.resources.resourcequota import RESOURCEQUOTAS
from isoplane.objects.resources.secret import SECRETS
from isoplane.objects.resources.service import SERVICES
from isoplane.objects.resources.serviceaccount import SERVICEACCOUNTS
from isoplane.objects.resources.tenantquota import TENANTQUOTAS
from isoplane.objects.resources.virtualmachine import VIRTUALMACHINES
from isoplane.objects.resources.virtualmachineinstance import VIRTUALMACHINEINSTANCES
from isoplane.objects.resources.workload import WORKLOADS
from isoplane.objects.scheme import Scheme

_BUILT_IN = Scheme(BUILT_IN)


def of(obj: Mapping[str, Any]) -> Resource:
    """The built-in resource of a manifest. Raises LookupError with what was asked for."""
    return _BUILT_IN.of(obj)


__all__ = [
    "BUILT_IN", "CLUSTERNETWORKPOLICIES", "COHORTS", "CONFIGMAPS", "CUSTOMRESOURCEDEFINITIONS", "EVENTS", "LEASES",
    "LIMITRANGES", "NAMESPACES", "NETWORKPOLICIES", "NODES", "PODDISRUPTIONBUDGETS", "PODS", "PRIORITYCLASSES",
    "QUOTADECISIONS", "QUOTAPOLICIES", "QUOTAUSAGES", "RESOURCEQUOTAS", "SECRETS", "SERVICEACCOUNTS", "SERVICES",
    "TENANTQUOTAS", "VIRTUALMACHINEINSTANCES", "VIRTUALMACHINES", "WORKLOADS", "Resource", "of",
]  # fmt: skip
