"""What takes more than one field, or a list of names, to see that a machine cannot be had here. Pure.

``domain.parse`` in the machines' runtime asks the same before it reads a spec, so that what is admitted is what starts.  Its
specs may have come by another way than through the API server: values of a wrong type are left to it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from isoplane.objects import quantity
from isoplane.workload.machine_offer import KNOWN, MachineOffer

Found = Iterator[tuple[str, str]]
MIB = 2**20
LEAST_MEMORY = 16 * MIB
SECTOR = 512
FEATURE_SIGNS = {"require": "+", "force": "+", "optional": "+", "disable": "-", "forbid": "-"}
"""KubeVirt's policy for a processor's feature → QEMU's sign before its name."""
CACHES = ("none", "writethrough", "writeback")
PCI_SLOTS = 30
"""Of a machine's one bus, its own chips aside."""
LONGEST_LABEL = 16
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_NO_TEXT = "holds a NUL, which no program can be given"
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


@dataclass(frozen=True, slots=True)
class _Chipset:
    sata_ports: int
    processors: int


_CHIPSET = {"pc": _Chipset(4, 255), "q35": _Chipset(6, 288)}


def _chipset(kind: str) -> str:
    return "q35" if "q35" in kind else "pc"


def check(spec: Mapping[str, Any], offer: MachineOffer = KNOWN) -> Found:
    """(path, why) of all that a machine cannot be."""
    domain = _map(spec.get("domain"))
    kind = field_of(domain, "machine", "type")
    if kind and not (isinstance(kind, str) and MACHINE_TYPE.fullmatch(kind)):
        yield "spec.domain.machine.type", f"{kind!r} is not supported: use pc (the default) or q35"
    elif kind and not offer.has_machine(kind):
        yield "spec.domain.machine.type", f"{offer.whose} has no machine type {kind!r}: use pc (the default) or q35"
    yield from _cpu(_map(domain.get("cpu")), offer, str(kind or "pc"))
    yield from _memory(domain)
    yield from _volumes(spec.get("volumes"))
    yield from _disks(field_of(domain, "devices", "disks") or (), "spec.domain.devices.disks")
    yield from _interfaces(field_of(domain, "devices", "interfaces") or (), "spec.domain.devices.interfaces")
    yield from _places(spec, str(kind or "pc"))
    yield from _boot(spec)


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _maps(value: Any) -> Iterable[tuple[int, Mapping[str, Any]]]:
    found = value if isinstance(value, list | tuple) else ()
    return [(index, each) for index, each in enumerate(found) if isinstance(each, Mapping)]


def _cpu(cpu: Mapping[str, Any], offer: MachineOffer, kind: str) -> Found:
    shape = [cpu.get(field) for field in ("sockets", "cores", "threads")]
    count, most = prod(n for n in shape if isinstance(n, int) and n > 0), _CHIPSET[_chipset(kind)].processors
    if count > most:
        yield "spec.domain.cpu", f"{count} virtual CPUs are more than the {most} that a {kind} machine can have"
    model = cpu.get("model")
    if isinstance(model, str) and model and not offer.has_model(model):
        yield (
            "spec.domain.cpu.model",
            f"{offer.whose} has no CPU model {model[:64]!r}: use host-model, or one that `qemu-system-x86_64 -cpu help` lists",
        )
    for index, feature in _maps(cpu.get("features")):
        where, name, policy = f"spec.domain.cpu.features[{index}]", feature.get("name"), feature.get("policy")
        if isinstance(name, str) and name and not offer.has_feature(name):
            yield f"{where}.name", f"{offer.whose} has no CPU feature {name[:64]!r}"
        if isinstance(policy, str) and policy and policy not in FEATURE_SIGNS:
            yield f"{where}.policy", f"{policy!r} is not one of {', '.join(FEATURE_SIGNS)}"


def _memory(domain: Mapping[str, Any]) -> Found:
    """As KubeVirt derives it where the guest's size is not spelled out: limits before requests."""
    asked = field_of(domain, "memory", "guest")
    path = "spec.domain.memory.guest" if asked is not None else "spec.domain.resources"
    if asked is None:
        asked = field_of(domain, "resources", "limits", "memory") or field_of(domain, "resources", "requests", "memory")
    if (size := _amount(asked)) is not None and size < LEAST_MEMORY:
        yield path, f"{asked} is less than a machine can start with (16Mi)"


def _amount(value: Any) -> int | None:
    try:
        return quantity.whole(value) if isinstance(value, str | int) and not isinstance(value, bool) else None
    except ValueError:
        return None


