"""What can be declared of a machine or a Pod and can never run here: found when it is written, whatever runs it. Pure.

Most is told by the tables of :mod:`isoplane.workload.fields`; here is what takes more than one field to see.  The runtimes
refuse the same by the same functions, but then the object is stored, charged and waits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from isoplane.workload.fields import machine as machine_fields
from isoplane.workload.fields import pod as pod_fields

INTERFACE_MODELS = {"": "virtio-net-pci", "virtio": "virtio-net-pci", "e1000": "e1000", "e1000e": "e1000e"}
"""KubeVirt's name of an interface's model → QEMU's device."""
MACHINE_TYPE = re.compile(r"(pc|q35)([a-z0-9.-]*)")
CDROM_BUSES = ("sata", "scsi")
IO_MODES = ("", "native", "threads", "default")
LINK_STATES = ("up", "down", "absent")
BOOTABLE = ("containerDisk", "hostDisk")
"""The volumes that can hold an operating system."""


def field_of(value: Any, *path: str) -> Any:
    """What is at a path, or None when something on the way is absent or no object."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def machine(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(path, why) for what no machine can have here."""
    yield from machine_fields.REFUSED.found({"spec": spec})
    kind = field_of(spec, "domain", "machine", "type")
    if kind and not MACHINE_TYPE.fullmatch(kind):
        yield "spec.domain.machine.type", f"{kind!r} is not supported: use pc (the default) or q35"
    yield from _disks(field_of(spec, "domain", "devices", "disks") or (), "spec.domain.devices.disks")
    yield from _interfaces(field_of(spec, "domain", "devices", "interfaces") or (), "spec.domain.devices.interfaces")
    yield from _boot(spec)


def _disks(disks: Any, base: str) -> Iterator[tuple[str, str]]:
    for index, disk in enumerate(disks):
        bus = field_of(disk, "cdrom", "bus")
        if bus and bus not in CDROM_BUSES:
            yield f"{base}[{index}].cdrom.bus", f"{bus!r} is not a bus for a cdrom; use one of {', '.join(CDROM_BUSES)}"
        mode = field_of(disk, "io") or ""
        if mode not in IO_MODES:
            yield f"{base}[{index}].io", f"{mode!r} is not one of {', '.join(filter(None, IO_MODES))}"
        if mode == "native" and disk.get("cache") not in (None, "", "none"):
            yield f"{base}[{index}].io", "native needs the cache to be none; say so, or leave cache out"


def _interfaces(interfaces: Any, base: str) -> Iterator[tuple[str, str]]:
    if len(interfaces) > 1:
        yield base, "a machine has one interface here, on the pod network"
    for index, interface in enumerate(interfaces):
        model = interface.get("model") or ""
        if model not in INTERFACE_MODELS:
            known = ", ".join(filter(None, INTERFACE_MODELS))
            yield f"{base}[{index}].model", f"{model!r} is not one of {known}"
        state = interface.get("state") or "up"
        if state not in LINK_STATES:
            yield f"{base}[{index}].state", f"{state!r} is not one of {', '.join(LINK_STATES)}"


def _boot(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """KubeVirt takes these, and what it would start is never started here."""
    container = field_of(spec, "domain", "firmware", "kernelBoot", "container")
    where = "spec.domain.firmware.kernelBoot.container.kernelPath"
    if container is not None and not field_of(container, "kernelPath") and field_of(container, "initrdPath"):
        yield where, "an initrd alone boots nothing: the kernel's path in the image is required, e.g. /boot/vmlinuz"
    cards = field_of(spec, "domain", "devices", "interfaces") or ()
    if container is None and any(card.get("bootOrder") for card in cards) and not _has_disk(spec):
        yield (
            "spec.domain",
            "nothing to boot from: machines do not boot from the network; give a containerDisk or a hostDisk",
        )


def _has_disk(spec: Mapping[str, Any]) -> bool:
    return any(field_of(volume, kind) is not None for volume in spec.get("volumes") or () for kind in BOOTABLE)


def maker(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(path, why) for what a VirtualMachine cannot be made from, its template aside."""
    for path, why in machine_fields.MAKER_REFUSED.found({"spec": spec}):
        # What virtctl writes of itself: to be inferred if possible, else never mind.
        if field_of(spec, path.removeprefix("spec."), "inferFromVolumeFailurePolicy") != "Ignore":
            yield path, why


def pod(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(path, why) for what no Pod can have here."""
    yield from pod_fields.REFUSED.found({"spec": spec})
