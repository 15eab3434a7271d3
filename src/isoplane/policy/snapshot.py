"""From plain Kubernetes objects to a ``Cluster``: Pods, VMIs, VMs and workload templates, namespaces, nodes, policies.

A VM stands for its template until its VMI exists; a Deployment (StatefulSet, …) for its Pods until one of them does.
The live path does not come through here: it builds Endpoints from Workloads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from isoplane.objects import names
from isoplane.objects.errors import BadRequest
from isoplane.policy import model
from isoplane.policy.addresses import address
from isoplane.policy.clusterpolicy import cluster_network_policy
from isoplane.policy.model import Cluster, Endpoint, NamedPort, Node
from isoplane.policy.parse import network_policies
from isoplane.policy.rules import PORT_PROTOCOLS, ClusterPolicy

Object = Mapping[str, Any]
_TEMPLATES = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job", "CronJob")


def from_objects(objects: Iterable[Object]) -> Cluster:
    """The snapshot that manifests describe; kinds without a meaning for the network are passed over.

    Raises Invalid for a wrong policy, BadRequest for an object that cannot be read.
    """
    endpoints: list[Endpoint] = []
    cluster_policies: list[ClusterPolicy] = []
    namespaces: dict[str, dict[str, str]] = {}
    nodes: list[Node] = []
    by_kind: dict[str, list[Object]] = {}
    for obj in _flat(objects):
        by_kind.setdefault(str(obj.get("kind", "")), []).append(obj)
    for obj in by_kind.get("Namespace", ()):
        namespaces[_name(obj)] = _labels(obj.get("metadata"))
    for obj in by_kind.get("Node", ()):
        nodes.append(_node(obj))
    policies = network_policies(by_kind.get("NetworkPolicy", ()))
    for obj in by_kind.get("ClusterNetworkPolicy", ()):
        cluster_policies.append(cluster_network_policy(obj))
    endpoints += _machines(by_kind)
    endpoints += _pods(by_kind, {e.name for e in endpoints if e.kind == "vmi"})
    _once([p.id for p in policies], "NetworkPolicy")
    _once([p.id for p in cluster_policies], "ClusterNetworkPolicy")
    try:
        return model.cluster(endpoints, namespaces, policies, cluster_policies, nodes)
    except ValueError as error:
        raise BadRequest(str(error)) from error


def _flat(objects: Iterable[Object]) -> Iterable[Object]:
    for obj in objects:
        if not isinstance(obj, Mapping):
            raise BadRequest(f"a manifest must be an object with kind and metadata, not {type(obj).__name__}")
        if str(obj.get("kind", "")).endswith("List") and isinstance(obj.get("items"), list):
            yield from _flat({"kind": str(obj["kind"])[:-4], **item} for item in obj["items"])
        elif not obj.get("kind"):
            raise BadRequest("an object has no kind")
        else:
            yield obj


def _once(ids: list[str], kind: str) -> None:
    for twin in {i for i in ids if ids.count(i) > 1} if len(set(ids)) < len(ids) else ():
        raise BadRequest(f"{kind} {twin} is given twice")


def _name(obj: Object) -> str:
    metadata = obj.get("metadata")
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    if not isinstance(name, str) or names.dns_subdomain(name):
        raise BadRequest(f"{obj.get('kind')}: metadata.name {name!r} is not a name")
    return name


def _namespace(obj: Object) -> str:
    return str(obj["metadata"].get("namespace") or "default")


def _labels(metadata: Any) -> dict[str, str]:
    labels = metadata.get("labels") if isinstance(metadata, Mapping) else None
    if labels is None:
        return {}
    if not isinstance(labels, Mapping) or not all(isinstance(v, str) for v in labels.values()):
        name = metadata.get("name", "")
        raise BadRequest(f"metadata.labels of {name!r}: label values are strings; put numbers and booleans in quotes")
    return {str(k): v for k, v in labels.items()}


def _node(obj: Object) -> Node:
    listed = (obj.get("status") or {}).get("addresses") or ()
    ips = [str(a.get("address")) for a in listed if a.get("type") in ("InternalIP", "ExternalIP")]
    return Node(_name(obj), _addresses(ips, obj), _labels(obj.get("metadata")))


def _addresses(values: Iterable[Any], obj: Object) -> tuple[str, ...]:
    unique = dict.fromkeys(str(v) for v in values if v)
    for value in unique:
        try:
            address(value)
        except ValueError as error:
            raise BadRequest(f"{obj.get('kind')} {_name(obj)}: {error}") from error
    return tuple(unique)


def _pods(by_kind: Mapping[str, list[Object]], vmis: set[str]) -> list[Endpoint]:
    endpoints = []
    owners: set[tuple[str, str, str]] = set()
    for obj in by_kind.get("Pod", ()):
        namespace, labels = _namespace(obj), _labels(obj.get("metadata"))
        owners |= {(namespace, *owner) for owner in _owners(obj)}
        if any(kind == "VirtualMachineInstance" and name in vmis for kind, name in _owners(obj)):
            continue  # a launcher pod: the VMI stands for it
        status = obj.get("status") or {}
        ips = [status.get("podIP"), *(item.get("ip") for item in status.get("podIPs") or ())]
        spec = obj.get("spec") or {}
        endpoints.append(
            Endpoint(
                kind="pod",
                namespace=namespace,
                name=_name(obj),
                labels=labels,
                ips=_addresses(ips, obj),
                ports=_container_ports(spec),
                host_network=bool(spec.get("hostNetwork")),
                node=str(spec.get("nodeName") or ""),
                finished=status.get("phase") in ("Succeeded", "Failed"),
            )
        )
    for obj in by_kind.get("ReplicaSet", ()):
        if (_namespace(obj), "ReplicaSet", _name(obj)) in owners:
            owners |= {(_namespace(obj), *owner) for owner in _owners(obj)}
    for obj in by_kind.get("Job", ()):
        owners |= {(_namespace(obj), *owner) for owner in _owners(obj)}
    declared = {(_namespace(o), k, _name(o)) for k in _TEMPLATES for o in by_kind.get(k, ())}
    for kind in _TEMPLATES:
        for obj in by_kind.get(kind, ()):
            owned = any((_namespace(obj), *owner) in declared for owner in _owners(obj))
            if (_namespace(obj), kind, _name(obj)) not in owners and not owned:
                endpoints.append(_template(kind, obj))
    return endpoints


def _owners(obj: Object) -> list[tuple[str, str]]:
    listed = obj["metadata"].get("ownerReferences") or () if isinstance(obj.get("metadata"), Mapping) else ()
    return [(str(o.get("kind")), str(o.get("name"))) for o in listed]


def _template(kind: str, obj: Object) -> Endpoint:
    spec = obj.get("spec") or {}
    if kind == "CronJob":
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    template = spec.get("template") or {}
    pod = template.get("spec") or {}
    return Endpoint(
        kind=kind.lower(),
        namespace=_namespace(obj),
        name=_name(obj),
        labels=_labels(template.get("metadata")),
        ports=_container_ports(pod),
        host_network=bool(pod.get("hostNetwork")),
        template=True,
    )


def _container_ports(spec: Object) -> tuple[NamedPort, ...]:
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    found = [p for c in [*(spec.get("containers") or ()), *sidecars] for p in c.get("ports") or ()]
    return _ports(found, lambda p: p.get("containerPort"))


def _ports(found: Iterable[Object], number: Callable[[Object], Any]) -> tuple[NamedPort, ...]:
    ports = []
    for port in found:
        value, protocol = number(port), port.get("protocol") or "TCP"
        if not isinstance(value, int) or not 1 <= value <= 65535:
            raise BadRequest(f"port {port.get('name') or ''} {value!r}: must be a number between 1 and 65535")
        if protocol not in PORT_PROTOCOLS:
            raise BadRequest(f"port {value}: protocol {protocol!r} is not one of {', '.join(PORT_PROTOCOLS)}")
        ports.append(NamedPort(str(port.get("name") or ""), protocol, value))
    return tuple(dict.fromkeys(ports))


def _machines(by_kind: Mapping[str, list[Object]]) -> list[Endpoint]:
    endpoints = []
    running = set()
    for obj in by_kind.get("VirtualMachineInstance", ()):
        running.add((_namespace(obj), _name(obj)))
        status = obj.get("status") or {}
        interfaces = status.get("interfaces") or ()
        ips = [ip for i in interfaces for ip in (i.get("ipAddress"), *(i.get("ipAddresses") or ()))]
        endpoints.append(
            Endpoint(
                kind="vmi",
                namespace=_namespace(obj),
                name=_name(obj),
                labels=_labels(obj.get("metadata")),
                ips=_addresses(ips, obj),
                ports=_interface_ports(obj.get("spec") or {}),
                node=str(status.get("nodeName") or ""),
                finished=status.get("phase") in ("Succeeded", "Failed"),
            )
        )
    for obj in by_kind.get("VirtualMachine", ()):
        if (_namespace(obj), _name(obj)) in running:
            continue
        template = (obj.get("spec") or {}).get("template") or {}
        endpoints.append(
            Endpoint(
                kind="vm",
                namespace=_namespace(obj),
                name=_name(obj),
                labels=_labels(template.get("metadata")),
                ports=_interface_ports(template.get("spec") or {}),
            )
        )
    return endpoints


def _interface_ports(spec: Object) -> tuple[NamedPort, ...]:
    devices = (spec.get("domain") or {}).get("devices") or {}
    found = [p for i in devices.get("interfaces") or () for p in i.get("ports") or ()]
    return _ports(found, lambda p: p.get("port"))