def _volumes(volumes: Any) -> Found:
    for index, volume in _maps(volumes):
        where = f"spec.volumes[{index}]"
        for kind in ("emptyDisk", "hostDisk"):
            size = _amount(field_of(volume, kind, "capacity"))
            if size is not None and size < SECTOR:
                yield f"{where}.{kind}.capacity", f"{volume[kind]['capacity']} is less than one sector"
        path = field_of(volume, "hostDisk", "path")
        if isinstance(path, str) and path and not path.startswith("/"):
            yield f"{where}.hostDisk.path", f"{path!r} is not an absolute path"
        yield from _cloud_init(_map(volume.get("cloudInitNoCloud")), f"{where}.cloudInitNoCloud")
        for kind, name in (("configMap", "name"), ("secret", "secretName")):
            if volume.get(kind) is None:
                continue
            source = _map(volume[kind])
            if not source.get(name):
                yield f"{where}.{kind}.{name}", "required"
            label = source.get("volumeLabel") or ""
            if isinstance(label, str) and (len(label) > LONGEST_LABEL or not label.isascii()):
                yield (
                    f"{where}.{kind}.volumeLabel",
                    f"{label[:64]!r} is no label of a disk: at most 16 ASCII characters",
                )


def _cloud_init(source: Mapping[str, Any], where: str) -> Found:
    for plain, encoded, reference in (
        ("userData", "userDataBase64", "secretRef"),
        ("networkData", "networkDataBase64", "networkDataSecretRef"),
    ):
        if sum(bool(source.get(name)) for name in (plain, encoded, reference)) > 1:
            yield where, f"give one of {plain}, {encoded} and {reference}"
        text = source.get(encoded)
        try:
            base64.b64decode(text if isinstance(text, str) else "", validate=True)
        except (binascii.Error, ValueError):
            yield f"{where}.{encoded}", "is not base64"
        if isinstance(source.get(reference), Mapping) and not source[reference].get("name"):
            yield f"{where}.{reference}.name", "required"


def _places(spec: Mapping[str, Any], kind: str) -> Found:
    """Whether there is a place on the machine's buses for everything."""
    buses: list[str] = []
    declared = {disk.get("name"): disk for _, disk in _maps(field_of(spec, "domain", "devices", "disks"))}
    for _, volume in _maps(spec.get("volumes")):
        disk = _map(declared.get(volume.get("name")))
        cdrom = disk.get("cdrom") is not None
        target = _map(disk.get("cdrom") if cdrom else disk.get("disk"))
        buses.append(str(target.get("bus") or ("sata" if cdrom else "virtio")))
    most = _CHIPSET[_chipset(kind)].sata_ports
    if buses.count("sata") > most:
        why = f"a {kind} machine has {most} SATA ports, which are not enough; use virtio or scsi for some"
        yield "spec.domain.devices.disks", why
    others = 3 + len({bus for bus in buses if bus in ("scsi", "usb")})  # the card, random numbers, the agent's channel
    if buses.count("virtio") > PCI_SLOTS - others:
        yield (
            "spec.volumes",
            f"more than {PCI_SLOTS - others} virtio disks have no place in a machine; use the bus scsi for some",
        )


def _disks(disks: Any, base: str) -> Iterator[tuple[str, str]]:
    for index, disk in enumerate(disks):
        bus = field_of(disk, "cdrom", "bus")
        if bus and bus not in CDROM_BUSES:
            yield f"{base}[{index}].cdrom.bus", f"{bus!r} is not a bus for a cdrom; use one of {', '.join(CDROM_BUSES)}"
        mode = field_of(disk, "io") or ""
        if mode not in IO_MODES:
            yield f"{base}[{index}].io", f"{mode!r} is not one of {', '.join(filter(None, IO_MODES))}"
        cache = field_of(disk, "cache")
        if cache and cache not in CACHES:
            yield f"{base}[{index}].cache", f"{cache!r} is not one of {', '.join(CACHES)}"
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
    given = field_of(spec, "domain", "firmware", "uuid")
    if isinstance(given, str) and given and not _UUID.fullmatch(given):
        yield "spec.domain.firmware.uuid", f"{given[:64]!r} is not a UUID"
    for path in (("kernelBoot", "kernelArgs"), ("kernelBoot", "container", "kernelPath"), ("serial",)):
        if "\0" in str(field_of(spec, "domain", "firmware", *path) or ""):
            yield f"spec.domain.firmware.{'.'.join(path)}", _NO_TEXT
    for index, disk in _maps(field_of(spec, "domain", "devices", "disks")):
        if "\0" in str(disk.get("serial") or ""):
            yield f"spec.domain.devices.disks[{index}].serial", _NO_TEXT
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
