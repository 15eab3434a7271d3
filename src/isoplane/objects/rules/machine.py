"""VirtualMachineInstance and VirtualMachine: what a guest needs to boot and run.

Source: the admission checks of KubeVirt's virt-api. Devices that no runtime here can attach are the runtime's to refuse.
"""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any

from isoplane.objects import names
from isoplane.objects.defaulting.machine import apply_instance
from isoplane.objects.rules import pod, probes, resources
from isoplane.objects.rules.report import Report

RUN_STRATEGIES = ("Always", "Halted", "Manual", "RerunOnFailure", "Once", "WaitAsReceiver")
EVICTION_STRATEGIES = ("None", "LiveMigrate", "LiveMigrateIfPossible", "External")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "guestAgentPing")
_BOOTABLE = ("containerDisk", "hostDisk", "ephemeral", "persistentVolumeClaim", "dataVolume")
"""Volume sources that can hold an operating system."""
_BINDINGS = ("bridge", "masquerade", "sriov", "slirp", "macvtap", "passt", "passtBinding", "binding")
_TARGETS = ("disk", "lun", "cdrom")
_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")
_MAX_VCPUS = 710


def check_instance(obj: dict[str, Any], report: Report) -> None:
    _spec("spec", obj.get("spec") or {}, report)


def check_instance_update(obj: dict[str, Any], old: dict[str, Any], report: Report) -> None:
    if obj.get("spec") == old.get("spec"):
        return
    filled = deepcopy(old)
    apply_instance(filled)  # what was stored under fewer defaults has them by now
    if obj.get("spec") != filled.get("spec"):
        changed = sorted(k for k in {*obj["spec"], *old["spec"]} if obj["spec"].get(k) != old["spec"].get(k))
        text = f"update of VMI object is restricted: the spec is immutable; changed: {', '.join(changed)}"
        report.forbidden("spec", text)


def check_machine(obj: dict[str, Any], report: Report) -> None:
    spec = obj.get("spec") or {}
    running, strategy = spec.get("running"), spec.get("runStrategy")
    if running is not None and strategy:
        report.invalid(
            "spec.running", running,
            "Running and RunStrategy are mutually exclusive. Note that Running is deprecated, please use RunStrategy instead",
        )  # fmt: skip
    elif running is None and not strategy:
        report.required("spec.runStrategy", "one of running or runStrategy must be specified")
    report.one_of("spec.runStrategy", strategy, RUN_STRATEGIES)
    template = spec.get("template")
    if template is None:
        report.required("spec.template", "a virtual machine needs a template of its instance")
    else:
        _spec("spec.template.spec", template.get("spec") or {}, report)


def _spec(path: str, spec: dict[str, Any], report: Report) -> None:
    domain = spec.get("domain") or {}
    devices = domain.get("devices") or {}
    _size(f"{path}.domain", domain, report)
    volumes = _volumes(path, spec.get("volumes") or (), report)
    _disks(f"{path}.domain.devices.disks", devices.get("disks") or (), volumes, report)
    for index, system in enumerate(devices.get("filesystems") or ()):
        if system.get("name") not in volumes:
            report.not_found(f"{path}.domain.devices.filesystems[{index}].name", system.get("name"))
    _boot(path, spec, volumes, report)
    _networks(path, spec, report)
    for name in ("livenessProbe", "readinessProbe"):
        probes.check(f"{path}.{name}", spec.get(name), report, handlers=_HANDLERS, single_success=name[0] == "l")
    report.not_negative(f"{path}.terminationGracePeriodSeconds", spec.get("terminationGracePeriodSeconds"))
    report.one_of(f"{path}.evictionStrategy", spec.get("evictionStrategy"), EVICTION_STRATEGIES)
    report.one_of(f"{path}.startStrategy", spec.get("startStrategy"), ("Paused",))
    for field in ("hostname", "subdomain"):
        if value := spec.get(field):
            report.text(f"{path}.{field}", value, names.dns_label(value))
    if value := spec.get("priorityClassName"):
        report.text(f"{path}.priorityClassName", value, names.dns_subdomain(value))
    pod.check_placement(path, spec, report)


