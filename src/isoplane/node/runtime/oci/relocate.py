"""What an earlier version left on the disk and now lies in memory: moved there when the runtime starts, while containers run.

That is the low-level runtime's state and each container's config.json.  A copy becomes whole before the old one goes, so
that a start which is killed in between is finished by the next one.  What was deleted may stay in the disk's free blocks
until they are written again.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from isoplane.node import trees
from isoplane.node.formats import CONTAINER_START
from isoplane.node.runtime.oci import cgroups, processes, sandbox
from isoplane.node.runtime.oci.layout import Attempt, Layout, read_json, write_json

_PATIENCE = 10.0


def relocate(layout: Layout) -> None:
    """Move it all. Raises OSError."""
    earlier = layout.root / "state"
    for uid, attempt in list(layout.everything()):
        record = read_json(attempt.record) or {}
        container_id = str(record.get("id") or layout.container_id(uid, attempt.unit, attempt.number))
        if (earlier / container_id / "exec.fifo").exists():
            _give_up(layout, uid, attempt, container_id)
            continue
        config = attempt.directory / "config.json"
        if config.exists():
            layout.bundle(container_id).mkdir(mode=0o700, exist_ok=True)
            shutil.copyfile(config, layout.config(container_id))
            config.unlink()
        for left in attempt.directory.glob("exec-*.json"):
            left.unlink()
        if record and record.get("format", 1) == 1:
            write_json(attempt.record, CONTAINER_START.stamp(CONTAINER_START.read(record)))
    if not earlier.is_dir():
        return
    for state in earlier.iterdir():
        if state.is_dir() and not (layout.state / state.name).exists():
            _copy(state, layout.state / state.name)
    trees.remove_tree(earlier)


def _copy(state: Path, target: Path) -> None:
    half = target.with_name(target.name + ".new")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(mode=0o700)
    for path in state.iterdir():
        if path.is_file():
            shutil.copyfile(path, half / path.name)
    half.rename(target)


def _give_up(layout: Layout, uid: str, attempt: Attempt, container_id: str) -> None:
    """A container that was created and not started waits at a FIFO, which cannot be moved: its start is made again."""
    group = layout.cgroup(uid, attempt.unit, attempt.number)
    sandbox.kill(group)
    processes.wait_conmon(attempt.lock, attempt.conmon_pid, container_id, _PATIENCE)
    cgroups.remove(group)
    (layout.exits / container_id).unlink(missing_ok=True)
    shutil.rmtree(layout.root / "state" / container_id, ignore_errors=True)
    trees.remove_tree(attempt.directory)
