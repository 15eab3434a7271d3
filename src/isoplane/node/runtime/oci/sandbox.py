"""What the containers of one workload share, made before the first of them and removed after the last. Blocking."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isoplane.node import mounting, procfs, trees
from isoplane.node.formats import CONTAINER_SANDBOX
from isoplane.node.runtime.oci import cgroups, kernel, processes, volumes
from isoplane.node.runtime.oci.environment import Facts
from isoplane.node.runtime.oci.launch import Starter
from isoplane.node.runtime.oci.layout import SMALL_FILES, Attempt, Layout, read_json, write_json
from isoplane.node.runtime.oci.projects import Projects
from isoplane.node.runtime.protocol import RuntimeFailure, RuntimeReason
from isoplane.objects import quantity
from isoplane.workload.eviction import volume_limits

_ETC = "mode=755,size=4m"
_SHM = "mode=1777,size=65536k"
_PATIENCE = 10.0


def prepare(layout: Layout, facts: Facts, projects: Projects) -> None:
    """Volumes, /etc files, shared IPC; at last the record that says it is all there. Raises RuntimeFailure."""
    workload, network = facts.workload, facts.materials.network
    if network.netns and not Path(network.netns).exists():
        raise RuntimeFailure(
            RuntimeReason.SANDBOX,
            f"network namespace {network.netns} of {workload.key} does not exist: plug it in first",
        )
    try:
        directory = layout.pod(workload.uid)
        directory.mkdir(mode=0o711, parents=True, exist_ok=True)
        volumes.materialise(directory / "volumes", facts)
        for name, size in volume_limits(workload).items():
            projects.limit([directory / "volumes" / name], quantity.whole(size))
        cgroups.limit(layout.cgroup(workload.uid), workload.cpu_limit, workload.memory_limit)
        _small_files(directory / SMALL_FILES)
        volumes.write_network_files(directory / SMALL_FILES, facts)
        if len(workload.units) > 1 and not workload.recipe.get("hostIPC"):
            _share_ipc(directory)
        write_json(
            layout.sandbox(workload.uid),
            CONTAINER_SANDBOX.stamp(
                {
                    "uid": workload.uid,
                    "namespace": workload.namespace,
                    "name": workload.name,
                    "netns": network.netns,
                    "addresses": list(facts.addresses),
                    "grace": workload.grace_seconds,
                }
            ),
        )
    except (OSError, ValueError) as error:
        raise RuntimeFailure(RuntimeReason.SANDBOX, f"sandbox of {workload.key} could not be made: {error}") from None


def record(layout: Layout, uid: str) -> Mapping[str, Any]:
    found = read_json(layout.sandbox(uid))
    return CONTAINER_SANDBOX.read(found) if found else {}


def is_prepared(found: Mapping[str, Any]) -> bool:
    """Whether units can be started: the record is there, and so is the network namespace it names."""
    return bool(found) and (not found.get("netns") or Path(str(found["netns"])).exists())


def _small_files(directory: Path) -> None:
    """Where /etc/hosts and its like lie, and termination messages: containers write them, and so fill memory of their own.

    Beyond its size they are told that no space is left; nothing of it reaches the disk.
    """
    directory.mkdir(mode=0o755, exist_ok=True)
    if not os.path.ismount(directory):
        mounting.mount("etc", directory, "tmpfs", mounting.DATA_ONLY, _ETC)


def _share_ipc(directory: Path) -> None:
    """An IPC namespace and /dev/shm for all containers, kept by mounts: no process has to hold them."""
    shm, ipc = directory / "shm", directory / "ipc"
    shm.mkdir(exist_ok=True)
    if not os.path.ismount(shm):
        mounting.mount("shm", shm, "tmpfs", mounting.DATA_ONLY, _SHM)
    if str(ipc) in mounting.mounts_below(directory):
        return
    ipc.touch()
    own = os.open("/proc/thread-self/ns/ipc", os.O_RDONLY | os.O_CLOEXEC)
    try:
        kernel.unshare(kernel.CLONE_NEWIPC)
        try:
            mounting.mount("/proc/thread-self/ns/ipc", ipc, flags=mounting.MS_BIND)
        finally:
            kernel.setns(own, kernel.CLONE_NEWIPC)
    finally:
        os.close(own)


def remove(layout: Layout, starter: Starter, uid: str) -> None:
    """End everything and remove every trace. Raises RuntimeFailure when something cannot be ended; again is harmless."""
    directory = layout.pod(uid)
    if not directory.exists():
        return
    attempts = [attempt for unit in layout.units(uid) for attempt in layout.attempts(uid, unit)]
    ids = {
        a: str((read_json(a.record) or {}).get("id") or layout.container_id(uid, a.unit, a.number)) for a in attempts
    }
    kill(layout.cgroup(uid))
    for attempt, container_id in ids.items():
        if not processes.wait_conmon(attempt.lock, attempt.conmon_pid, container_id, _PATIENCE):
            _kill_supervisor(starter, uid, attempt, container_id)
        starter.delete(container_id)
        (layout.exits / container_id).unlink(missing_ok=True)
    if not cgroups.remove(layout.cgroup(uid)):
        kill(layout.cgroup(uid))
        if not cgroups.remove(layout.cgroup(uid)):
            left = sorted(cgroups.processes(layout.cgroup(uid)))
            raise RuntimeFailure(
                RuntimeReason.SANDBOX, f"sandbox {uid}: processes {left} do not end, not even when killed"
            )
    for point in mounting.mounts_below(directory):
        mounting.unmount(point)
    starter.projects.release([*directory.glob("volumes/*"), *directory.glob("units/*/*/upper")])
    # One rename makes it gone for every observer; the deletion may then take its time.
    grave = Path(tempfile.mkdtemp(dir=layout.trash))
    with contextlib.suppress(FileNotFoundError):
        os.rename(directory, grave / "pod")
    trees.remove_tree(grave)


def kill(cgroup: str) -> None:
    """Kill everything in a cgroup, frozen or not, and wait until it is gone."""
    pids = cgroups.processes(cgroup)
    for path in cgroups.children(cgroup):
        cgroups.thaw(path)
    for pid in pids:
        procfs.send(pid, signal.SIGKILL)
    for pid in pids:
        processes.wait_gone(pid, _PATIENCE)


def _kill_supervisor(starter: Starter, uid: str, attempt: Attempt, container_id: str) -> None:
    """A conmon that outlives its container: it hangs, or its container never came to be."""
    starter.delete(container_id)
    if pid := procfs.read_pid(attempt.conmon_pid):
        procfs.send(pid, signal.SIGKILL)
        processes.wait_gone(pid, _PATIENCE)
    if not processes.wait_conmon(attempt.lock, attempt.conmon_pid, container_id, 1.0):
        raise RuntimeFailure(
            RuntimeReason.SANDBOX,
            f"sandbox {uid}: conmon {pid or '(unknown)'} of container {container_id} does not end",
        )
