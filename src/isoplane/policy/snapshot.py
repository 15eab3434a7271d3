"""From plain Kubernetes objects to a ``Cluster``: workloads, namespaces, nodes, policies, told apart by group and kind.

What may change the answer and was not judged is handed out beside it (``foreign.py``); what an endpoint is, is said in
``endpoints.py``.  The live path does not come through here: it reads the caches (``client.policy_view``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from isoplane.objects.errors import ApiError, BadRequest
from isoplane.policy import endpoints, foreign, model
from isoplane.policy.clusterpolicy import cluster_network_policy
from isoplane.policy.collector import collector_paused
from isoplane.policy.endpoints import MACHINE_GROUPS, MACHINE_TEMPLATES
from isoplane.policy.fields import Problems
from isoplane.policy.foreign import Unjudged, parts_of
from isoplane.policy.model import Cluster, Endpoint
from isoplane.policy.parse import network_policy
from isoplane.workload.bodies import without_bodies

Object = Mapping[str, Any]
_GROUPS = {
    "Namespace": ("",),
    "Node": ("",),
    "Pod": ("",),
    "NetworkPolicy": ("networking.k8s.io",),
    "ClusterNetworkPolicy": ("policy.networking.k8s.io",),
    "VirtualMachineInstance": MACHINE_GROUPS,
    **dict.fromkeys(MACHINE_TEMPLATES, MACHINE_GROUPS),
}
"""Kinds that are read by name, with whose they are."""
_CLUSTER_SCOPED = ("Namespace", "Node", "ClusterNetworkPolicy")
_TEMPLATE_GROUPS = ("", "apps", "batch", "extensions")
_TEMPLATE = "(a Pod template)"
_TEMPLATES = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob")
"""Kubernetes' own kinds that make Pods, whatever of their template is written; those of others show it."""
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """``unjudged``: policies of kinds that nobody here can judge. ``remarks``: what else was not read, in words."""

    cluster: Cluster
    unjudged: tuple[Unjudged, ...] = ()
    remarks: tuple[str, ...] = ()


class Unreadable(BadRequest):
    """An object that cannot be read, named in the message with the field; or several that are one twice."""

    def __init__(self, message: str, objects: Iterable[Object]) -> None:
        super().__init__(message)
        self.objects = tuple(objects)


def from_objects(objects: Iterable[Object]) -> Cluster:
    """The cluster that objects describe, every policy among them judged.

    Raises Unreadable for an object that cannot be read, and for a policy of a kind that is not judged.
    """
    found = read(objects)
    if found.unjudged:
        listed = ", ".join(policy.id for policy in found.unjudged)
        raise Unreadable(f"policies of these kinds are not judged: {listed}", (p.obj for p in found.unjudged))
    return found.cluster


def read(objects: Iterable[Object]) -> Snapshot:
    """The snapshot that objects describe; kinds without a meaning for the network are passed over.

    Raises Unreadable.
    """
    with collector_paused():
        return _read(objects)


def _read(objects: Iterable[Object]) -> Snapshot:
    by_kind: dict[str, list[Object]] = {}
    unjudged: list[Unjudged] = []
    remarks: list[str] = []
    owners: set[tuple[str, str, str]] = set()
    for obj in without_bodies(_flat(objects)):  # a machine stands for its launcher Pod
        if foreign.is_unjudged(obj):
            unjudged.append(foreign.unjudged(obj))
            continue
        kind = _kind(obj)
        if kind:
            by_kind.setdefault(kind, []).append(obj)
            owners.update(endpoints.owners_of(obj))
        else:
            places = endpoints.unread_templates(obj)
            if places:
                told = (
                    f"its Pod templates ({', '.join(places[:3])}) are not read, so its Pods are not among the workloads"
                )
                remarks.append(f"{describe(obj)}: {told}")
    for listed in by_kind.values():
        _refuse_twins(listed)
    namespaces = dict(each(o, _namespace) for o in by_kind.get("Namespace", ()))
    policies = [each(o, lambda obj, _: network_policy(obj)) for o in by_kind.get("NetworkPolicy", ())]
    wide = [each(o, lambda obj, _: cluster_network_policy(obj)) for o in by_kind.get("ClusterNetworkPolicy", ())]
    nodes = [each(o, endpoints.node) for o in by_kind.get("Node", ())]
    workloads = [*_machines(by_kind, owners), *_pods(by_kind)]
    try:
        cluster = model.cluster(workloads, namespaces, policies, wide, nodes)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    return Snapshot(cluster, tuple(unjudged), tuple(remarks))


def describe(obj: Object) -> str:
    """``Kind namespace/name``, as far as it is known."""
    metadata = obj.get("metadata")
    written: Mapping[str, Any] = metadata if isinstance(metadata, Mapping) else {}
    kind, name = str(obj.get("kind") or "an object"), str(written.get("name") or "without a name")
    return f"{kind} {name}" if kind in _CLUSTER_SCOPED else f"{kind} {endpoints.namespace_of(obj)}/{name}"


