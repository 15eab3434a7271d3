"""Endpoints from plain objects: Pods, VMIs, VMs, and everything that makes them from a template.

A VM stands for its template until its VMI exists; a Deployment (StatefulSet, Rollout, …) for its Pods until one of them
does.  Any kind with a Pod template at ``spec.template`` is read so; templates elsewhere are told as not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from isoplane.objects import names
from isoplane.policy.addresses import address
from isoplane.policy.fields import Problems
from isoplane.policy.foreign import parts_of
from isoplane.policy.model import Endpoint, NamedPort, Node
from isoplane.policy.rules import PORT_PROTOCOLS
from isoplane.workload.interfaces import exposed_ports

Object = Mapping[str, Any]
MACHINE_GROUPS = ("kubevirt.io", "pool.kubevirt.io")
MACHINE_TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "VirtualMachine": ("spec", "template"),
    "VirtualMachineInstanceReplicaSet": ("spec", "template"),
    "VirtualMachinePool": ("spec", "virtualMachineTemplate", "spec", "template"),
}
"""Where each kind of KubeVirt's keeps the template of its instances."""
_POD_TEMPLATE = ("spec", "template")
_CRON_TEMPLATE = ("spec", "jobTemplate", "spec", "template")
_WALK_LIMIT, _DEPTH_LIMIT = 10_000, 12
"""Values and levels of one object that are searched for Pod templates in places of its own."""


def name_of(obj: Object, problems: Problems) -> str:
    """metadata.name, checked."""
    metadata = problems.mapping(obj.get("metadata"), "metadata")
    name = problems.text(metadata.get("name"), "metadata.name")
    if problem := names.dns_subdomain(name):
        problems.add("metadata.name", f'Invalid value: "{name}": {problem}')
    return name


def namespace_of(obj: Object) -> str:
    """metadata.namespace, or default."""
    metadata = obj.get("metadata")
    return str((metadata.get("namespace") if isinstance(metadata, Mapping) else "") or "default")


def labels_of(metadata: Any, path: str, problems: Problems) -> dict[str, str]:
    """The labels of a metadata that stands at ``path``, checked."""
    written = problems.mapping(problems.mapping(metadata, path).get("labels"), f"{path}.labels")
    return {str(key): problems.label(str(key), value, f"{path}.labels") for key, value in written.items()}


def node(obj: Object, problems: Problems) -> Node:
    status = problems.mapping(obj.get("status"), "status")
    listed = [
        problems.mapping(a, "status.addresses") for a in problems.items(status.get("addresses"), "status.addresses")
    ]
    ips = [str(a.get("address")) for a in listed if a.get("type") in ("InternalIP", "ExternalIP")]
    labels = labels_of(obj.get("metadata"), "metadata", problems)
    return Node(name_of(obj, problems), _addresses(ips, "status.addresses", problems), labels)


def pod(obj: Object, problems: Problems) -> Endpoint:
    status = problems.mapping(obj.get("status"), "status")
    more = [problems.mapping(i, "status.podIPs") for i in problems.items(status.get("podIPs"), "status.podIPs")]
    ips = [status.get("podIP"), *(item.get("ip") for item in more)]
    spec = problems.mapping(obj.get("spec"), "spec")
    return Endpoint(
        kind="pod",
        namespace=namespace_of(obj),
        name=name_of(obj, problems),
        labels=labels_of(obj.get("metadata"), "metadata", problems),
        ips=_addresses(ips, "status.podIP", problems),
        ports=_container_ports(spec, "spec", problems),
        host_network=bool(spec.get("hostNetwork")),
        node=problems.text(spec.get("nodeName"), "spec.nodeName"),
        finished=status.get("phase") in ("Succeeded", "Failed"),
    )


def machine(obj: Object, problems: Problems) -> Endpoint:
    """A running instance."""
    status = problems.mapping(obj.get("status"), "status")
    ips: list[Any] = []
    for index, item in enumerate(problems.items(status.get("interfaces"), "status.interfaces")):
        path = f"status.interfaces[{index}]"
        interface = problems.mapping(item, path)
        ips += [interface.get("ipAddress"), *problems.items(interface.get("ipAddresses"), f"{path}.ipAddresses")]
    return Endpoint(
        kind="vmi",
        namespace=namespace_of(obj),
        name=name_of(obj, problems),
        labels=labels_of(obj.get("metadata"), "metadata", problems),
        ips=_addresses(ips, "status.interfaces", problems),
        ports=_interface_ports(obj.get("spec"), "spec", problems),
        exposed=exposed_ports(obj.get("spec")),
        node=problems.text(status.get("nodeName"), "status.nodeName"),
        finished=status.get("phase") in ("Succeeded", "Failed"),
    )


def machine_template(obj: Object, problems: Problems) -> Endpoint:
    """What stands for the instances that it would make: a VM for one, a pool or a replica set for several."""
    kind = parts_of(obj)[2]
    template, path = _at(obj, MACHINE_TEMPLATES[kind], problems)
    return Endpoint(
        kind="vm" if kind == "VirtualMachine" else kind.lower(),
        namespace=namespace_of(obj),
        name=name_of(obj, problems),
        labels=labels_of(template.get("metadata"), f"{path}.metadata", problems),
        ports=_interface_ports(template.get("spec"), f"{path}.spec", problems),
        exposed=exposed_ports(template.get("spec")),
        template=kind != "VirtualMachine",
    )


