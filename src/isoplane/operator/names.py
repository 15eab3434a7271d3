"""CONTRACT: the names that the operator is known by in a cluster: who it is, and how a namespace asks for it."""

from __future__ import annotations

from dataclasses import dataclass

NAMESPACE = "isoplane-system"
SERVICE_ACCOUNT = "isoplane-operator"
MANAGED_LABEL = "isoplane.io/quota"
MANAGED = "managed"
"""The value of the label with which a namespace opts in."""
PRIORITY_ANNOTATION = "scheduling.k8s.io/priority-class"
PART_OF = {"app.kubernetes.io/name": "isoplane", "app.kubernetes.io/part-of": "isoplane"}
"""On everything that is installed, so that it can be found and taken away again."""


@dataclass(frozen=True, slots=True)
class Accounts:
    """Whom the policies tell apart: the operator, and KubeVirt's controllers (user names)."""

    operator: str = f"system:serviceaccount:{NAMESPACE}:{SERVICE_ACCOUNT}"
    kubevirt_namespace: str = "kubevirt"

    @property
    def kubevirt(self) -> str:
        """The account that makes launcher Pods."""
        return f"system:serviceaccount:{self.kubevirt_namespace}:kubevirt-controller"
