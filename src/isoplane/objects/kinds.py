"""CONTRACT: every resource that isoplane serves, said once, as data.

Discovery, routing, storage keys, short names and categories all read this table.  A computed resource has no rows in
the store: its objects are derived on every read.  Adding a kind is adding a line here (and its schema and columns).
"""

from __future__ import annotations

from dataclasses import dataclass, field

STANDARD_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
READ_VERBS = ("get", "list", "watch")


@dataclass(frozen=True, slots=True)
class Resource:
    """One served resource. ``group`` is '' for core; ``subresources`` maps a name to the kind its body has."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: dict[str, str] = field(default_factory=dict, hash=False, compare=False)
    verbs: tuple[str, ...] = STANDARD_VERBS
    computed: bool = False
    custom: bool = False
    """Whether clients know it as a custom resource: merge patch instead of strategic merge patch."""
    makes_workloads: bool = False
    """Whether its objects own workloads that they make, which then wait for quota rather than being refused."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def singular(self) -> str:
        return self.kind.lower()

    @property
    def qualified(self) -> str:
        """``pods`` or ``virtualmachines.kubevirt.io``, as errors and quotas name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def list_kind(self) -> str:
        return self.kind + "List"


def _status(kind: str) -> dict[str, str]:
    return {"status": kind}


_KV_SUB = {"status": "VirtualMachine", "start": "StartOptions", "stop": "StopOptions", "restart": "RestartOptions"}
_VMI_SUB = {
    "status": "VirtualMachineInstance",
    "pause": "PauseOptions",
    "unpause": "UnpauseOptions",
    "log": "VirtualMachineInstance",
}

NAMESPACES = Resource(
    "", "v1", "namespaces", "Namespace", False, ("ns",), (), {**_status("Namespace"), "finalize": "Namespace"}
)
PODS = Resource(
    "", "v1", "pods", "Pod", True, ("po",), ("all",),
    {**_status("Pod"), "binding": "Binding", "eviction": "Eviction", "log": "Pod", "exec": "PodExecOptions"},
)  # fmt: skip
NODES = Resource("", "v1", "nodes", "Node", False, ("no",), (), _status("Node"))
EVENTS = Resource("", "v1", "events", "Event", True, ("ev",))
CONFIGMAPS = Resource("", "v1", "configmaps", "ConfigMap", True, ("cm",))
SECRETS = Resource("", "v1", "secrets", "Secret")
SERVICEACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount", True, ("sa",))
RESOURCEQUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota", True, ("quota",), (), _status("ResourceQuota"))
LIMITRANGES = Resource("", "v1", "limitranges", "LimitRange", True, ("limits",))
PRIORITYCLASSES = Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", False, ("pc",))
NETWORKPOLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", True, ("netpol",))
PODDISRUPTIONBUDGETS = Resource(
    "policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, ("pdb",), (), _status("PodDisruptionBudget")
)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
CLUSTERNETWORKPOLICIES = Resource(
    "policy.networking.k8s.io",
    "v1alpha2",
    "clusternetworkpolicies",
    "ClusterNetworkPolicy",
    False,
    ("cnp",),
    custom=True,
)
VIRTUALMACHINES = Resource(
    "kubevirt.io",
    "v1",
    "virtualmachines",
    "VirtualMachine",
    True,
    ("vm", "vms"),
    ("all",),
    _KV_SUB,
    custom=True,
    makes_workloads=True,
)
VIRTUALMACHINEINSTANCES = Resource(
    "kubevirt.io", "v1", "virtualmachineinstances", "VirtualMachineInstance", True, ("vmi", "vmis"), ("all",), _VMI_SUB,
    custom=True,
)  # fmt: skip
QUOTAPOLICIES = Resource("isoplane.io", "v1alpha1", "quotapolicies", "QuotaPolicy", True, ("qp",), custom=True)
COHORTS = Resource("isoplane.io", "v1alpha1", "cohorts", "Cohort", False, custom=True)
QUOTAUSAGES = Resource(
    "isoplane.io", "v1alpha1", "quotausages", "QuotaUsage", True, ("qu",), verbs=READ_VERBS, computed=True, custom=True
)
QUOTADECISIONS = Resource(
    "isoplane.io",
    "v1alpha1",
    "quotadecisions",
    "QuotaDecision",
    True,
    ("qd",),
    verbs=READ_VERBS,
    computed=True,
    custom=True,
)
WORKLOADS = Resource(
    "isoplane.io", "v1alpha1", "workloads", "Workload", True, ("wl",), verbs=READ_VERBS, computed=True, custom=True
)
SERVICES = Resource("", "v1", "services", "Service", True, ("svc",), verbs=READ_VERBS, computed=True)
CUSTOMRESOURCEDEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False, ("crd", "crds"),
    verbs=READ_VERBS, computed=True,
)  # fmt: skip

ANNOUNCED: tuple[Resource, ...] = (SERVICES, CUSTOMRESOURCEDEFINITIONS)
"""Kinds that clients look for and that are not served yet: their lists are empty, and who writes one is told so."""

SERVED: tuple[Resource, ...] = (
    NAMESPACES, PODS, NODES, EVENTS, CONFIGMAPS, SECRETS, SERVICEACCOUNTS, RESOURCEQUOTAS, LIMITRANGES,
    PRIORITYCLASSES, NETWORKPOLICIES, PODDISRUPTIONBUDGETS, LEASES, CLUSTERNETWORKPOLICIES,
    VIRTUALMACHINES, VIRTUALMACHINEINSTANCES, QUOTAPOLICIES, COHORTS, QUOTAUSAGES, QUOTADECISIONS, WORKLOADS,
    *ANNOUNCED,
)  # fmt: skip

BY_PLURAL: dict[tuple[str, str, str], Resource] = {(r.group, r.version, r.plural): r for r in SERVED}
BY_KIND: dict[tuple[str, str], Resource] = {(r.api_version, r.kind): r for r in SERVED}


def of(obj: dict[str, object]) -> Resource:
    """The resource of an object by its apiVersion and kind. Raises LookupError with what was asked for."""
    key = (str(obj.get("apiVersion", "")), str(obj.get("kind", "")))
    try:
        return BY_KIND[key]
    except KeyError:
        raise LookupError(f'no matches for kind "{key[1]}" in version "{key[0]}"') from None