def has_pod_template(obj: Object) -> bool:
    """Whether a kind makes Pods by the template at the usual place, whoever defines the kind."""
    found: Any = obj
    for key in (*_place_of(obj), "spec"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return isinstance(found, Mapping) and "containers" in found


def pod_template(obj: Object, problems: Problems) -> Endpoint:
    """What stands for the Pods that it would make."""
    template, path = _at(obj, _place_of(obj), problems)
    spec = problems.mapping(template.get("spec"), f"{path}.spec")
    return Endpoint(
        kind=parts_of(obj)[2].lower(),
        namespace=namespace_of(obj),
        name=name_of(obj, problems),
        labels=labels_of(template.get("metadata"), f"{path}.metadata", problems),
        ports=_container_ports(spec, f"{path}.spec", problems),
        host_network=bool(spec.get("hostNetwork")),
        template=True,
    )


def unread_templates(obj: Object) -> list[str]:
    """The fields of an object of another kind that hold Pod templates in places of its own."""
    return list(_templates_in(obj.get("spec"), "spec"))


def owners_of(obj: Object) -> Iterator[tuple[str, str, str]]:
    """(namespace, kind, name) of the objects that own it."""
    metadata = obj.get("metadata")
    listed = metadata.get("ownerReferences") if isinstance(metadata, Mapping) else None
    for owner in listed if isinstance(listed, list) else ():
        if isinstance(owner, Mapping):
            yield namespace_of(obj), str(owner.get("kind")), str(owner.get("name"))


def _place_of(obj: Object) -> tuple[str, ...]:
    return _CRON_TEMPLATE if parts_of(obj)[2] == "CronJob" else _POD_TEMPLATE


def _at(obj: Object, place: tuple[str, ...], problems: Problems) -> tuple[Mapping[str, Any], str]:
    found: Mapping[str, Any] = obj
    path = ""
    for key in place:
        path = f"{path}.{key}" if path else key
        found = problems.mapping(found.get(key), path)
    return found, path


def _templates_in(value: Any, path: str) -> Iterator[str]:
    waiting = [(value, path, 0)]
    seen = 0
    while waiting and seen < _WALK_LIMIT:
        item, where, depth = waiting.pop()
        seen += 1
        if depth > _DEPTH_LIMIT:
            continue
        if isinstance(item, Mapping):
            inner = item.get("spec")
            if isinstance(inner, Mapping) and isinstance(inner.get("containers"), list):
                yield where
                continue
            waiting += [(each, f"{where}.{key}", depth + 1) for key, each in reversed(list(item.items()))]
        elif isinstance(item, list):
            waiting += [(each, f"{where}[{n}]", depth + 1) for n, each in reversed(list(enumerate(item)))]


def _addresses(values: Iterable[Any], path: str, problems: Problems) -> tuple[str, ...]:
    unique = dict.fromkeys(str(v) for v in values if v)
    for value in unique:
        try:
            address(value)
        except ValueError as error:
            problems.add(path, f"Invalid value: {error}")
            return ()
    return tuple(unique)


def _container_ports(spec: Any, path: str, problems: Problems) -> tuple[NamedPort, ...]:
    written = problems.mapping(spec, path)
    found = []
    for key in ("containers", "initContainers"):
        for index, item in enumerate(problems.items(written.get(key), f"{path}.{key}")):
            container = problems.mapping(item, f"{path}.{key}[{index}]")
            if key == "containers" or container.get("restartPolicy") == "Always":
                found += _listed(container, f"{path}.{key}[{index}]", problems)
    return _ports(found, "containerPort", problems)


def _interface_ports(spec: Any, path: str, problems: Problems) -> tuple[NamedPort, ...]:
    devices, where = _below(problems.mapping(spec, path), path, ("domain", "devices"), problems)
    found = []
    for index, item in enumerate(problems.items(devices.get("interfaces"), f"{where}.interfaces")):
        at = f"{where}.interfaces[{index}]"
        found += _listed(problems.mapping(item, at), at, problems)
    return _ports(found, "port", problems)


def _below(
    value: Mapping[str, Any], path: str, keys: tuple[str, ...], problems: Problems
) -> tuple[Mapping[str, Any], str]:
    for key in keys:
        path = f"{path}.{key}"
        value = problems.mapping(value.get(key), path)
    return value, path


def _listed(holder: Mapping[str, Any], path: str, problems: Problems) -> list[tuple[str, Any]]:
    return [(f"{path}.ports[{n}]", p) for n, p in enumerate(problems.items(holder.get("ports"), f"{path}.ports"))]


def _ports(found: Iterable[tuple[str, Any]], key: str, problems: Problems) -> tuple[NamedPort, ...]:
    ports = []
    for path, item in found:
        port = problems.mapping(item, path)
        before = len(problems.causes)
        number = problems.port(port.get(key), f"{path}.{key}")
        protocol = port.get("protocol") or "TCP"
        if protocol not in PORT_PROTOCOLS:
            problems.unsupported(f"{path}.protocol", protocol, PORT_PROTOCOLS)
        name = problems.text(port.get("name"), f"{path}.name")
        if len(problems.causes) == before:
            ports.append(NamedPort(name, protocol, number))
    return tuple(dict.fromkeys(ports))