def each(obj: Object, reader: Callable[[Object, Problems], _T]) -> _T:
    """What a reader makes of an object. Raises Unreadable with the object and every wrong field."""
    problems = Problems()
    try:
        found = reader(obj, problems)
    except ApiError as error:
        causes = error.causes
        if not causes:
            raise Unreadable(f"{describe(obj)}: {error.message}", (obj,)) from error
    else:
        causes = tuple(problems.causes)
        if not causes:
            return found
    listed = "; ".join(f"{cause.field}: {cause.message}" for cause in causes)
    raise Unreadable(f"{describe(obj)}: {listed}", (obj,))


def _flat(objects: Iterable[Object]) -> Iterable[Object]:
    for obj in objects:
        if not isinstance(obj, Mapping):
            raise BadRequest(f"a manifest must be an object with kind and metadata, not {type(obj).__name__}")
        if str(obj.get("kind", "")).endswith("List") and isinstance(obj.get("items"), list):
            yield from _flat({"kind": str(obj["kind"])[:-4], **item} for item in obj["items"])
        elif not obj.get("kind"):
            raise Unreadable("an object has no kind", (obj,))
        else:
            yield obj


def _kind(obj: Object) -> str:
    """How it is read: by its kind, where the group is that kind's own; as a template; '' for not at all."""
    group, _, kind = parts_of(obj)
    if kind in _GROUPS and (group in _GROUPS[kind] or not obj.get("apiVersion")):
        return kind
    own = kind in _TEMPLATES and group in _TEMPLATE_GROUPS
    return _TEMPLATE if own or endpoints.has_pod_template(obj) else ""


def _refuse_twins(listed: list[Object]) -> None:
    seen: dict[tuple[str, str, str], Object] = {}
    for obj in listed:
        metadata = obj.get("metadata")
        name = str(metadata.get("name") or "") if isinstance(metadata, Mapping) else ""
        kind = str(obj.get("kind"))
        place = "" if kind in _CLUSTER_SCOPED else endpoints.namespace_of(obj)
        twin = seen.setdefault((kind, place, name), obj)
        if name and twin is not obj:
            raise Unreadable(f"{describe(obj)} is given twice", (twin, obj))


def _namespace(obj: Object, problems: Problems) -> tuple[str, dict[str, str]]:
    return endpoints.name_of(obj, problems), endpoints.labels_of(obj.get("metadata"), "metadata", problems)


def _pods(by_kind: Mapping[str, list[Object]]) -> list[Endpoint]:
    """Pods, and the templates of which no Pod (nor anything between) is there yet."""
    found = [each(obj, endpoints.pod) for obj in by_kind.get("Pod", ())]
    templates = by_kind.get(_TEMPLATE, [])
    declared = {(namespace, str(obj["kind"]), name) for obj in templates for namespace, name in (_key(obj),)}
    running = _makers(by_kind.get("Pod", ()), templates)
    for obj in templates:
        namespace, name = _key(obj)
        owned = not declared.isdisjoint(endpoints.owners_of(obj))
        if (namespace, str(obj["kind"]), name) not in running and not owned:
            found.append(each(obj, endpoints.pod_template))
    return found


def _makers(pods: Iterable[Object], templates: Iterable[Object]) -> set[tuple[str, str, str]]:
    """(namespace, kind, name) of whatever already has Pods, and of what made that (a Deployment by its ReplicaSet)."""
    above = {(_key(o)[0], str(o["kind"]), _key(o)[1]): list(endpoints.owners_of(o)) for o in templates}
    found: set[tuple[str, str, str]] = set()
    waiting = [owner for pod in pods for owner in endpoints.owners_of(pod)]
    while waiting:
        owner = waiting.pop()
        if owner not in found:
            found.add(owner)
            waiting += above.get(owner, ())
    return found


def _machines(by_kind: Mapping[str, list[Object]], owners: set[tuple[str, str, str]]) -> list[Endpoint]:
    """Instances, and what makes instances of which there is none yet."""
    instances = by_kind.get("VirtualMachineInstance", ())
    found = [each(obj, endpoints.machine) for obj in instances]
    running = {_key(obj) for obj in instances}
    for kind in MACHINE_TEMPLATES:
        for obj in by_kind.get(kind, ()):
            namespace, name = _key(obj)
            there = (namespace, name) in running if kind == "VirtualMachine" else (namespace, kind, name) in owners
            if not there:
                found.append(each(obj, endpoints.machine_template))
    return found


def _key(obj: Object) -> tuple[str, str]:
    metadata = obj.get("metadata")
    return endpoints.namespace_of(obj), str(metadata.get("name") or "") if isinstance(metadata, Mapping) else ""