def _size(path: str, domain: dict[str, Any], report: Report) -> None:
    """Processors and memory: present, positive, and not beyond what was limited."""
    resources.check(f"{path}.resources", domain.get("resources"), report)
    cpu = domain.get("cpu") or {}
    count = 1
    for field in ("sockets", "cores", "threads"):
        count *= cpu.get(field) or 1
    if count > _MAX_VCPUS:
        report.invalid(f"{path}.cpu", count, f"sockets x cores x threads must not be more than {_MAX_VCPUS}")
    memory = domain.get("memory") or {}
    requested = (domain.get("resources") or {}).get("requests") or {}
    limited = (domain.get("resources") or {}).get("limits") or {}
    reserved = (memory.get("reservedOverhead") or {}).get("addedOverhead")
    if reserved is not None:
        report.quantity(f"{path}.memory.reservedOverhead.addedOverhead", "memory", reserved)
    guest = memory.get("guest")
    if guest is None and memory.get("hugepages") is None and "memory" not in requested and "memory" not in limited:
        report.required(f"{path}.memory.guest", "no memory requested, at least one of memory.guest, "
                        "resources.requests.memory or memory.hugepages must be set")  # fmt: skip
    if guest is None:
        return
    amount = report.quantity(f"{path}.memory.guest", "memory", guest)
    if amount is not None and amount < 1 << 20:
        report.invalid(f"{path}.memory.guest", guest, "must be at least 1Mi")
    limit = None if limited.get("memory") is None else Report().quantity("", "memory", limited["memory"])
    if amount is not None and limit is not None and amount > limit:
        text = f"must be equal to or less than the memory limit {limited['memory']}"
        report.invalid(f"{path}.memory.guest", guest, text)


def _volumes(path: str, volumes: Any, report: Report) -> dict[str, str]:
    """Names of the volumes, each with the name of its source."""
    known: dict[str, str] = {}
    for index, volume in enumerate(volumes):
        where, name = f"{path}.volumes[{index}]", volume.get("name") or ""
        if not name:
            report.required(f"{where}.name")
        elif name in known:
            report.duplicate(f"{where}.name", name)
        else:
            report.text(f"{where}.name", name, names.dns_label(name))
        sources = [field for field, value in volume.items() if field != "name" and value is not None]
        if len(sources) != 1:
            report.invalid(where, sources, "must have exactly one source type set")
        known[name] = sources[0] if sources else ""
        _source(where, volume, report)
    return known


def _source(path: str, volume: dict[str, Any], report: Report) -> None:
    if (source := volume.get("containerDisk")) is not None and not source.get("image"):
        report.required(f"{path}.containerDisk.image")
    if (source := volume.get("emptyDisk")) is not None:
        amount = report.quantity(f"{path}.emptyDisk.capacity", "storage", source.get("capacity") or "")
        if amount == 0:
            report.invalid(f"{path}.emptyDisk.capacity", source.get("capacity"), "must be greater than 0")
    if (source := volume.get("hostDisk")) is not None:
        if not source.get("path"):
            report.required(f"{path}.hostDisk.path", "is required for hostDisk")
        report.one_of(f"{path}.hostDisk.type", source.get("type"), ("Disk", "DiskOrCreate"))
        if source.get("capacity") is not None:
            report.quantity(f"{path}.hostDisk.capacity", "storage", source["capacity"])
            if source.get("type") == "Disk":
                report.invalid(
                    f"{path}.hostDisk.capacity", source["capacity"], "is allowed only with type DiskOrCreate"
                )
        elif source.get("type") == "DiskOrCreate":
            report.required(f"{path}.hostDisk.capacity", "a disk that may be created needs its size")
    for field in ("cloudInitNoCloud", "cloudInitConfigDrive"):
        source = volume.get(field)
        if source is not None and not any(source.get(key) for key in source):
            report.invalid(f"{path}.{field}", source, "must have at least one user-data or network-data source set")


