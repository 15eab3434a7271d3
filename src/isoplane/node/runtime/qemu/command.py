"""The command line of a machine: ``Domain`` + files + network → argv. Pure, so that it is compared as text in tests.

Everything is explicit (``-nodefaults``, named block nodes, formats stated, never probed).  Choices that were measured:
``pc`` boots as fast as any and survives a busy host; under TCG the translation cache is bounded and guests are told
``no_timer_check``, without which a busy host makes them panic in their timer calibration; network cards carry no boot ROM.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from isoplane.node.runtime.protocol import NetworkInterface
from isoplane.node.runtime.qemu.disks import BootFiles, DiskFile
from isoplane.node.runtime.qemu.domain import MIB, Disk, Domain

KVM, TCG = "kvm", "tcg"
CONSOLE_SOCKET, QMP_SOCKET, AGENT_SOCKET = "console.sock", "qmp.sock", "agent.sock"
_RUN_WITH_USER = (9, 1)
"""The version in which ``-run-with user=`` took over from ``-runas``."""
HEAP, PER_CPU = 64, 8
"""MiB that QEMU takes beside its guest, measured: heap, stacks, firmware and page tables; and for each virtual CPU."""
CARD = "net0"
"""The network card's backend, by which the monitor knows its link."""
AGENT_CHANNEL = "org.qemu.guest_agent.0"


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose machine it is. ``uid`` becomes the firmware's UUID unless the spec names one."""

    uid: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Run:
    """What differs between two starts of the same machine. Sockets and log are relative to QEMU's working directory."""

    binary: str
    accelerator: str
    pid_file: str
    serial_log: str
    user: int = 0
    """User and group that QEMU becomes once it has opened everything; 0 keeps those it was started with."""
    tap: int = -1
    """The descriptor of its tap, opened by the plane: QEMU's own network namespace is empty."""
    version: tuple[int, int] = (7, 2)
    memory_limit: int = 0
    """Bytes that its cgroup may use, QEMU itself included; 0 is unlimited."""
    paused: bool = False
    """Whether the guest stands still from the beginning."""


def build(domain: Domain, files: BootFiles, identity: Identity, network: NetworkInterface, run: Run) -> list[str]:
    """QEMU's argv. Start-up errors are on stderr; once the monitor answers, the machine runs."""
    argv = [run.binary, "-name", _options(f"guest={identity.namespace}/{identity.name}", **{"debug-threads": "on"})]
    argv += ["-uuid", domain.firmware_uuid or _uuid(identity.uid), "-nodefaults", "-no-user-config", "-display", "none"]
    off = {"usb": "off", "vmport": "off", "dump-guest-core": "off"} | ({} if domain.acpi else {"acpi": "off"})
    argv += ["-machine", _options(domain.machine, **off)]
    if run.paused:
        argv += ["-S"]
    argv += [*_processor(domain, run), "-m", _memory(domain.memory)]
    if domain.firmware_serial:
        argv += ["-smbios", _options("type=1", serial=domain.firmware_serial)]
    # A machine that shut down or panicked stays as a paused process until the runtime has read how it ended.
    argv += ["-action", "reboot=reset,shutdown=pause,panic=pause,watchdog=reset"]
    argv += ["-device", "pvpanic", "-object", "rng-builtin,id=rng0", "-device", "virtio-rng-pci,rng=rng0"]
    argv += _channels(run.serial_log)
    if domain.agent:
        argv += _agent()
    argv += _kernel(domain, files, run.accelerator) + _disks(domain, files)
    if domain.interface_model and network.tap:
        argv += _network(domain.interface_model, network, run)
    return [*argv, *_confinement(run), "-pidfile", run.pid_file]


def _confinement(run: Run) -> list[str]:
    """What QEMU may do once it runs: no new processes, no obsolete calls, no rescheduling, no other user's rights."""
    denied = "on,obsolete=deny,spawn=deny,resourcecontrol=deny"
    if not run.user:
        return ["-sandbox", f"{denied},elevateprivileges=deny"]
    # Becoming another user is a call that elevateprivileges would deny; afterwards there is nothing left to elevate.
    user = f"{run.user}:{run.user}"
    become = ["-run-with", f"user={user}"] if run.version >= _RUN_WITH_USER else ["-runas", user]
    return ["-sandbox", denied, *become]


def _uuid(uid: str) -> str:
    """A workload's uid as a UUID: itself where it is one, as the API server makes them."""
    try:
        return str(uuid.UUID(uid))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, uid))


