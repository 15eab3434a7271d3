"""After a restart of the plane, or of the host: finish or clear what was half done, find again what still runs."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from isoplane.node import procfs, trees
from isoplane.node.runtime.oci import cgroups, processes, sandbox
from isoplane.node.runtime.oci.launch import Starter
from isoplane.node.runtime.oci.layout import Layout, read_json, write_json
from isoplane.node.runtime.oci.observe import Look, look
from isoplane.node.runtime.oci.relocate import relocate
from isoplane.node.runtime.protocol import RuntimeFailure
from isoplane.workload.shape import ALIVE, UnitState

_LOST = 255
_PATIENCE = 10.0


def boot_id() -> str:
    """Names the present boot of the host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def recover(layout: Layout, starter: Starter) -> list[tuple[str, Look]]:
    """Put everything into a state that can be told; returns what lives, with its workload's uid."""
    for grave in layout.trash.iterdir():
        trees.remove_tree(grave)
    _after_boot(layout)
    relocate(layout)
    for left in layout.bundles.glob("*/exec-*"):
        left.unlink()
    alive = []
    for uid, attempt in list(layout.everything()):
        found = look(layout, attempt)
        container_id = str(found.record.get("id") or layout.container_id(uid, attempt.unit, attempt.number))
        if found.state is UnitState.CREATED:
            processes.wait_pid(attempt.pid, attempt.lock, _PATIENCE)
            found = look(layout, attempt)
        if found.state is UnitState.ABSENT:
            starter.clear(attempt, container_id)
            cgroups.remove(layout.cgroup(uid, attempt.unit, attempt.number))
            continue
        if found.state is UnitState.CREATED and not (layout.state / container_id).exists():
            # Somebody unmounted the memory with what the low-level runtime knew: it can neither be started nor steered.
            sandbox.kill(layout.cgroup(uid, attempt.unit, attempt.number))
            processes.wait_conmon(attempt.lock, attempt.conmon_pid, container_id, _PATIENCE)
            continue
        if found.state in ALIVE and not attempt.process.exists() and found.pid:
            write_json(attempt.process, {"pid": found.pid, "startTicks": procfs.start_ticks(found.pid)})
        if found.state is UnitState.CREATED:
            # One that cannot be started ends, and the controller sees that.
            with contextlib.suppress(RuntimeFailure):
                starter.launcher.isolated(lambda a=attempt, i=container_id: starter.release(a, i))  # type: ignore[misc]
            found = look(layout, attempt)
        if found.state in ALIVE:
            alive.append((uid, found))
    _clear_unknown(layout, starter)
    return alive


def _clear_unknown(layout: Layout, starter: Starter) -> None:
    """What belongs to no sandbox: an interrupted probe, a sandbox whose directory somebody deleted."""
    known = {str((read_json(attempt.record) or {}).get("id")) for _, attempt in layout.everything()}
    for path in list(layout.state.iterdir()):
        if path.name not in known:
            starter.delete(path.name)
    for path in list(layout.bundles.iterdir()):
        if path.name not in known:
            trees.remove_tree(path)
    for name in cgroups.names_below(layout.parent_cgroup) - set(layout.uids()):
        sandbox.kill(f"{layout.parent_cgroup}/{name}")
        cgroups.remove(f"{layout.parent_cgroup}/{name}")
    if not layout.uids():
        cgroups.remove_empty_parents(layout.parent_cgroup)


def _after_boot(layout: Layout) -> None:
    """Containers of an earlier boot are gone, whatever their files say."""
    now = boot_id()
    before = layout.boot.read_text() if layout.boot.exists() else ""
    if before == now:
        return
    if before:
        for uid, attempt in list(layout.everything()):
            layout.sandbox(uid).unlink(missing_ok=True)
            record = read_json(attempt.record) or {}
            if not attempt.final.exists() and not (layout.exits / str(record.get("id"))).exists():
                write_json(
                    attempt.final,
                    {
                        "exitCode": _LOST,
                        "reason": "Unknown",
                        "message": "the host was restarted",
                        "finishedAt": attempt.pid.stat().st_mtime if attempt.pid.exists() else 0,
                    },
                )
        shutil.rmtree(layout.state, ignore_errors=True)
        layout.state.mkdir(mode=0o700, exist_ok=True)
    layout.boot.write_text(now)