def _disks(path: str, disks: Any, volumes: dict[str, str], report: Report) -> None:
    seen: set[str] = set()
    orders: set[int] = set()
    for index, disk in enumerate(disks):
        where, name = f"{path}[{index}]", disk.get("name") or ""
        if name in seen:
            report.duplicate(f"{where}.name", name)
        seen.add(name)
        if name not in volumes:
            report.not_found(f"{where}.name", name)
        targets = [target for target in _TARGETS if disk.get(target) is not None]
        if len(targets) > 1:
            report.invalid(where, targets, "can only have a single target type defined")
        order = disk.get("bootOrder")
        if order is not None:
            if order < 1:
                report.invalid(f"{where}.bootOrder", order, "must have a boot order > 0, if supplied")
            if order in orders:
                report.duplicate(f"{where}.bootOrder", order)
            orders.add(order)
        for target in targets:
            bus = disk[target].get("bus")
            report.one_of(f"{where}.{target}.bus", bus, ("virtio", "sata", "scsi", "usb"))
        report.one_of(f"{where}.cache", disk.get("cache"), ("none", "writethrough", "writeback"))


def _boot(path: str, spec: dict[str, Any], volumes: dict[str, str], report: Report) -> None:
    """Something to boot from: a kernel, a disk that can hold a system, or the network where asked for."""
    domain = spec.get("domain") or {}
    devices = domain.get("devices") or {}
    kernel = (domain.get("firmware") or {}).get("kernelBoot")
    if kernel is not None:
        container = kernel.get("container")
        where = f"{path}.domain.firmware.kernelBoot"
        if container is None:
            report.required(f"{where}.container", "kernelBoot needs the image that holds the kernel")
        else:
            if not container.get("image"):
                report.required(f"{where}.container.image")
            if not container.get("kernelPath") and not container.get("initrdPath"):
                report.required(f"{where}.container", "at least one of kernelPath and initrdPath")
        return
    # A volume that nothing takes becomes a disk when the instance is made; a template is checked before that.
    shared = {system.get("name") for system in devices.get("filesystems") or ()}
    if any(source in _BOOTABLE for name, source in volumes.items() if name not in shared):
        return
    if any(interface.get("bootOrder") for interface in devices.get("interfaces") or ()):
        return
    report.required(
        f"{path}.domain.devices.disks",
        "the virtual machine has nothing to boot from: give domain.firmware.kernelBoot, a volume that is one of "
        f"{', '.join(_BOOTABLE)}, or an interface with a bootOrder",
    )


def _networks(path: str, spec: dict[str, Any], report: Report) -> None:
    known: set[str] = set()
    pods = 0
    for index, network in enumerate(spec.get("networks") or ()):
        where, name = f"{path}.networks[{index}]", network.get("name") or ""
        if name in known:
            report.duplicate(f"{where}.name", name)
        known.add(name)
        if (network.get("pod") is None) == (network.get("multus") is None):
            report.required(where, "should have exactly one of the network types pod and multus")
        pods += network.get("pod") is not None
        if pods > 1 and network.get("pod") is not None:
            report.duplicate(where, "pod")
    used: set[str] = set()
    interfaces = ((spec.get("domain") or {}).get("devices") or {}).get("interfaces") or ()
    for index, interface in enumerate(interfaces):
        where, name = f"{path}.domain.devices.interfaces[{index}]", interface.get("name") or ""
        if name not in known:
            report.not_found(f"{where}.name", name)
        if name in used:
            report.duplicate(f"{where}.name", name)
        used.add(name)
        found = [binding for binding in _BINDINGS if interface.get(binding) is not None]
        if len(found) > 1:
            report.invalid(where, found, "only one binding method may be set")
        mac = interface.get("macAddress")
        if mac and not _MAC.fullmatch(mac):
            report.invalid(f"{where}.macAddress", mac, "must be a MAC address such as 02:00:00:00:00:01")
        for at, port in enumerate(interface.get("ports") or ()):
            report.port(f"{where}.ports[{at}].port", port.get("port"))
            report.one_of(f"{where}.ports[{at}].protocol", port.get("protocol"), ("TCP", "UDP"))
            if port.get("name"):
                report.text(f"{where}.ports[{at}].name", port["name"], names.port_name(port["name"]))
    for name in known - used:
        report.required(f"{path}.domain.devices.interfaces", f"network {name!r} has no interface")
