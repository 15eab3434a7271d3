"""What a VirtualMachineInstance's spec asks of QEMU, read once into plain values.

``parse`` is the only reader of the declared dictionary (kubevirt.io/v1); the command line, the disks and cloud-init are
made from the ``Domain`` it returns.  What this runtime cannot give is refused here with the field's path, never ignored.
Host paths and files are none of its business: see disks.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from isoplane.node.runtime.qemu.fields import Spec, amount, items, mapping, positive, refuse, required, text
from isoplane.node.runtime.qemu.volumes import Source, parse_volumes
from isoplane.workload import impossible
from isoplane.workload.impossible_machine import FEATURE_SIGNS, INTERFACE_MODELS, field_of
from isoplane.workload.machine_offer import HOST_MODELS, KNOWN, MachineOffer

MIB = 2**20
BUSES = ("virtio", "sata", "scsi", "usb")
_NEED_AGENT = {"exec", "guestAgentPing"}


@dataclass(frozen=True, slots=True)
class Cpu:
    """The topology the guest sees. ``model`` is '' for the accelerator's best; ``features`` are ``+name`` or ``-name``."""

    sockets: int
    cores: int
    threads: int
    model: str = ""
    features: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        return self.sockets * self.cores * self.threads


@dataclass(frozen=True, slots=True)
class KernelBoot:
    """A kernel and its initial ramdisk inside an image; paths are absolute within it, '' when there is none."""

    image: str
    kernel_path: str
    initrd_path: str
    arguments: str
    pull_policy: str = ""


@dataclass(frozen=True, slots=True)
class Disk:
    """One disk as the guest sees it. ``boot_order`` 0 leaves the order to the firmware."""

    name: str
    source: Source
    bus: str = "virtio"
    cdrom: bool = False
    read_only: bool = False
    serial: str = ""
    boot_order: int = 0
    cache: str = ""
    io: str = ""
    """How QEMU reads and writes: ``native``, ``threads``, or '' for its own choice."""
    shareable: bool = False
    """Whether another machine may write to it at the same time."""


@dataclass(frozen=True, slots=True)
class Domain:
    """A machine to be: everything the spec says of it, with memory in bytes."""

    cpu: Cpu
    memory: int
    machine: str = "pc"
    firmware_uuid: str = ""
    firmware_serial: str = ""
    kernel_boot: KernelBoot | None = None
    disks: tuple[Disk, ...] = ()
    acpi: bool = True
    interface_model: str = ""
    """The QEMU device of the one interface; '' when the guest wants none."""
    link_up: bool = True
    """Whether the interface's cable is plugged in."""
    agent: bool = False
    """Whether a probe needs the QEMU guest agent's channel."""


def parse(spec: Spec, offer: MachineOffer = KNOWN) -> Domain:
    """Read a VMI's spec. Raises RuntimeFailure(CREATE_CONFIG) naming the field that is wrong or cannot be given.

    ``offer``: the names that this host's QEMU takes.
    """
    domain = mapping(spec.get("domain"), "domain")
    for where, value in (
        ("domain.devices.disks", field_of(domain, "devices", "disks")),
        ("domain.devices.interfaces", field_of(domain, "devices", "interfaces")),
        ("volumes", spec.get("volumes")),
    ):
        items(value, where)
    text(field_of(domain, "machine", "type"), "domain.machine.type")
    for path, why in impossible.machine(spec, offer):
        raise refuse(path.removeprefix("spec."), why)
    firmware = mapping(domain.get("firmware"), "domain.firmware")
    kernel_boot = _kernel_boot(firmware)
    disks = _disks(spec)
    if kernel_boot is None and not disks:
        raise refuse("domain", "nothing to boot from: give a kernelBoot container, a containerDisk or a hostDisk")
    return Domain(
        cpu=_cpu(domain),
        memory=_memory(domain),
        machine=_machine(domain),
        firmware_uuid=text(firmware.get("uuid"), "domain.firmware.uuid"),
        firmware_serial=text(firmware.get("serial"), "domain.firmware.serial"),
        kernel_boot=kernel_boot,
        disks=disks,
        acpi=field_of(domain, "features", "acpi", "enabled") is not False,
        interface_model=_interface(domain),
        link_up=all(interface.get("state") != "down" for interface in _interfaces(domain)),
        agent=any(
            mapping(spec.get(probe), probe).keys() & _NEED_AGENT for probe in ("readinessProbe", "livenessProbe")
        ),
    )


def _resource(domain: Spec, name: str) -> Any:
    """limits before requests, as KubeVirt derives a topology or a memory size that is not spelled out."""
    return field_of(domain, "resources", "limits", name) or field_of(domain, "resources", "requests", name)


