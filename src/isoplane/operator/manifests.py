"""What the operator needs in a cluster, as objects in the order in which they may be applied. Pure.

``isoplane operator run`` applies the part that a laptop needs; ``isoplane operator manifests`` prints all.
"""

from __future__ import annotations

from typing import Any

from isoplane.objects.crd import crd
from isoplane.objects.kinds import COHORTS, QUOTAPOLICIES, TENANTQUOTAS
from isoplane.objects.metadata import Object
from isoplane.operator.kinds import QUOTALEDGERS
from isoplane.operator.names import NAMESPACE, PART_OF, SERVICE_ACCOUNT, Accounts
from isoplane.operator.policies import admission_policies

_RBAC = "rbac.authorization.k8s.io"
_READ = ("get", "list", "watch")


def access() -> list[Object]:
    """Namespace, service account, and the least rights with which the operator can do its work."""
    rules = [
        _rule("", ["pods"], *_READ, "patch", "delete"),
        _rule("", ["pods/status"], "patch"),
        _rule("", ["namespaces", "nodes"], *_READ),
        _rule("", ["events"], "create", "patch"),
        _rule("isoplane.io", ["tenantquotas", "quotapolicies", "cohorts"], *_READ),
        _rule("isoplane.io", ["tenantquotas/status"], "patch"),
        _rule("isoplane.io", ["quotaledgers"], *_READ, "create", "update", "delete"),
        _rule("policy", ["poddisruptionbudgets"], *_READ),
        _rule("scheduling.k8s.io", ["priorityclasses"], *_READ),
        _rule("kubevirt.io", ["virtualmachines", "virtualmachineinstances"], *_READ),
        _rule("kubevirt.io", ["virtualmachineinstances"], "delete"),
        _rule("authorization.k8s.io", ["subjectaccessreviews"], "create"),
    ]
    account = {"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": NAMESPACE}
    lease = [_rule("coordination.k8s.io", ["leases"], "get", "create", "update")]
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": _metadata(NAMESPACE)},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _metadata(SERVICE_ACCOUNT, NAMESPACE)},
        {
            "apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": _metadata(SERVICE_ACCOUNT), "rules": rules,
        },
        {
            "apiVersion": f"{_RBAC}/v1", "kind": "ClusterRoleBinding", "metadata": _metadata(SERVICE_ACCOUNT),
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": SERVICE_ACCOUNT}, "subjects": [account],
        },
        {
            "apiVersion": f"{_RBAC}/v1", "kind": "Role", "metadata": _metadata(SERVICE_ACCOUNT, NAMESPACE), "rules": lease,
        },
        {
            "apiVersion": f"{_RBAC}/v1", "kind": "RoleBinding", "metadata": _metadata(SERVICE_ACCOUNT, NAMESPACE),
            "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": SERVICE_ACCOUNT}, "subjects": [account],
        },
        {
            "apiVersion": f"{_RBAC}/v1", "kind": "RoleBinding", "metadata": _metadata(SERVICE_ACCOUNT, "kube-system"),
            "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": "extension-apiserver-authentication-reader"},
            "subjects": [account],
        },
        {
            "apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole",
            "metadata": {
                **_metadata("isoplane-view"),
                "labels": {**PART_OF, "rbac.authorization.k8s.io/aggregate-to-view": "true"},
            },
            "rules": [
                _rule("view.isoplane.io", ["workloads"], *_READ),
                _rule("isoplane.io", ["tenantquotas", "quotapolicies"], *_READ),
            ],
        },
    ]  # fmt: skip


def laptop(accounts: Accounts = Accounts()) -> list[Object]:
    """What ``isoplane operator run`` installs: kinds, access, policies."""
    return [*kinds(), *access(), *admission_policies(accounts)]


def kinds() -> list[Object]:
    """The definitions of the kinds that are stored."""
    return [crd(resource) for resource in (TENANTQUOTAS, QUOTAPOLICIES, COHORTS, QUOTALEDGERS)]


def _rule(group: str, resources: list[str], *verbs: str) -> dict[str, list[str]]:
    return {"apiGroups": [group], "resources": resources, "verbs": list(verbs)}


def _metadata(name: str, namespace: str = "") -> dict[str, Any]:
    where = {"namespace": namespace} if namespace else {}
    return {"name": name, **where, "labels": dict(PART_OF)}
