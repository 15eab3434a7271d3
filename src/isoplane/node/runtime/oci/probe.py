"""Which low-level runtime this host lets start a container: crun where it can, else runc.

A tool's presence says little (crun refuses hosts with both cgroup versions unless one is hidden from it), so each candidate
starts a container of one process that cannot be missing: the runtime itself, on the host's own file system, read-only.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
from pathlib import Path

from isoplane.node import mounting, procfs
from isoplane.node.programs import which
from isoplane.node.runtime.oci import cgroups, processes, spec
from isoplane.node.runtime.oci.launcher import CommandFailure, Launcher, Tools
from isoplane.node.runtime.oci.layout import Layout
from isoplane.node.runtime.protocol import RuntimeFailure, RuntimeReason

log = logging.getLogger(__name__)

CANDIDATES = ("crun", "runc")


def find(layout: Layout, wanted: str | None, threads: int) -> Launcher:
    """The launcher of the first runtime that works. Raises RuntimeFailure saying what is missing or what went wrong."""
    if os.geteuid() != 0:
        raise _impossible("containers need root here: run as root, or choose `--runtime simulated`")
    conmon = which("conmon")
    if conmon is None:
        raise _impossible("conmon is not installed: on Debian, `apt-get install conmon`")
    reasons = []
    for name in (wanted,) if wanted else CANDIDATES:
        path = which(name)
        if path is None:
            reasons.append(f"{name} is not installed")
            continue
        hide = cgroups.hybrid_mount() if Path(name).name == "crun" else None
        launcher = Launcher(Tools(Path(name).name, path, conmon, hide), layout.state, threads)
        try:
            launcher.pool.submit(_try, launcher, layout).result(60)
        except (CommandFailure, OSError, TimeoutError) as error:
            reasons.append(f"{name} starts no container: {error}")
            launcher.close()
            continue
        log.info("low-level runtime: %s%s", path, " (cgroup v2 hidden from it)" if hide else "")
        return launcher
    raise _impossible(f"{'; '.join(reasons)}. On Debian, `apt-get install crun` or `apt-get install runc`")


def _impossible(message: str) -> RuntimeFailure:
    return RuntimeFailure(RuntimeReason.SANDBOX, message)


def _try(launcher: Launcher, layout: Layout) -> None:
    """Create, start and delete a container."""
    name = f"probe-{layout.plane}-{os.getpid()}"
    bundle = layout.trash / name
    bundle.mkdir(mode=0o700, parents=True, exist_ok=True)
    container = spec.Container(
        args=[launcher.tools.runtime_path, "--version"],
        environment={},
        cgroup=f"{layout.cgroup('probe')}-{os.getpid()}",
        hostname="probe",
        netns="",
        memory_limit=64 << 20,
        security={"readOnlyRootFilesystem": True},
    )
    document = spec.document(container)
    # In the host's own root the rest is mounted already.
    document["mounts"] = [mount for mount in document["mounts"] if mount["destination"] in ("/proc", "/dev")]
    (bundle / "config.json").write_text(json.dumps(document))

    def attempt() -> None:
        (bundle / "rootfs").mkdir(exist_ok=True)
        mounting.mount("/", bundle / "rootfs", flags=mounting.MS_BIND | mounting.MS_REC)
        pid_file = bundle / "pid"
        arguments = launcher.arguments("create", "--bundle", str(bundle), "--pid-file", str(pid_file), name)
        # Output of the container goes where that of `create` goes.
        with (bundle / "output").open("wb") as output:
            done = subprocess.run(arguments, stdin=subprocess.DEVNULL, stdout=output, stderr=output, timeout=30)
        if done.returncode != 0:
            raise CommandFailure((bundle / "output").read_text(errors="replace").strip()[-500:])
        launcher.run("start", name)

    try:
        launcher.isolated(attempt)
    finally:
        if (layout.state / name).exists():
            _delete(launcher, name, bundle)
        cgroups.remove(container.cgroup)
        cgroups.remove_empty_parents(layout.parent_cgroup)
        shutil.rmtree(bundle, ignore_errors=True)


def _delete(launcher: Launcher, name: str, bundle: Path) -> None:
    """Kill first and wait: the runtimes' own forced delete waits in steps of 100 ms."""
    pid = procfs.read_pid(bundle / "pid")
    if pid:
        procfs.send(pid, signal.SIGKILL)
        processes.wait_gone(pid, 5.0)
    launcher.isolated(lambda: launcher.run("delete", "--force", name))
