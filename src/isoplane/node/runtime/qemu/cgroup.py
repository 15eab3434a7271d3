"""Limits of a machine's process: a control group ``/isoplane/qemu-<plane>/<uid>`` in each hierarchy, cgroup v1 or v2.

``<plane>`` stands for the data directory, so that several planes on one host keep out of each other's way.

QEMU is put in before it runs, by the shell that becomes it, so that the guest's memory is charged from the first page.
A user without write access to the hierarchies runs machines without limits, and the machine's details say so.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

PARENT = "isoplane"
_PERIOD_US = 100_000
_MIN_QUOTA_US = 1000
"""The kernel's least, and what containers get too: ``1m`` is less."""
PIDS_LIMIT = 4096
"""Threads of one QEMU: far more than its CPUs and its disks' workers need, far less than the host has numbers."""
_REMOVE_ATTEMPTS = 100
_CPUS = os.cpu_count() or 1
_WANTED = ("memory", "cpu", "pids")


@functools.cache
def hierarchies() -> dict[str, Path]:
    """Controller → mount point for v1, or ``{"": mount point}`` for the unified v2. Empty when none can be written to."""
    v1: dict[str, Path] = {}
    v2: dict[str, Path] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, tail = line.partition(" - ")
        kind, _, options = tail.split(" ", 2)
        where = Path(fields.split()[4])
        if not os.access(where, os.W_OK):
            continue
        if kind == "cgroup":
            v1.update({name: where for name in _WANTED if name in options.split(",")})
        elif kind == "cgroup2" and "memory" in (where / "cgroup.controllers").read_text().split():
            v2[""] = where
    return v1 or v2


@dataclass(frozen=True, slots=True)
class Limits:
    """0 is unlimited. ``cpu_request`` and ``cpu_limit`` in millicores, memory in bytes."""

    cpu_request: int = 0
    cpu_limit: int = 0
    memory_limit: int = 0


def parents(machines: Path) -> dict[str, Path]:
    """Controller → the group that holds those of all machines in a directory."""
    plane = hashlib.sha256(os.fsencode(machines)).hexdigest()[:12]
    return {name: root / PARENT / f"qemu-{plane}" for name, root in hierarchies().items()}


class Cgroup:
    """The control group of the machine that lives in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self._paths = {name: root / directory.name for name, root in parents(directory.parent).items()}

    @property
    def limited(self) -> bool:
        return bool(self._paths)

    def create(self, limits: Limits) -> list[Path]:
        """Make the groups and set the limits. Returns the files that take a process number. Raises OSError."""
        for name, path in self._paths.items():
            try:
                path.mkdir(parents=True, exist_ok=True)
            except FileNotFoundError:
                # Another plane removed the last group of its own, and with it the common parent, just now.
                path.mkdir(parents=True, exist_ok=True)
            for file, value in _v1(name, path, limits) if name else _v2(path, limits):
                (path / file).write_text(value)
        return [path / "cgroup.procs" for path in self._paths.values()]

    def out_of_memory(self) -> bool:
        """Whether the kernel killed the machine at its memory limit."""
        for name, path in self._paths.items():
            try:
                text = (path / ("memory.oom_control" if name else "memory.events")).read_text()
            except OSError:
                continue
            if any(line.startswith("oom_kill ") and not line.endswith(" 0") for line in text.splitlines()):
                return True
        return False

    async def remove(self) -> None:
        """Kill what is left in the groups and remove them. Raises OSError when a process will not die."""
        for attempt in range(_REMOVE_ATTEMPTS):
            try:
                self._remove()
                return
            except OSError:
                # Busy: what was killed is still on its way out.
                if attempt == _REMOVE_ATTEMPTS - 1:
                    raise
                await asyncio.sleep(0.02)

    def _remove(self) -> None:
        for path in self._paths.values():
            try:
                for pid in (path / "cgroup.procs").read_text().split():
                    os.kill(int(pid), signal.SIGKILL)
                path.rmdir()
            except FileNotFoundError:
                continue
            if not any(entry.is_dir() for entry in path.parent.iterdir()):
                path.parent.rmdir()


def _v1(controller: str, path: Path, limits: Limits) -> list[tuple[str, str]]:
    if controller == "memory":
        return [("memory.limit_in_bytes", str(limits.memory_limit or -1))]
    if controller == "cpu":
        # All workloads together weigh as much as there are CPUs, as the kubelet has it for its pods: without this they
        # would share what one busy process of the host's gets.
        (path.parents[1] / "cpu.shares").write_text(str(1024 * _CPUS))
        quota = _quota(limits) or -1
        return [
            ("cpu.shares", str(max(2, limits.cpu_request * 1024 // 1000) if limits.cpu_request else 1024)),
            ("cpu.cfs_period_us", str(_PERIOD_US)),
            ("cpu.cfs_quota_us", str(quota)),
        ]
    return [("pids.max", str(PIDS_LIMIT))]


def _quota(limits: Limits) -> int:
    """Microseconds of CPU in a period; 0 without a limit."""
    return max(_MIN_QUOTA_US, limits.cpu_limit * _PERIOD_US // 1000) if limits.cpu_limit else 0


def _v2(path: Path, limits: Limits) -> list[tuple[str, str]]:
    for above in (path.parents[2], path.parents[1], path.parent):
        (above / "cgroup.subtree_control").write_text("".join(f"+{name} " for name in _WANTED))
    (path.parents[1] / "cpu.weight").write_text(str(min(10000, 100 * _CPUS)))
    # The kernel's own conversion of v1 shares (2…262144) to v2 weights (1…10000), as runc does it.
    shares = max(2, limits.cpu_request * 1024 // 1000) if limits.cpu_request else 1024
    quota = str(_quota(limits) or "max")
    return [
        ("memory.max", str(limits.memory_limit or "max")),
        ("cpu.weight", str(1 + (shares - 2) * 9999 // 262142)),
        ("cpu.max", f"{quota} {_PERIOD_US}"),
        ("pids.max", str(PIDS_LIMIT)),
    ]
