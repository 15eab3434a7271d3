"""Defaults of virtual machines. Source: KubeVirt's defaults.go and the mutating part of its virt-api.

A VirtualMachine keeps its template as the user wrote it; the instance made from it is filled in.
"""

from __future__ import annotations

from typing import Any

from isoplane.objects import topology
from isoplane.objects.defaulting.pod import probe, pull_policy
from isoplane.objects.defaulting.shape import mapping, mappings

MACHINE_TYPE = "pc"
"""KubeVirt's own default is q35; emulated guests here boot sooner and more surely on the older chipset."""


def apply_instance(obj: dict[str, Any]) -> None:
    spec = mapping(obj, "spec")
    domain = mapping(spec, "domain")
    if spec is None or domain is None:
        return
    spec.setdefault("terminationGracePeriodSeconds", 30)
    devices = domain.setdefault("devices", {})
    machine = domain.setdefault("machine", {})
    if isinstance(machine, dict):
        machine.setdefault("type", MACHINE_TYPE)
    features = domain.setdefault("features", {})
    if isinstance(features, dict) and isinstance(acpi := features.setdefault("acpi", {}), dict):
        acpi.setdefault("enabled", True)
    _topology(domain)
    _attach_volumes(spec, devices)
    for disk in mappings(devices, "disks"):
        if not any(target in disk for target in ("disk", "lun", "cdrom")):
            disk["disk"] = {}
        if (drive := mapping(disk, "cdrom")) is not None:
            drive.setdefault("readonly", True)
            drive.setdefault("tray", "closed")
    for device in mappings(devices, "inputs"):
        device.setdefault("bus", "usb")
        device.setdefault("type", "tablet")
    _network(spec, devices)
    _images(spec, domain)
    for name in ("livenessProbe", "readinessProbe"):
        probe(mapping(spec, name))


def apply_machine(obj: dict[str, Any]) -> None:
    domain = mapping(mapping(mapping(mapping(obj, "spec"), "template"), "spec"), "domain")
    if domain is not None:
        domain.setdefault("devices", {})


def _topology(domain: dict[str, Any]) -> None:
    """One core a socket, and as many sockets as CPUs are asked for, when no topology is given."""
    cpu = domain.setdefault("cpu", {})
    if not isinstance(cpu, dict):
        return
    if not any(cpu.get(field) for field in topology.PARTS):
        cpu["sockets"] = _cpus(domain)
    for field in topology.PARTS:
        if not cpu.get(field):
            cpu[field] = 1


def _cpus(domain: dict[str, Any]) -> int:
    try:
        return topology.vcpus(domain)
    except (ValueError, TypeError, AttributeError):
        return 1  # validation says what is wrong with it


def _attach_volumes(spec: dict[str, Any], devices: Any) -> None:
    """A disk for each volume that neither a disk nor a file system takes, after those that are declared."""
    if not isinstance(devices, dict):
        return
    taken = {name for field in ("disks", "filesystems") for name in _names(devices, field)}
    free = [name for name in _names(spec, "volumes") if name not in taken]
    declared = devices.get("disks") or []
    if free and isinstance(declared, list):
        devices["disks"] = [*declared, *({"name": name} for name in dict.fromkeys(free))]


def _names(parent: dict[str, Any], field: str) -> list[str]:
    """The names in a list; one that is no text is left to validation."""
    return [item["name"] for item in mappings(parent, field) if item.get("name") and isinstance(item["name"], str)]


def _network(spec: dict[str, Any], devices: Any) -> None:
    """The pod network, masqueraded, for a machine that names no network and does not decline one."""
    if not isinstance(devices, dict) or devices.get("autoattachPodInterface") is False:
        return
    if not spec.get("networks") and not devices.get("interfaces"):
        spec["networks"] = [{"name": "default", "pod": {}}]
        devices["interfaces"] = [{"name": "default", "masquerade": {}}]


def _images(spec: dict[str, Any], domain: dict[str, Any]) -> None:
    sources = [mapping(volume, "containerDisk") for volume in mappings(spec, "volumes")]
    sources.append(mapping(mapping(mapping(domain, "firmware"), "kernelBoot"), "container"))
    for source in sources:
        if source is not None and not source.get("imagePullPolicy"):
            source["imagePullPolicy"] = pull_policy(source.get("image"))
