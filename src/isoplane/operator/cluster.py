"""What the operator sees of a cluster: the caches, and what quota reads of them. Reads only; decides nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from isoplane.client.informer import Informer, Informers
from isoplane.objects import metadata
from isoplane.objects.kinds import COHORTS, NAMESPACES, NODES, PODDISRUPTIONBUDGETS, PODS, QUOTAPOLICIES, TENANTQUOTAS
from isoplane.objects.metadata import Object
from isoplane.objects.phase import has_ended
from isoplane.operator.ledger import Limit
from isoplane.operator.names import MANAGED, MANAGED_LABEL
from isoplane.quota.charge import canonical
from isoplane.quota.disruption import as_budget
from isoplane.quota.model import Budget, Cohort, Limits, Policy, Quota
from isoplane.quota.read import POLICY_NAME, capacity, max_grace, policy_of, quota_of, selects
from isoplane.workload.accounting import DEFAULT_ACCOUNTING, Accounting
from isoplane.workload.adapters import QUOTA_GATE
from isoplane.workload.registry import adapter_for
from isoplane.workload.shape import Claim

BY_NAMESPACE = "namespace"
OWN, COHORT = "namespace.", "cohort."
"""What the names of ledgers begin with: of a namespace's own, of a cohort's."""


def _namespace_of(obj: Mapping[str, Any]) -> Iterable[str]:
    return (metadata.namespace(obj),)


class Cluster:
    """The informers of one operator, and views of them. Belongs to one event loop."""

    def __init__(self, informers: Informers) -> None:
        self.pods: Informer = informers.of(PODS)
        self.namespaces = informers.of(NAMESPACES)
        self.quotas = informers.of(TENANTQUOTAS)
        self.policies = informers.of(QUOTAPOLICIES)
        self.cohorts = informers.of(COHORTS)
        self.nodes = informers.of(NODES)
        self.budgets_ = informers.of(PODDISRUPTIONBUDGETS)
        for informer in (self.pods, self.quotas, self.budgets_):
            informer.index(BY_NAMESPACE, _namespace_of)

    def managed(self) -> list[str]:
        """The namespaces under quota, sorted."""
        return sorted(metadata.name(obj) for obj in self.namespaces.items() if is_managed(obj))

    def is_closing(self, namespace: str) -> bool:
        """Whether a namespace is being deleted, or is gone."""
        obj = self.namespaces.get("", namespace)
        return obj is None or metadata.is_deleting(obj)

    def policy(self, namespace: str) -> Policy:
        """What the namespace's QuotaPolicy says. Raises ValueError."""
        obj = self.policies.get(namespace, POLICY_NAME)
        return Policy() if obj is None else self.policies.derived(policy_of, obj)

    def wanted_limits(self, namespace: str) -> list[Limit]:
        """What the TenantQuotas of a namespace ask to be put in force. Raises ValueError."""
        found = []
        for obj in self.quotas.find(BY_NAMESPACE, namespace):
            quota = quota_of(obj)
            found.append(Limit(namespace, quota.name, int(obj["metadata"].get("generation") or 0), quota.hard))
        return found

    def limits(self, namespace: str, in_force: Iterable[Limit]) -> Limits:
        """What decides in a namespace: the limits in force, with the scopes and the policy of now. Raises ValueError."""
        hard = {limit.quota: limit.hard for limit in in_force}
        quotas = []
        for obj in self.quotas.find(BY_NAMESPACE, namespace):
            quota = quota_of(obj)
            if quota.name in hard:
                quotas.append(Quota(quota.name, hard[quota.name], quota.scopes))
        return Limits(tuple(sorted(quotas, key=lambda quota: quota.name)), self.policy(namespace))

    def domain_of(self, namespace: str) -> str:
        """The ledger that is to decide a namespace: its cohort's, or its own."""
        try:
            cohort = self.policy(namespace).cohort
        except ValueError:
            cohort = ""
        return f"{COHORT}{cohort}" if cohort and self.cohorts.get("", cohort) is not None else f"{OWN}{namespace}"

    def cohort(self, name: str, members: Iterable[str]) -> Cohort | None:
        """A cohort with its capacity; None when there is none of this name. Raises ValueError.

        Where it is nodes that give the capacity, what Pods of others take there is not the cohort's to promise.
        """
        obj = self.cohorts.get("", name)
        if obj is None:
            return None
        if (obj.get("spec") or {}).get("capacity") is not None:
            return Cohort(name, capacity(obj, ()), max_grace(obj))
        nodes = {metadata.name(node): node for node in self.nodes.items() if _usable(node) and selects(obj, node)}
        mine, taken = frozenset(members), dict[str, int]()
        for pod in self.pods.items():
            if (
                (pod.get("spec") or {}).get("nodeName") not in nodes
                or metadata.namespace(pod) in mine
                or has_ended(pod)
            ):
                continue
            for resource, value in self.pods.derived(_request, pod).items():
                taken[resource] = taken.get(resource, 0) + value
        found = capacity(obj, nodes.values())
        return Cohort(name, {r: max(0, v - taken.get(r, 0)) for r, v in found.items()}, max_grace(obj))

    def budgets(self, namespace: str) -> list[Budget]:
        """The PodDisruptionBudgets of a namespace, with whom they protect."""
        bearers = [(metadata.uid(pod), metadata.labels(pod)) for pod in self.pods.find(BY_NAMESPACE, namespace)]
        return [as_budget(obj, bearers) for obj in self.budgets_.find(BY_NAMESPACE, namespace)]


def is_managed(namespace: Mapping[str, Any]) -> bool:
    """Whether a namespace has opted in."""
    return bool(metadata.labels(namespace).get(MANAGED_LABEL) == MANAGED)


def is_gated(pod: Mapping[str, Any]) -> bool:
    """Whether a Pod bears the quota gate."""
    return any(gate.get("name") == QUOTA_GATE for gate in (pod.get("spec") or {}).get("schedulingGates") or ())


def version_of(obj: Mapping[str, Any]) -> int:
    """metadata.resourceVersion as a number, which Kubernetes promises it to be within one resource."""
    return int(obj["metadata"]["resourceVersion"])


def demand_of(pod: Mapping[str, Any], accounting: Accounting) -> Claim:
    """What a Pod asks of quota. Raises ValueError."""
    adapter = adapter_for(PODS)
    assert adapter is not None
    return adapter.claim(pod, accounting)


def grace_of(pod: Object) -> int:
    """Seconds that a Pod takes to end at most."""
    stated = (pod.get("spec") or {}).get("terminationGracePeriodSeconds")
    return 30 if stated is None else int(stated)


def _request(pod: Mapping[str, Any]) -> dict[str, int]:
    """What a Pod takes of its node, by canonical name; nothing where it cannot be read."""
    try:
        return {canonical(name): value for name, value in demand_of(pod, DEFAULT_ACCOUNTING).request.items()}
    except ValueError:
        return {}


def _usable(node: Mapping[str, Any]) -> bool:
    """Whether a node gives capacity: Ready and not cordoned."""
    if (node.get("spec") or {}).get("unschedulable"):
        return False
    conditions = (node.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)
