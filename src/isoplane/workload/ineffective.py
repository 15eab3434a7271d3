"""What may be declared of a workload and has no effect on one machine: told as warnings when it is written.

Not everything that Kubernetes and KubeVirt know has a meaning here, and manifests that were written for a cluster should
still apply.  So what changes nothing that a workload may do or reach is accepted, with a warning that says so; what would
(a volume nobody has, another runtime) is refused by the runtime, with the field.  Each adapter has its own table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_ONE_NODE = "there is one node, and everything that fits runs on it"


@dataclass(slots=True)
class _Node:
    """A table as a tree, so that an object is walked along what it has. ``position`` and ``why`` where a path ends."""

    fields: dict[str, _Node] = field(default_factory=dict)
    position: int = -1
    why: str = ""


class Table(dict[str, str]):
    """Field (``[]``: of any item) → why it has no effect."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__(fields)
        self.tree = _Node()
        for position, (path, why) in enumerate(fields.items()):
            node = self.tree
            for name in path.split("."):
                node = node.fields.setdefault(name, _Node())
            node.position, node.why = position, why


POD = Table(
    {
        "spec.affinity.podAffinity": _ONE_NODE,
        "spec.affinity.podAntiAffinity": _ONE_NODE,
        "spec.topologySpreadConstraints": _ONE_NODE,
        "spec.resourceClaims": "no devices are allocated",
        "spec.imagePullSecrets": "images are pulled with the credentials that the node has for skopeo",
        "spec.readinessGates": "a Pod is ready when its containers are",
        "spec.automountServiceAccountToken": "no token is mounted into any Pod",
        "spec.setHostnameAsFQDN": "the host name is the Pod's own",
        "spec.hostnameOverride": "the host name is the Pod's own",
        "spec.securityContext.appArmorProfile": "no AppArmor profile is applied",
        "spec.securityContext.seLinuxOptions": "no SELinux label is applied",
        "spec.securityContext.supplementalGroupsPolicy": "groups of the image are merged",
        "spec.initContainers[].securityContext.appArmorProfile": "no AppArmor profile is applied",
        "spec.initContainers[].securityContext.seLinuxOptions": "no SELinux label is applied",
        "spec.initContainers[].ports[].hostPort": "no port of the node leads to a Pod: use its own address, or hostNetwork",
        "spec.containers[].securityContext.appArmorProfile": "no AppArmor profile is applied",
        "spec.containers[].securityContext.seLinuxOptions": "no SELinux label is applied",
        "spec.containers[].ports[].hostPort": "no port of the node leads to a Pod: use its own address, or hostNetwork",
        "spec.containers[].resizePolicy": "resources of a running container are not changed",
        "spec.containers[].restartPolicyRules": "the Pod's restartPolicy alone counts",
        "spec.containers[].stdinOnce": "standard input stays open",
    }
)
"""Fields of a Pod."""

INSTANCE = Table(
    {
        "spec.affinity.podAffinity": _ONE_NODE,
        "spec.affinity.podAntiAffinity": _ONE_NODE,
        "spec.topologySpreadConstraints": _ONE_NODE,
        "spec.resourceClaims": "no devices are allocated",
        "spec.accessCredentials": "nothing is written into a running guest; cloudInitNoCloud can bring keys",
        "spec.domain.clock.timezone": "a guest's clock starts at UTC",
        "spec.domain.clock.timer": "QEMU's own timers are used",
        "spec.domain.devices.inputs": "a guest has a serial console, no screen",
        "spec.domain.devices.sound": "a guest has a serial console, no screen",
        "spec.domain.devices.video": "a guest has a serial console, no screen",
        "spec.domain.devices.panicDevices": "a panic is seen on the machine's own device",
        "spec.domain.devices.interfaces[].macAddress": "the hardware address is made from the IP address",
        "spec.domain.devices.interfaces[].dhcpOptions": "DHCP tells address, router, name and MTU",
        "spec.domain.ioThreadsPolicy": "disks share QEMU's own threads",
        "spec.domain.memory.maxGuest": "memory is not changed while a guest runs",
        "spec.domain.cpu.maxSockets": "processors are not added while a guest runs",
        "spec.domain.cpu.realtime": "vCPUs are ordinary threads",
        "spec.domain.rebootPolicy": "a guest that reboots goes on in the same machine",
    }
)
"""Fields of a VirtualMachineInstance."""


def found(obj: Mapping[str, Any], table: Table) -> list[str]:
    """A line for each field of the table that an object sets, in the table's order."""
    told: list[tuple[int, str, str]] = []
    _walk(obj, "", table.tree, told)
    return [f"{where}: has no effect: {why}" for _, where, why in sorted(told, key=lambda one: one[0])]


def _is_absent(value: Any) -> bool:
    """An empty map is none: many a field asks for something by being there (``sound: {}``)."""
    return value is None or value is False or value == "" or value == []


def _walk(value: Any, where: str, node: _Node, told: list[tuple[int, str, str]]) -> None:
    if node.position >= 0 and not _is_absent(value):
        told.append((node.position, where, node.why))
    if not isinstance(value, Mapping):
        return
    for name, inner in node.fields.items():
        plain = name.removesuffix("[]")
        child = value.get(plain)
        if _is_absent(child):
            continue
        path = f"{where}.{plain}" if where else plain
        if not name.endswith("[]"):
            _walk(child, path, inner, told)
            continue
        for index, item in enumerate(child or ()):
            _walk(item, f"{path}[{index}]", inner, told)
