"""A workload as the network sees it: what NetworkPolicies select and judge, read from its object alone. Pure.

The adapters read what is stored by it, and the readers of manifests what they have checked themselves: one reading for both.  It
loads nothing of the API, so that a command that explains three manifests starts at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from isoplane.objects import metadata
from isoplane.objects.phase import has_ended
from isoplane.workload.interfaces import exposed_ports

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Port:
    """A declared port: a name ('' when unnamed), TCP | UDP | SCTP, 1–65535."""

    name: str
    protocol: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Networked:
    """What of a workload concerns the network."""

    kind: str
    """As in ids: pod, vmi."""
    namespace: str
    name: str
    uid: str
    labels: Mapping[str, str] = field(hash=False)
    addresses: tuple[str, ...]
    """On the pod network, the primary one first; empty until its status tells them."""
    ports: tuple[Port, ...]
    """Those declared by what serves: a plain init container has ended before anything does."""
    exposed: tuple[tuple[str, int], ...] | None = None
    """(protocol, port) that its interface lets in; None: all."""
    host_network: bool = False
    node: str
    finished: bool

    @property
    def id(self) -> str:
        """``pod/NAMESPACE/NAME``."""
        return f"{self.kind}/{self.namespace}/{self.name}"


def pod(obj: Object) -> Networked:
    """A Pod, or what stands for those of a template."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    serving = (*(spec.get("containers") or ()), *filter(_is_sidecar, spec.get("initContainers") or ()))
    listed = (status.get("podIP"), *(item.get("ip") for item in status.get("podIPs") or ()))
    return Networked(
        kind="pod",
        **_identity(obj),
        addresses=tuple(dict.fromkeys(str(one) for one in listed if one)),
        ports=_once(port for container in serving for port in container_ports(container)),
        host_network=bool(spec.get("hostNetwork")),
        node=str(spec.get("nodeName") or ""),
        finished=has_ended(obj),
    )


def machine(obj: Object) -> Networked:
    """A VirtualMachineInstance, or what stands for those of a template."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    devices = (spec.get("domain") or {}).get("devices") or {}
    cards = devices.get("interfaces") or ()
    return Networked(
        kind="vmi",
        **_identity(obj),
        addresses=_on_pod_network(spec, status.get("interfaces") or ()),
        ports=_once(port for card in cards for port in _declared(card.get("ports"), "port")),
        exposed=exposed_ports(spec),
        node=str(status.get("nodeName") or ""),
        finished=has_ended(obj),
    )


def container_ports(container: Mapping[str, Any]) -> tuple[Port, ...]:
    """The ports that a container declares."""
    return _declared(container.get("ports"), "containerPort")


def _identity(obj: Object) -> dict[str, Any]:
    return {
        "namespace": metadata.namespace(obj),
        "name": metadata.name(obj),
        "uid": metadata.uid(obj),
        "labels": metadata.labels(obj),
    }


def _is_sidecar(container: Mapping[str, Any]) -> bool:
    return container.get("restartPolicy") == "Always"


def _once(ports: Any) -> tuple[Port, ...]:
    return tuple(dict.fromkeys(ports))


def _declared(entries: Any, number: str) -> tuple[Port, ...]:
    return tuple(
        Port(str(e.get("name") or ""), str(e.get("protocol") or "TCP").upper(), int(e[number]))
        for e in entries or ()
        if e.get(number) is not None
    )


def _on_pod_network(spec: Mapping[str, Any], interfaces: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The addresses on the pod network, the primary one first: policies know of no other network."""
    names = {network.get("name") for network in spec.get("networks") or () if network.get("multus") is None}
    interface = next((one for one in interfaces if one.get("name") in names), interfaces[0] if interfaces else {})
    listed = (interface.get("ipAddress"), *(interface.get("ipAddresses") or ()))
    return tuple(dict.fromkeys(str(one) for one in listed if one))
