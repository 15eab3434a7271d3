"""Which capabilities a container gets, out of those that this process has itself to give."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from isoplane.node.runtime.oci.environment import missing

ALL = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
        "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
        "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
        "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
        "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
        "CHECKPOINT_RESTORE",
    )
)  # fmt: skip
"""In the order of their numbers. Source: linux/capability.h."""
DEFAULT = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
        "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
    )
)  # fmt: skip
"""What a container has that asks for nothing. Source: containerd."""


@lru_cache(maxsize=1)
def own() -> frozenset[str]:
    """What this process may pass on: its bounding set."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapBnd:"):
            mask = int(line.split()[1], 16)
            return frozenset(name for number, name in enumerate(ALL) if mask >> number & 1)
    return frozenset(ALL)


def granted(security: Mapping[str, Any], available: frozenset[str]) -> tuple[str, ...]:
    """The container's capabilities. Raises CreateContainerConfigError for one that is asked for and cannot be had."""
    if security.get("privileged"):
        return tuple(name for name in ALL if name in available)
    changes = security.get("capabilities") or {}
    add, drop = _names(changes.get("add")), _names(changes.get("drop"))
    if unknown := sorted(add - {*ALL, "CAP_ALL"}):
        raise missing(f"there is no capability {', '.join(unknown)}")
    if lacking := sorted(add - available - {"CAP_ALL"}):
        raise missing(f"{', '.join(lacking)} cannot be given, for isoplane runs without it itself")
    kept = set() if "CAP_ALL" in drop else set(DEFAULT) - drop
    return tuple(name for name in ALL if name in available and (name in kept or name in add or "CAP_ALL" in add))


def _names(listed: Any) -> set[str]:
    return {f"CAP_{str(name).upper().removeprefix('CAP_')}" for name in listed or ()}
