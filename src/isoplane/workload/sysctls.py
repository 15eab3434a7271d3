"""Which kernel settings a Pod may change: safe ones, and unsafe ones that the operator allows. Pure.

A node rejects any other Pod when it arrives, and the Pod has failed.
Source: kubernetes pkg/kubelet/sysctl (safe_sysctls.go, allowlist.go), component-helpers node/util/sysctl.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from isoplane.workload.shape import Verdict, Workload

SAFE = frozenset(
    {
        "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
        "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
    }
)  # fmt: skip
"""Each acts within the Pod alone."""
_IPC = ("kernel.sem", "kernel.shm*", "kernel.msg*", "fs.mqueue.*")
_NET = ("net.*",)
_NAME = re.compile(r"[a-z0-9]([-_a-z0-9]*[a-z0-9])?([./][a-z0-9]([-_a-z0-9]*[a-z0-9])?)*", re.IGNORECASE)


def check_pattern(pattern: str) -> None:
    """Raises ValueError unless every setting that a pattern means belongs to a namespace, and so to the Pod."""
    plain = pattern.removesuffix("*").rstrip(".")
    if not _NAME.fullmatch(plain):
        raise ValueError(f"{pattern!r} is neither a sysctl's name nor the start of one with * behind it")
    if not any(_matches(pattern, group) for group in (*_IPC, *_NET)):
        groups = ", ".join((*_IPC, *_NET))
        raise ValueError(f"{pattern!r} would change the whole host: only these belong to a Pod: {groups}")


def forbidden(workload: Workload, allowed: Iterable[str]) -> Verdict | None:
    """Why the node rejects this workload, or None. ``allowed`` are names and patterns that ``check_pattern`` let pass."""
    asked = (workload.recipe.get("securityContext") or {}).get("sysctls")
    patterns = (*SAFE, *allowed)
    for entry in asked or ():
        written = str(entry.get("name") or "")
        name = written.replace("/", ".")
        problem = ""
        if not _NAME.fullmatch(written) or not any(_matches(name, pattern) for pattern in patterns):
            problem = "not allowlisted"
        elif not workload.interface.own and any(_matches(name, group) for group in _NET):
            problem = "not allowed with host net enabled"
        elif workload.recipe.get("hostIPC") and any(_matches(name, group) for group in _IPC):
            problem = "not allowed with host ipc enabled"
        if problem:
            return Verdict("SysctlForbidden", f'forbidden sysctl: "{written}" {problem}')
    return None


def _matches(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
