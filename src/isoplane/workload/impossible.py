"""What can be declared of a machine or a Pod and can never run here: found when it is written, whatever runs it. Pure.

The runtimes refuse the same when they are asked (they read these tables), but then the object is stored, charged and waits.
Each adapter has its own function; what is only without effect is :mod:`~isoplane.workload.ineffective`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

CANNOT: tuple[tuple[tuple[str, ...], str], ...] = (
    (("domain", "devices", "gpus"), "GPU passthrough"),
    (("domain", "devices", "hostDevices"), "host device passthrough"),
    (("domain", "devices", "filesystems"), "virtiofs file systems"),
    (("domain", "devices", "tpm"), "a TPM"),
    (("domain", "devices", "watchdog"), "a watchdog"),
    (("domain", "launchSecurity"), "confidential launch"),
    (("domain", "memory", "hugepages"), "huge pages"),
    (("domain", "cpu", "dedicatedCpuPlacement"), "dedicated CPU placement"),
    (("domain", "cpu", "numa"), "NUMA placement"),
    (("domain", "firmware", "bootloader", "efi"), "EFI firmware"),
)
"""Where in a VMI's spec what stands that no machine can have here."""
BINDINGS_REFUSED = ("sriov", "slirp", "macvtap", "passt", "passtBinding", "binding")
MACHINE_VOLUMES = (
    "containerDisk", "emptyDisk", "hostDisk", "cloudInitNoCloud", "configMap", "secret",
)  # fmt: skip
INTERFACE_MODELS = {"": "virtio-net-pci", "virtio": "virtio-net-pci", "e1000": "e1000", "e1000e": "e1000e"}
"""KubeVirt's name of an interface's model → QEMU's device."""
MACHINE_TYPE = re.compile(r"(pc|q35)([a-z0-9.-]*)")
CDROM_BUSES = ("sata", "scsi")


def is_asked(value: Any) -> bool:
    """Whether a field asks for something: an empty map does (``tpm: {}`` is a TPM), ``false`` and an empty list do not."""
    return not (value is None or value is False or value == [] or value == ())


def field_of(value: Any, *path: str) -> Any:
    """What is at a path, or None when something on the way is absent or no object."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def machine(spec: Mapping[str, Any], base: str = "spec") -> Iterator[tuple[str, str]]:
    """(path, why) for what no machine can have here."""
    for where, what in CANNOT:
        if is_asked(field_of(spec, *where)):
            yield f"{base}.{'.'.join(where)}", f"{what} is not something a machine can have here; remove the field"
    for index, volume in enumerate(spec.get("volumes") or ()):
        for source in sorted(volume.keys() - {"name", *MACHINE_VOLUMES}):
            if volume[source] is not None:
                text = f"is no volume that a machine can have here; use one of {', '.join(MACHINE_VOLUMES)}"
                yield f"{base}.volumes[{index}].{source}", text
    for index, network in enumerate(spec.get("networks") or ()):
        if network.get("multus") is not None:
            yield f"{base}.networks[{index}].multus", "there is one network here, the pod network"
    kind = field_of(spec, "domain", "machine", "type")
    if kind and not MACHINE_TYPE.fullmatch(kind):
        yield f"{base}.domain.machine.type", f"{kind!r} is not supported: use pc (the default) or q35"
    devices = field_of(spec, "domain", "devices") or {}
    yield from _disks(devices.get("disks") or (), f"{base}.domain.devices.disks")
    yield from _interfaces(devices.get("interfaces") or (), f"{base}.domain.devices.interfaces")


def _disks(disks: Any, base: str) -> Iterator[tuple[str, str]]:
    for index, disk in enumerate(disks):
        if disk.get("lun") is not None:
            yield f"{base}[{index}].lun", "SCSI passthrough needs a block device volume; use disk"
        bus = field_of(disk, "cdrom", "bus")
        if bus and bus not in CDROM_BUSES:
            yield f"{base}[{index}].cdrom.bus", f"{bus!r} is not a bus for a cdrom; use one of {', '.join(CDROM_BUSES)}"


def _interfaces(interfaces: Any, base: str) -> Iterator[tuple[str, str]]:
    if len(interfaces) > 1:
        yield base, "a machine has one interface here, on the pod network"
    for index, interface in enumerate(interfaces):
        for binding in BINDINGS_REFUSED:
            if is_asked(interface.get(binding)):
                yield f"{base}[{index}].{binding}", "is no binding here; use masquerade or bridge"
        model = interface.get("model") or ""
        if model not in INTERFACE_MODELS:
            known = ", ".join(filter(None, INTERFACE_MODELS))
            yield f"{base}[{index}].model", f"{model!r} is not one of {known}"


def pod(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(path, why) for what no Pod can have here. Source: Kubernetes' RuntimeClass admission."""
    if name := spec.get("runtimeClassName"):
        yield "spec.runtimeClassName", f'RuntimeClass "{name}" not found: there is one runtime here; remove the field'
