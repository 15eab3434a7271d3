"""From a unit's recipe to the container that config.json describes: everything is resolved, nothing is started."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from isoplane.node.images import Image
from isoplane.node.runtime.oci import capabilities, guarded, users, volumes
from isoplane.node.runtime.oci.environment import Facts, command_line, environment, missing
from isoplane.node.runtime.oci.layout import SMALL_FILES
from isoplane.node.runtime.oci.seccomp import runtime_default
from isoplane.node.runtime.oci.spec import Container, Device, Mount
from isoplane.objects import quantity
from isoplane.workload import impossible
from isoplane.workload.pod import qos_class
from isoplane.workload.shape import Unit, UnitRole, Workload

DEFAULT_PIDS_LIMIT = 4096
"""Processes per container, against fork bombs: the kubelet leaves this to the node's configuration."""
MESSAGE_PATH = "/dev/termination-log"


@lru_cache(maxsize=1)
def host_memory() -> int:
    """Bytes of memory that the host has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def host_cpu() -> int:
    """Millicores that the host has."""
    return (os.cpu_count() or 1) * 1000


def describe(
    unit: Unit, image: Image, facts: Facts, *, pod: Path, message: Path, cgroup: str, unified: bool
) -> Container:
    """The container of one attempt. Raises RuntimeFailure (CreateContainerConfigError)."""
    recipe = unit.recipe
    pod_spec = facts.workload.recipe
    security: Mapping[str, Any] = recipe.get("securityContext") or {}
    pod_security: Mapping[str, Any] = pod_spec.get("securityContext") or {}
    values = environment(unit, image.config.env, facts)
    args = command_line(recipe, image.config.entrypoint, image.config.cmd, values)
    if not args:
        raise missing(f"image {image.reference} names no command: set command or args")
    for path, why in impossible.pod(pod_spec):
        raise missing(f"{path}: {why}")
    privileged = bool(security.get("privileged"))
    mounts = _mounts(unit, facts, pod, message, values, bool(security.get("readOnlyRootFilesystem")))
    guarded.check(mounts, image.rootfs, privileged=privileged)
    granted = capabilities.granted(security, capabilities.own())
    return Container(
        args=args,
        environment=values,
        cgroup=cgroup,
        hostname=volumes.host_name(facts),
        netns=facts.materials.network.netns,
        cwd=str(recipe.get("workingDir") or image.config.working_dir or "/"),
        user=users.resolve(image.config.user, security, pod_security, image.rootfs),
        tty=bool(recipe.get("tty")),
        mounts=mounts,
        security=security,
        capabilities=granted,
        cpu_request=unit.cpu_request,
        cpu_limit=unit.cpu_limit,
        memory_limit=unit.memory_limit,
        pids_limit=DEFAULT_PIDS_LIMIT,
        oom_score=allowed_oom_score(oom_score(unit, facts.workload)),
        ipc=str(pod / "ipc") if (pod / "ipc").exists() else "",
        shm=str(pod / "shm") if (pod / "shm").exists() else "",
        host_pid=bool(pod_spec.get("hostPID")),
        host_ipc=bool(pod_spec.get("hostIPC")),
        cgroup_namespace=unified and not privileged,
        devices=host_devices() if privileged else (),
        sysctls={str(s["name"]): str(s["value"]) for s in pod_security.get("sysctls") or ()},
        seccomp=None if privileged else seccomp_profile(security, pod_security, granted),
    )


def _mounts(
    unit: Unit, facts: Facts, pod: Path, message: Path, values: Mapping[str, str], read_only: bool
) -> list[Mount]:
    own = volumes.mounts_of(unit, pod / "volumes", facts, values)
    targets = {mount.target.rstrip("/") for mount in own}
    managed = [
        Mount(str(pod / SMALL_FILES / name), f"/etc/{name}", read_only)
        for name in ("hosts", "hostname", "resolv.conf")
        if f"/etc/{name}" not in targets
    ]
    said = Mount(str(message), str(unit.recipe.get("terminationMessagePath") or MESSAGE_PATH))
    return [*managed, *own, said]


def seccomp_profile(
    security: Mapping[str, Any], pod_security: Mapping[str, Any], granted: Sequence[str]
) -> Mapping[str, Any] | None:
    """The container's profile, else its Pod's, else RuntimeDefault; None for one that chose to be Unconfined."""
    profile = security.get("seccompProfile") or pod_security.get("seccompProfile") or {}
    kind = str(profile.get("type") or "RuntimeDefault")
    if kind == "RuntimeDefault":
        return runtime_default(granted, os.uname().machine)
    if kind != "Unconfined":
        raise missing(f"seccompProfile {kind} is not supported; use RuntimeDefault or Unconfined")
    return None


def oom_score(unit: Unit, workload: Workload) -> int:
    """Who is killed first when the host runs out of memory: the kubelet's formula, per container.

    What is requested for the Pod as a whole and by none of its containers counts for each in equal parts.  A sidecar goes
    no sooner than the main containers that it serves (KEP-753): the smallest request among theirs counts for it, if larger.
    """
    quality = qos_class(workload.recipe)
    if quality == "BestEffort":
        return 1000
    if quality == "Guaranteed":
        return -997
    stated = ((workload.recipe.get("resources") or {}).get("requests") or {}).get("memory", 0)
    lasting = [other for other in workload.units if other.role is not UnitRole.INIT]
    left = quantity.amount("memory", stated) - sum(other.memory_request for other in lasting)
    own = unit.memory_request
    if unit.role is UnitRole.SIDECAR:
        own = max(own, min(other.memory_request for other in workload.units if other.role is UnitRole.MAIN))
    asked = own + max(0, left) // max(1, len(lasting))
    return min(max(1000 - 1000 * asked // max(1, host_memory()), 3), 999)


def allowed_oom_score(wanted: int) -> int:
    """The score itself, or, where this process may not go below its own, its own."""
    if "CAP_SYS_RESOURCE" in capabilities.own():
        return wanted
    return max(wanted, int(Path("/proc/self/oom_score_adj").read_text()))


def host_devices() -> tuple[Device, ...]:
    """Every device node below /dev, for privileged containers; not terminals, which each container has of its own."""
    found = []
    skipped = {"/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd"}
    for directory, directories, names in os.walk("/dev"):
        directories[:] = [d for d in directories if f"{directory}/{d}" not in skipped]
        for name in names:
            path = f"{directory}/{name}"
            try:
                info = os.lstat(path)
            except OSError:
                continue
            if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode):
                if path in ("/dev/console", "/dev/tty", "/dev/ptmx"):
                    continue
                kind = "c" if stat.S_ISCHR(info.st_mode) else "b"
                major, minor = os.major(info.st_rdev), os.minor(info.st_rdev)
                found.append(Device(path, kind, major, minor, stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid))
    return tuple(found)
