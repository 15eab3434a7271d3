"""config.json: one container as the OCI runtime specification wants it. Pure: a Container in, a document out.

Defaults (capabilities, masked paths, devices) are those that containerd gives a Kubernetes container.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from isoplane.node.runtime.oci.users import User

_CPU_PERIOD = 100_000
MASKED = (
    "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
)  # fmt: skip
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
_DEVICES = (("c", 1, 3), ("c", 1, 8), ("c", 1, 7), ("c", 5, 0), ("c", 1, 5), ("c", 1, 9), ("c", 5, 1), ("c", 136, None))


@dataclass(frozen=True, slots=True)
class Mount:
    """Something of the host inside the container."""

    source: str
    target: str
    read_only: bool = False
    recursive: bool = True
    propagation: str = "rprivate"
    recursive_read_only: bool = False
    """Whether what is mounted below it is read-only too."""
    sub_path: str = ""
    """What of the source is mounted: opened beneath it when the container is created."""
    written_by_tenant: bool = False
    """Whether containers write what lies in the source, so that no link in it is followed."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device node, for privileged containers."""

    path: str
    kind: str
    major: int
    minor: int
    mode: int
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class Container:
    """Everything that distinguishes one container from another. Memory in bytes, CPU in millicores; 0 is unlimited."""

    args: Sequence[str]
    environment: Mapping[str, str]
    cgroup: str
    hostname: str
    netns: str
    """'' for the host's own."""
    cwd: str = "/"
    user: User = field(default_factory=User)
    tty: bool = False
    mounts: Sequence[Mount] = ()
    security: Mapping[str, Any] = field(default_factory=dict)
    capabilities: Sequence[str] = ()
    cpu_request: int = 0
    cpu_limit: int = 0
    memory_limit: int = 0
    pids_limit: int = 0
    oom_score: int = 0
    ipc: str = ""
    """Path of an IPC namespace to join; '' for one of its own."""
    shm: str = ""
    """Directory that becomes /dev/shm; '' for one of its own."""
    host_pid: bool = False
    host_ipc: bool = False
    cgroup_namespace: bool = False
    devices: Sequence[Device] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)
    seccomp: Mapping[str, Any] | None = None


def document(container: Container, rootfs: str = "rootfs") -> dict[str, Any]:
    """The content of config.json; a ``rootfs`` that is not absolute lies in the bundle."""
    privileged = bool(container.security.get("privileged"))
    linux: dict[str, Any] = {
        "cgroupsPath": container.cgroup,
        "namespaces": _namespaces(container),
        "resources": _resources(container, privileged),
        "rootfsPropagation": "rslave" if any(m.propagation != "rprivate" for m in container.mounts) else "rprivate",
    }
    if not privileged:
        linux["maskedPaths"], linux["readonlyPaths"] = list(MASKED), list(_READ_ONLY)
    if privileged and container.devices:
        linux["devices"] = [
            {"path": d.path, "type": d.kind, "major": d.major, "minor": d.minor, "fileMode": d.mode, "uid": d.uid,
             "gid": d.gid} for d in container.devices
        ]  # fmt: skip
    if container.sysctls:
        linux["sysctl"] = dict(container.sysctls)
    if container.seccomp is not None and not privileged:
        linux["seccomp"] = dict(container.seccomp)
    return {
        "ociVersion": "1.0.2",
        "process": _process(container, privileged),
        "root": {"path": rootfs, "readonly": bool(container.security.get("readOnlyRootFilesystem"))},
        "hostname": container.hostname,
        "mounts": [*_system_mounts(container, privileged), *(_bind(m) for m in container.mounts)],
        "linux": linux,
    }


def _process(container: Container, privileged: bool) -> dict[str, Any]:
    capabilities = list(container.capabilities)
    # Only root starts with them in effect; others keep them in the bounding set, for programs with file capabilities.
    effective = capabilities if container.user.uid == 0 or privileged else []
    environment = {"HOME": container.user.home, **container.environment}
    if container.tty:
        environment.setdefault("TERM", "xterm")
    return {
        "terminal": container.tty,
        "user": {
            "uid": container.user.uid,
            "gid": container.user.gid,
            "additionalGids": list(container.user.groups),
        },
        "args": list(container.args),
        "env": [f"{name}={value}" for name, value in environment.items()],
        "cwd": container.cwd or "/",
        "capabilities": {"bounding": capabilities, "effective": effective, "permitted": effective},
        "noNewPrivileges": container.security.get("allowPrivilegeEscalation") is False and not privileged,
        "oomScoreAdj": container.oom_score,
    }


def _namespaces(container: Container) -> list[dict[str, str]]:
    found: list[dict[str, str]] = [{"type": "mount"}, {"type": "uts"}]
    if not container.host_pid:
        found.append({"type": "pid"})
    if not container.host_ipc:
        found.append({"type": "ipc", "path": container.ipc} if container.ipc else {"type": "ipc"})
    if container.netns:
        found.append({"type": "network", "path": container.netns})
    if container.cgroup_namespace:
        found.append({"type": "cgroup"})
    return found


def _resources(container: Container, privileged: bool) -> dict[str, Any]:
    # 2 is the kernel's minimum and the kubelet's choice for a container that asks for nothing.
    cpu: dict[str, int] = {"shares": max(2, container.cpu_request * 1024 // 1000)}
    if container.cpu_limit:
        cpu["period"] = _CPU_PERIOD
        cpu["quota"] = max(1000, container.cpu_limit * _CPU_PERIOD // 1000)
    resources: dict[str, Any] = {"cpu": cpu}
    if container.memory_limit:
        resources["memory"] = {"limit": container.memory_limit}
    if container.pids_limit:
        resources["pids"] = {"limit": container.pids_limit}
    if privileged:
        resources["devices"] = [{"allow": True, "access": "rwm"}]
    else:
        rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
        for kind, major, minor in _DEVICES:
            rule = {"allow": True, "type": kind, "major": major, "access": "rwm"}
            rules.append(rule if minor is None else {**rule, "minor": minor})
        # mknod stays possible, as everywhere: only opening is judged by the rules above.
        rules += [{"allow": True, "type": kind, "access": "m"} for kind in ("c", "b")]
        resources["devices"] = rules
    return resources


def _system_mounts(container: Container, privileged: bool) -> list[dict[str, Any]]:
    guarded = ["nosuid", "noexec", "nodev"]
    access = "rw" if privileged else "ro"
    mounts: list[dict[str, Any]] = [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": guarded},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": guarded},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*guarded, access]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [*guarded, "relatime", access]},
    ]  # fmt: skip
    if container.shm or container.host_ipc:
        source = container.shm or "/dev/shm"
        mounts.append({"destination": "/dev/shm", "type": "bind", "source": source, "options": ["rbind", *guarded]})
    else:
        options = [*guarded, "mode=1777", "size=65536k"]
        mounts.append({"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": options})
    return mounts


def _bind(mount: Mount) -> dict[str, Any]:
    access = ("rro" if mount.recursive_read_only else "ro") if mount.read_only else "rw"
    options = ["rbind" if mount.recursive else "bind", mount.propagation, access]
    return {"destination": mount.target, "type": "bind", "source": mount.source, "options": options}