def _cpu(domain: Spec) -> Cpu:
    cpu = mapping(domain.get("cpu"), "domain.cpu")
    shape = {k: positive(cpu[k], f"domain.cpu.{k}") for k in ("sockets", "cores", "threads") if cpu.get(k) is not None}
    if not shape and (asked := _resource(domain, "cpu")) is not None:
        shape["sockets"] = max(1, amount(asked, "domain.resources"))
    model = text(cpu.get("model"), "domain.cpu.model")
    if model in HOST_MODELS:
        model = ""
    return Cpu(shape.get("sockets", 1), shape.get("cores", 1), shape.get("threads", 1), model, _features(cpu))


def _features(cpu: Spec) -> tuple[str, ...]:
    found = []
    for index, feature in enumerate(items(cpu.get("features"), "domain.cpu.features")):
        path = f"domain.cpu.features[{index}]"
        name, policy = required(feature, "name", path), text(feature.get("policy"), f"{path}.policy") or "require"
        found.append(FEATURE_SIGNS[policy] + name)
    return tuple(found)


def _memory(domain: Spec) -> int:
    guest = field_of(domain, "memory", "guest")
    path = "domain.memory.guest" if guest is not None else "domain.resources"
    asked = guest if guest is not None else _resource(domain, "memory")
    if asked is None:
        raise refuse("domain.memory.guest", "say how much memory the guest has, e.g. 256Mi")
    return amount(asked, path)


def _machine(domain: Spec) -> str:
    return text(field_of(domain, "machine", "type"), "domain.machine.type") or "pc"


def _kernel_boot(firmware: Spec) -> KernelBoot | None:
    path = "domain.firmware.kernelBoot"
    boot = mapping(firmware.get("kernelBoot"), path)
    if firmware.get("kernelBoot") is None:
        return None
    arguments = text(boot.get("kernelArgs"), f"{path}.kernelArgs")
    path = f"{path}.container"
    container = mapping(boot.get("container"), path)
    image = required(container, "image", path, "the image that holds the kernel is required")
    kernel = required(container, "kernelPath", path, "the kernel's path in the image is required, e.g. /boot/vmlinuz")
    initrd = text(container.get("initrdPath"), f"{path}.initrdPath")
    return KernelBoot(
        image, kernel, initrd, arguments, text(container.get("imagePullPolicy"), f"{path}.imagePullPolicy")
    )


def _disks(spec: Spec) -> tuple[Disk, ...]:
    """One disk a volume: as domain.devices.disks says, or a virtio disk where it says nothing, as KubeVirt defaults."""
    sources = parse_volumes(spec.get("volumes"))
    declared: dict[str, tuple[str, Spec]] = {}
    for index, disk in enumerate(items(field_of(spec, "domain", "devices", "disks"), "domain.devices.disks")):
        path = f"domain.devices.disks[{index}]"
        name = required(disk, "name", path)
        if name not in sources:
            raise refuse(f"{path}.name", f"no volume is named {name!r}")
        if name in declared:
            raise refuse(f"{path}.name", f"{name!r} is used twice")
        declared[name] = path, disk
    order = [*declared, *(name for name in sources if name not in declared)]
    return tuple(_disk(name, sources[name], *declared.get(name, ("", {}))) for name in order)


def _disk(name: str, source: Source, path: str, declared: Spec) -> Disk:
    kind = next((k for k in ("cdrom", "lun", "disk") if declared.get(k) is not None), "disk")
    target = mapping(declared.get(kind), f"{path}.{kind}")
    cdrom = kind == "cdrom"
    bus = text(target.get("bus"), f"{path}.{kind}.bus") or ("sata" if cdrom else "virtio")
    if bus not in BUSES or (cdrom and bus in ("virtio", "usb")):
        raise refuse(f"{path}.{kind}.bus", f"{bus!r} is not a bus for a {kind}; use one of {', '.join(BUSES[:3])}")
    cache = text(declared.get("cache"), f"{path}.cache")
    return Disk(
        name,
        source,
        bus,
        cdrom,
        read_only=cdrom or target.get("readonly") is True or source.read_only,
        serial=text(declared.get("serial"), f"{path}.serial"),
        boot_order=positive(declared["bootOrder"], f"{path}.bootOrder") if declared.get("bootOrder") is not None else 0,
        cache=cache,
        io=io if (io := text(declared.get("io"), f"{path}.io")) != "default" else "",
        shareable=declared.get("shareable") is True,
    )


def _interfaces(domain: Spec) -> list[Spec]:
    found = items(field_of(domain, "devices", "interfaces"), "domain.devices.interfaces")
    return [interface for interface in found if interface.get("state") != "absent"]


def _interface(domain: Spec) -> str:
    devices = mapping(domain.get("devices"), "domain.devices")
    if not devices.get("interfaces"):
        return "" if devices.get("autoattachPodInterface") is False else "virtio-net-pci"
    interfaces = _interfaces(domain)
    if not interfaces:
        return ""
    return INTERFACE_MODELS[text(interfaces[0].get("model"), "domain.devices.interfaces[0].model")]
