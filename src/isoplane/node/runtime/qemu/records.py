"""What a machine's directory remembers, so that a plane that comes back knows what the one before it did.

``sandbox.json`` is written when everything is prepared; ``run.json`` before QEMU is started and again once it runs;
``end.json`` as soon as it is decided or known how the run ends, *before* QEMU is told to quit.  So whatever moment a
plane dies at, the next one reads the truth: an end with a living process is finished off, a run without a process and
without an end has crashed, a run that never was launched is started again.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from isoplane.node.formats import MACHINE_END, MACHINE_RUN, MACHINE_SANDBOX, Format
from isoplane.node.runtime.qemu.disks import BootFiles, DiskFile, ImageUse


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A prepared machine: whose it is, what it boots from, the addresses and MAC it was given."""

    uid: str
    namespace: str
    name: str
    unit: str
    addresses: tuple[str, ...]
    mac: str
    files: BootFiles

    def lost_its_memory(self, memory: Path) -> bool:
        """Whether a disk that lay in ``memory`` is gone, as after a restart of the host."""
        return any(Path(d.path).parent == memory and not Path(d.path).exists() for d in self.files.disks.values())


@dataclass(frozen=True, slots=True)
class Run:
    """One start. ``launched`` is False while it is not known that QEMU came up. Seconds are POSIX."""

    attempt: int
    accelerator: str
    launched: bool = False
    started_at: float = 0
    pid: int = 0
    limited: bool = True


@dataclass(frozen=True, slots=True)
class End:
    """How the run with the same ``attempt`` ended."""

    attempt: int
    reason: str
    message: str
    graceful: bool
    exit_code: int
    signal: int
    finished_at: float


R = TypeVar("R", Run, End)
_FORMATS: Mapping[type[Sandbox | Run | End], Format] = {Sandbox: MACHINE_SANDBOX, Run: MACHINE_RUN, End: MACHINE_END}


def save(path: Path, record: Sandbox | Run | End) -> None:
    """Write a record in one step: readers see the old one or the new one."""
    temporary = path.with_name(path.name + ".new")
    fields = _FORMATS[type(record)].stamp(dataclasses.asdict(record))
    temporary.write_text(json.dumps(fields, default=dict))
    os.replace(temporary, path)


def load(path: Path, kind: type[R]) -> R | None:
    """A record, or None when it is missing or unreadable (a host that lost power may leave an empty file)."""
    found = _read(path, _FORMATS[kind])
    return None if found is None else _make(kind, found)


def load_sandbox(path: Path) -> Sandbox | None:
    found = _read(path, MACHINE_SANDBOX)
    if found is None:
        return None
    try:
        files = found["files"]
        disks = {name: DiskFile(**disk) for name, disk in files["disks"].items()}
        images = tuple(ImageUse(**image) for image in files["images"])
        boot = BootFiles(**{**files, "disks": disks, "images": images})
        return Sandbox(**{**found, "addresses": tuple(found["addresses"]), "files": boot})
    except (KeyError, TypeError):
        return None


def memory_of(machine: Path) -> Path:
    """Where the disks lie of the machine in this directory that may hold Secrets: in the file system beside ``machines``."""
    return machine.parent.parent / "memory" / machine.name


def relocate(machines: Path) -> None:
    """Move the disks that may hold Secrets, which an earlier version made on the disk, into memory. Raises OSError.

    Those are the raw ones in a machine's own directory.  A QEMU that runs reads on from what it has open: that is gone from
    the disk when it ends.
    """
    for path in machines.glob("*/sandbox.json"):
        sandbox = load_sandbox(path)
        disks = dict(sandbox.files.disks) if sandbox is not None else {}
        moved = {n: d for n, d in disks.items() if d.format == "raw" and Path(d.path).parent == path.parent}
        if sandbox is None or not moved:
            continue
        target = memory_of(path.parent)
        target.mkdir(mode=0o700, exist_ok=True)
        for name, disk in moved.items():
            if Path(disk.path).exists():
                shutil.copyfile(disk.path, target / Path(disk.path).name)
            disks[name] = dataclasses.replace(disk, path=str(target / Path(disk.path).name))
        files = dataclasses.replace(sandbox.files, disks=disks)
        save(path, dataclasses.replace(sandbox, files=files))
        for disk in moved.values():
            Path(disk.path).unlink(missing_ok=True)


def _read(path: Path, format_: Format) -> Mapping[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return format_.read(found) if isinstance(found, dict) else None


def _make(kind: type[R], found: Mapping[str, Any]) -> R | None:
    try:
        return kind(**found)
    except TypeError:
        return None
