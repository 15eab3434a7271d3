"""Endpoints from plain objects: Pods, VMIs, VMs, and everything that makes them from a template.

A VM stands for its template until its VMI exists; a Deployment (StatefulSet, Rollout, …) for its Pods until one of them
does.  Any kind with a Pod template at ``spec.template`` is read so; templates elsewhere are told as not read.

What of an object makes its endpoint, ``workload.networked`` says, for manifests and (by the adapters) for what is stored;
checked here is that a manifest, which nobody validated, can be read so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from isoplane.objects import names
from isoplane.policy.addresses import address
from isoplane.policy.fields import Problems
from isoplane.policy.foreign import parts_of
from isoplane.policy.model import Endpoint, NamedPort, Node
from isoplane.policy.rules import PORT_PROTOCOLS
from isoplane.workload import networked
from isoplane.workload.networked import Networked

Object = Mapping[str, Any]
Reader = Callable[[Object], Networked]
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
    return Node(name_of(obj, problems), _check_addresses(ips, "status.addresses", problems), labels)


def endpoint_of(seen: Networked, addresses: tuple[str, ...] = ()) -> Endpoint:
    """The endpoint that a workload is. ``addresses``: what the fabric plugged in, known before the status tells them."""
    return Endpoint(
        kind=seen.kind,
        namespace=seen.namespace,
        name=seen.name,
        labels=seen.labels,
        ips=addresses or seen.addresses,
        ports=tuple(NamedPort(p.name, p.protocol, p.number) for p in seen.ports),
        exposed=seen.exposed,
        host_network=seen.host_network,
        node=seen.node,
        finished=seen.finished,
    )


def pod(obj: Object, problems: Problems) -> Endpoint:
    status = problems.mapping(obj.get("status"), "status")
    more = [problems.mapping(i, "status.podIPs") for i in problems.items(status.get("podIPs"), "status.podIPs")]
    _check_addresses([status.get("podIP"), *(item.get("ip") for item in more)], "status.podIP", problems)
    spec = problems.mapping(obj.get("spec"), "spec")
    _check_container_ports(spec, "spec", problems)
    problems.text(spec.get("nodeName"), "spec.nodeName")
    return _projected(networked.pod, obj, problems)


def machine(obj: Object, problems: Problems) -> Endpoint:
    """A running instance."""
    status = problems.mapping(obj.get("status"), "status")
    ips: list[Any] = []
    for index, item in enumerate(problems.items(status.get("interfaces"), "status.interfaces")):
        path = f"status.interfaces[{index}]"
        interface = problems.mapping(item, path)
        ips += [interface.get("ipAddress"), *problems.items(interface.get("ipAddresses"), f"{path}.ipAddresses")]
    _check_addresses(ips, "status.interfaces", problems)
    _check_interface_ports(obj.get("spec"), "spec", problems)
    problems.text(status.get("nodeName"), "status.nodeName")
    return _projected(networked.machine, obj, problems)


def _projected(read: Reader, obj: Object, problems: Problems) -> Endpoint:
    """What is read of an object, once nothing of what it looks at is found wrong."""
    meta: dict[str, Any] = {"name": name_of(obj, problems), "namespace": namespace_of(obj)}
    meta["labels"] = labels_of(obj.get("metadata"), "metadata", problems)
    return _seen(read, {**obj, "metadata": meta}, problems)


def _seen(read: Reader, obj: Object, problems: Problems) -> Endpoint:
    if problems.causes:
        return Endpoint("", "", "")  # the object is refused with its causes
    return endpoint_of(read(obj))


def _of_template(read: Reader, obj: Object, template: Mapping[str, Any], path: str, problems: Problems) -> Endpoint:
    """What stands for the workloads that an object would make of a template."""
    meta: dict[str, Any] = {"name": name_of(obj, problems), "namespace": namespace_of(obj)}
    meta["labels"] = labels_of(template.get("metadata"), f"{path}.metadata", problems)
    return _seen(read, {"metadata": meta, "spec": template.get("spec")}, problems)


def machine_template(obj: Object, problems: Problems) -> Endpoint:
    """What stands for the instances that it would make: a VM for one, a pool or a replica set for several."""
    kind = parts_of(obj)[2]
    template, path = _at(obj, MACHINE_TEMPLATES[kind], problems)
    _check_interface_ports(template.get("spec"), f"{path}.spec", problems)
    found = _of_template(networked.machine, obj, template, path, problems)
    single = kind == "VirtualMachine"
    return replace(found, kind="vm" if single else kind.lower(), template=not single)


def has_pod_template(obj: Object) -> bool:
    """Whether a kind makes Pods by the template at the usual place, whoever defines the kind."""
    found: Any = obj
    for key in (*_place_of(obj), "spec"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return isinstance(found, Mapping) and "containers" in found


def pod_template(obj: Object, problems: Problems) -> Endpoint:
    """What stands for the Pods that it would make."""
    template, path = _at(obj, _place_of(obj), problems)
    _check_container_ports(template.get("spec"), f"{path}.spec", problems)
    found = _of_template(networked.pod, obj, template, path, problems)
    return replace(found, kind=parts_of(obj)[2].lower(), template=True)


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


def _check_addresses(values: Iterable[Any], path: str, problems: Problems) -> tuple[str, ...]:
    """Those that are given, once each; none when one is wrong."""
    unique = dict.fromkeys(str(v) for v in values if v)
    for value in unique:
        try:
            address(value)
        except ValueError as error:
            problems.add(path, f"Invalid value: {error}")
            return ()
    return tuple(unique)


def _check_container_ports(spec: Any, path: str, problems: Problems) -> None:
    written = problems.mapping(spec, path)
    found = []
    for key in ("containers", "initContainers"):
        for index, item in enumerate(problems.items(written.get(key), f"{path}.{key}")):
            container = problems.mapping(item, f"{path}.{key}[{index}]")
            if key == "containers" or container.get("restartPolicy") == "Always":
                found += _listed(container, f"{path}.{key}[{index}]", problems)
    _check_ports(found, "containerPort", problems)


def _check_interface_ports(spec: Any, path: str, problems: Problems) -> None:
    written = problems.mapping(spec, path)
    for index, item in enumerate(problems.items(written.get("networks"), f"{path}.networks")):
        problems.mapping(item, f"{path}.networks[{index}]")
    devices, where = _below(written, path, ("domain", "devices"), problems)
    found = []
    for index, item in enumerate(problems.items(devices.get("interfaces"), f"{where}.interfaces")):
        at = f"{where}.interfaces[{index}]"
        found += _listed(problems.mapping(item, at), at, problems)
    _check_ports(found, "port", problems)


def _below(
    value: Mapping[str, Any], path: str, keys: tuple[str, ...], problems: Problems
) -> tuple[Mapping[str, Any], str]:
    for key in keys:
        path = f"{path}.{key}"
        value = problems.mapping(value.get(key), path)
    return value, path


def _listed(holder: Mapping[str, Any], path: str, problems: Problems) -> list[tuple[str, Any]]:
    return [(f"{path}.ports[{n}]", p) for n, p in enumerate(problems.items(holder.get("ports"), f"{path}.ports"))]


def _check_ports(found: Iterable[tuple[str, Any]], key: str, problems: Problems) -> None:
    for path, item in found:
        port = problems.mapping(item, path)
        problems.port(port.get(key), f"{path}.{key}")
        protocol = port.get("protocol") or "TCP"
        if protocol not in PORT_PROTOCOLS:
            problems.unsupported(f"{path}.protocol", protocol, PORT_PROTOCOLS)
        problems.text(port.get("name"), f"{path}.name")
