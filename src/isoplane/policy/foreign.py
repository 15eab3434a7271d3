"""Policies of kinds that are not judged here: recognised by group, version and kind, so that none is ignored in silence.

Calico, Cilium, Antrea and others call their kinds NetworkPolicy too, and each means something else by its fields.  What
they allow or deny is not known here; ``could_select`` only rules out those that surely concern nobody who is asked about.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from isoplane.objects import selectors
from isoplane.objects.selectors import EVERYTHING, Selector
from isoplane.policy.model import Cluster, Endpoint

JUDGED = {
    ("networking.k8s.io", "v1", "NetworkPolicy"),
    ("policy.networking.k8s.io", "v1alpha2", "ClusterNetworkPolicy"),
}
POLICY_GROUPS = ("policy.networking.k8s.io",)
"""API groups of nothing but policies."""
_SUFFIXES = ("NetworkPolicy", "EgressFirewall")
_MESH = {("security.istio.io", "AuthorizationPolicy"), ("policy.linkerd.io", "AuthorizationPolicy")}
"""Policies of service meshes that refuse connections; one in the mesh's root namespace holds everywhere."""
_RULE_FIELDS = ("ingress", "egress", "ingressDeny", "egressDeny")


@dataclass(frozen=True, slots=True)
class Unjudged:
    """One policy that was not judged. ``why`` is set where it is not even known whether there are any."""

    api_version: str
    kind: str
    namespace: str
    name: str
    obj: Mapping[str, Any]
    why: str = ""

    @property
    def id(self) -> str:
        place = "/".join(part for part in (self.namespace, self.name) if part)
        return f"{self.api_version} {self.kind} {place}".rstrip()

    def to_dict(self) -> dict[str, str]:
        found = {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "namespace": self.namespace,
            "name": self.name,
        }
        return {**found, "why": self.why} if self.why else found


def parts_of(obj: Mapping[str, Any]) -> tuple[str, str, str]:
    """(group, version, kind) of an object."""
    group, _, version = str(obj.get("apiVersion") or "").rpartition("/")
    return group, version, str(obj.get("kind") or "")


def is_judged(group: str, version: str, kind: str) -> bool:
    """Whether a kind's policies are judged; what comes without an apiVersion is taken to be Kubernetes' own."""
    return (group, version, kind) in JUDGED or (not version and any(kind == judged[2] for judged in JUDGED))


def is_policy_kind(group: str, version: str, kind: str) -> bool:
    """Whether a kind holds network policies that are not judged."""
    if is_judged(group, version, kind):
        return False
    return kind.endswith(_SUFFIXES) or (group, kind) in _MESH or group in POLICY_GROUPS


def is_unjudged(obj: Mapping[str, Any]) -> bool:
    """By its kind; or, of a group that nobody here has heard of, by a name like a policy's and rules like a policy's."""
    group, version, kind = parts_of(obj)
    if is_policy_kind(group, version, kind):
        return True
    spec = obj.get("spec")
    if is_judged(group, version, kind) or "." not in group or not isinstance(spec, Mapping):
        return False
    return ("Policy" in kind or "Firewall" in kind) and any(isinstance(spec.get(field), list) for field in _RULE_FIELDS)


def unjudged(obj: Mapping[str, Any]) -> Unjudged:
    """The policy as it is named."""
    metadata = obj.get("metadata")
    written: Mapping[str, Any] = metadata if isinstance(metadata, Mapping) else {}
    return Unjudged(
        str(obj.get("apiVersion") or ""),
        str(obj.get("kind") or ""),
        str(written.get("namespace") or ""),
        str(written.get("name") or ""),
        obj,
    )


def could_select(policy: Unjudged, ends: Iterable[Endpoint], cluster: Cluster) -> bool:
    """Whether it might govern one of the ends; true wherever that cannot be ruled out."""
    return bool(policy.why) or any(_could_select(policy, end, cluster) for end in ends)


def _could_select(policy: Unjudged, end: Endpoint, cluster: Cluster) -> bool:
    group = policy.api_version.rpartition("/")[0]
    if (group, policy.kind) in _MESH:
        return policy.namespace in (end.namespace, "istio-system", "linkerd")
    if policy.namespace and policy.namespace != end.namespace:
        return False
    spec = policy.obj.get("spec")
    if not isinstance(spec, Mapping):
        return True
    spaces, pods = _subjects(group, spec)
    return spaces.matches(cluster.namespaces.get(end.namespace, {})) and pods.matches(end.labels)


def _subjects(group: str, spec: Mapping[str, Any]) -> tuple[Selector, Selector]:
    """(namespaces, pods) that a policy with Kubernetes' own way of selecting selects; everything where it has another."""
    subject = spec.get("subject")
    if group in POLICY_GROUPS and isinstance(subject, Mapping):
        pods = subject.get("pods")
        if isinstance(pods, Mapping):
            return _selector(pods.get("namespaceSelector")), _selector(pods.get("podSelector"))
        return _selector(subject.get("namespaces")), EVERYTHING
    if "podSelector" in spec:
        return EVERYTHING, _selector(spec["podSelector"])
    return EVERYTHING, EVERYTHING


def _selector(written: Any) -> Selector:
    """A label selector; everything where it cannot be read as one."""
    if not isinstance(written, Mapping) or not set(written) <= {"matchLabels", "matchExpressions"}:
        return EVERYTHING
    try:
        return selectors.from_object(written)
    except (TypeError, ValueError, AttributeError, KeyError):
        return EVERYTHING