def translation_cache(memory: int, cpus: int = 1, limit: int = 0) -> int:
    """MiB of translated code kept under TCG: at least the 32 that a Linux kernel needs, a quarter of the guest's memory.

    Under a memory ``limit`` (bytes, 0 for none) no more than fits beside the guest and QEMU, for the cache has an index of
    its own size, and a machine that fills its cache must not be killed for it.
    """
    wanted = min(256, max(32, memory // MIB // 4))
    if not limit:
        return wanted
    room = limit - memory - memory // 512 - (HEAP + PER_CPU * cpus) * MIB
    return min(wanted, max(32, room // MIB // 2))


def _options(first: str, **more: str) -> str:
    """QEMU's option syntax: commas in values are doubled."""
    pairs = [first.replace(",", ",,")]
    pairs += [f"{key}={value.replace(',', ',,')}" for key, value in more.items()]
    return ",".join(pairs)


def _memory(size: int) -> str:
    return f"size={size // MIB}M" if size % MIB == 0 else f"size={-(-size // 1024)}k"


def _processor(domain: Domain, run: Run) -> list[str]:
    cpu = domain.cpu
    cache = translation_cache(domain.memory, cpu.count, run.memory_limit)
    accel = KVM if run.accelerator == KVM else f"{TCG},thread=multi,tb-size={cache}"
    model = cpu.model or ("host" if run.accelerator == KVM else "max")
    topology = f"cpus={cpu.count},sockets={cpu.sockets},cores={cpu.cores},threads={cpu.threads}"
    return ["-accel", accel, "-cpu", ",".join((model, *cpu.features)), "-smp", topology]


def _channels(serial_log: str) -> list[str]:
    console = _options("socket", id="serial0", path=CONSOLE_SOCKET, server="on", wait="off", logfile=serial_log)
    monitor = _options("socket", id="qmp0", path=QMP_SOCKET, server="on", wait="off")
    return [
        "-chardev", f"{console},logappend=on", "-serial", "chardev:serial0",
        "-chardev", monitor, "-mon", "chardev=qmp0,mode=control",
    ]  # fmt: skip


def _agent() -> list[str]:
    channel = _options("socket", id="agent0", path=AGENT_SOCKET, server="on", wait="off")
    port = _options("virtserialport", chardev="agent0", name=AGENT_CHANNEL)
    return ["-device", "virtio-serial-pci", "-chardev", channel, "-device", port]


def _kernel(domain: Domain, files: BootFiles, accelerator: str) -> list[str]:
    if domain.kernel_boot is None:
        return []
    arguments = domain.kernel_boot.arguments
    if accelerator == TCG and "no_timer_check" not in arguments.split():
        arguments = f"{arguments} no_timer_check".lstrip()
    argv = ["-kernel", files.kernel]
    if files.initrd:
        argv += ["-initrd", files.initrd]
    return [*argv, "-append", arguments] if arguments else argv


def _disks(domain: Domain, files: BootFiles) -> list[str]:
    argv: list[str] = []
    buses = {disk.bus for disk in domain.disks}
    if "scsi" in buses:
        argv += ["-device", "virtio-scsi-pci,id=scsi0"]
    if "usb" in buses:
        argv += ["-device", "qemu-xhci,id=usb0"]
    ports = sata_ports(domain.machine)
    for index, disk in enumerate(domain.disks):
        node = f"disk{index}"
        for block in _nodes(node, disk, files.disks[disk.name]):
            argv += ["-blockdev", json.dumps(block, separators=(",", ":"))]
        argv += ["-device", _device(node, disk, next(ports) if disk.bus == "sata" else {})]
    return argv


def sata_ports(machine: str) -> Iterator[dict[str, str]]:
    """Where disks go one after the other: QEMU itself would put all of them on the first port."""
    for port in count():
        yield {"bus": f"ide.{port}"} if "q35" in machine else {"bus": f"ide.{port // 2}", "unit": str(port % 2)}


def _nodes(node: str, disk: Disk, file: DiskFile) -> list[dict[str, object]]:
    blocks: list[dict[str, object]] = []
    if file.base:
        blocks.append(_file_node(f"{node}-base-file", file.base, True, ""))
        blocks.append(_format_node(f"{node}-base", file.base_format, f"{node}-base-file", True))
    own = _file_node(f"{node}-file", file.path, disk.read_only, disk.cache or ("none" if disk.io == "native" else ""))
    blocks.append(own | ({"aio": disk.io} if disk.io else {}))
    top = _format_node(node, file.format, f"{node}-file", disk.read_only)
    if file.format == "qcow2":
        top["backing"] = f"{node}-base" if file.base else None
    return [*blocks, top]


def _file_node(name: str, path: str, read_only: bool, cache: str) -> dict[str, object]:
    driver = "host_device" if path.startswith("/dev/") else "file"
    node: dict[str, object] = {"driver": driver, "node-name": name, "filename": path, "read-only": read_only}
    if cache == "none":
        node["cache"] = {"direct": True}
    return node


def _format_node(name: str, driver: str, file: str, read_only: bool) -> dict[str, object]:
    return {"driver": driver, "node-name": name, "file": file, "read-only": read_only}


def _device(node: str, disk: Disk, place: dict[str, str]) -> str:
    kind = {"virtio": "virtio-blk-pci", "usb": "usb-storage"}.get(disk.bus)
    if kind is None:
        kind = {"sata": "ide", "scsi": "scsi"}[disk.bus] + ("-cd" if disk.cdrom else "-hd")
    more = {"id": f"{node}-device", "drive": node} | place
    if disk.serial:
        more["serial"] = disk.serial
    if disk.boot_order:
        more["bootindex"] = str(disk.boot_order)
    if disk.shareable and not disk.cdrom:
        more["share-rw"] = "on"
    if disk.cache == "writethrough":
        more["write-cache"] = "off"
    return _options(kind, **more)


def _network(model: str, network: NetworkInterface, run: Run) -> list[str]:
    backend = _options("tap", id=CARD, fd=str(run.tap))
    more = {"netdev": CARD, "mac": network.mac, "romfile": ""}
    if model.startswith("virtio") and network.mtu != 1500:
        more["host_mtu"] = str(network.mtu)
    return ["-netdev", backend, "-device", _options(model, **more)]
