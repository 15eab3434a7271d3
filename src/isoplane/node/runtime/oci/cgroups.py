"""Control groups as the runtime leaves them: what they tell of a container, and their removal.

The low-level runtime makes and configures them; here they are read (OOM kills, frozen or not) and removed, in all v1
hierarchies and in the unified one alike.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PERIOD = 100_000


def unified_only() -> bool:
    """Whether the host has version 2 alone."""
    return (_ROOT / "cgroup.controllers").exists()


def hybrid_mount() -> Path | None:
    """Where a host with version 1 has an (empty) version 2 hierarchy beside it; None when it has not."""
    path = _ROOT / "unified"
    return path if (path / "cgroup.controllers").exists() else None


def _hierarchies() -> list[Path]:
    if unified_only():
        return [_ROOT]
    with contextlib.suppress(OSError):
        found = [Path(entry.path) for entry in os.scandir(_ROOT) if entry.is_dir(follow_symlinks=False)]
        return [path for path in found if (path / "cgroup.procs").exists()]
    return []


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def oom_kills(cgroup: str) -> int:
    """How many processes of this cgroup the kernel killed for want of memory. 0 when it does not exist."""
    text = _read(_ROOT / f"memory{cgroup}" / "memory.oom_control") or _read(_ROOT / cgroup[1:] / "memory.events")
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == "oom_kill":
            return int(value)
    return 0


def limit(cgroup: str, cpu: int, memory: int) -> None:
    """Make the cgroup of a sandbox with limits for all containers in it: millicores and bytes, 0 for none. Raises OSError."""
    quota = max(1000, cpu * _PERIOD // 1000)
    if unified_only():
        path = _ROOT / cgroup[1:]
        path.mkdir(parents=True, exist_ok=True)
        for above in (_ROOT, *reversed([p for p in path.parents if _ROOT in p.parents])):
            (above / "cgroup.subtree_control").write_text("+cpu +memory")
        if memory:
            (path / "memory.max").write_text(str(memory))
        if cpu:
            (path / "cpu.max").write_text(f"{quota} {_PERIOD}")
        return
    if memory:
        path = _ROOT / f"memory{cgroup}"
        path.mkdir(parents=True, exist_ok=True)
        (path / "memory.limit_in_bytes").write_text(str(memory))
    if cpu:
        path = _ROOT / f"cpu{cgroup}"
        path.mkdir(parents=True, exist_ok=True)
        (path / "cpu.cfs_period_us").write_text(str(_PERIOD))
        (path / "cpu.cfs_quota_us").write_text(str(quota))


def frozen(cgroup: str) -> bool:
    """Whether its processes are paused."""
    if unified_only():
        return _read(_ROOT / cgroup[1:] / "cgroup.freeze").strip() == "1"
    return _read(_ROOT / f"freezer{cgroup}" / "freezer.state").strip() in ("FROZEN", "FREEZING")


def thaw(cgroup: str) -> None:
    """Let its processes go on, so that a signal reaches them."""
    with contextlib.suppress(OSError):
        if unified_only():
            (_ROOT / cgroup[1:] / "cgroup.freeze").write_text("0")
        else:
            (_ROOT / f"freezer{cgroup}" / "freezer.state").write_text("THAWED")


def processes(cgroup: str) -> set[int]:
    """Every process in it or below it, whatever the hierarchy."""
    found: set[int] = set()
    for hierarchy in _hierarchies():
        for directory, _, _ in os.walk(hierarchy / cgroup[1:]):
            found.update(int(pid) for pid in _read(Path(directory) / "cgroup.procs").split())
    return found


def remove(cgroup: str) -> bool:
    """Remove it and everything below it. False while a process is left in it."""
    gone = True
    for hierarchy in _hierarchies():
        top = hierarchy / cgroup[1:]
        for directory, _, _ in os.walk(top, topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(directory)
        gone = gone and not top.exists()
    return gone


def remove_empty_parents(cgroup: str) -> None:
    """Remove a cgroup that nothing is below any more, and so on upwards."""
    for hierarchy in _hierarchies():
        for path in (hierarchy / cgroup[1:], *(hierarchy / cgroup[1:]).parents):
            if path == hierarchy:
                break
            with contextlib.suppress(OSError):
                os.rmdir(path)


def names_below(cgroup: str) -> set[str]:
    """The names of the cgroups directly below, in any hierarchy."""
    found: set[str] = set()
    for hierarchy in _hierarchies():
        with contextlib.suppress(OSError):
            found.update(e.name for e in os.scandir(hierarchy / cgroup[1:]) if e.is_dir(follow_symlinks=False))
    return found


def children(cgroup: str) -> list[str]:
    """The cgroup and every one below it, in the hierarchy that freezes."""
    top = _ROOT if unified_only() else _ROOT / "freezer"
    return ["/" + str(Path(directory).relative_to(top)) for directory, _, _ in os.walk(top / cgroup[1:])]
