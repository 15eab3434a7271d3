"""Where everything of the OCI runtime lies, and how its records are written and read.

    oci/boot                                    which boot of the host the rest is about
    oci/memory/                                 a file system in memory: what holds Secrets, and must not reach a disk
    oci/memory/state/                           the low-level runtime's own state (--root), config.json copied in it
    oci/memory/bundles/<container id>/          config.json, mounted.json, and the processes executed in the container
    oci/exits/<container id>                    exit codes, written by conmon
    oci/trash/                                  what is being deleted
    oci/pods/<uid>/sandbox.json                 written last by prepare: who it is, where it is plugged in
    oci/pods/<uid>/etc/                         in memory: the small files that its containers write
    oci/pods/<uid>/volumes/  shm/               what its containers share
    oci/pods/<uid>/units/<unit>/<attempt>/      one start of one container (see :class:`Attempt`)

A record is one JSON file, replaced atomically.  Nothing here is synced to the disk: after a crash of the plane the kernel
still has it, and after a crash of the host nothing runs that it could describe.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isoplane.node import mounting

SMALL_FILES = "etc"
"""Of a sandbox: the file system in memory for /etc/hosts, /etc/hostname, /etc/resolv.conf and termination messages."""
MEMORY = "mode=700,size=10%"
"""Of the host's memory, at most: a container takes as much as its environment and command line, twice."""


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a record atomically."""
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(value))
    os.replace(temporary, path)


def read_json(path: Path) -> dict[str, Any] | None:
    """A record, or None when it is not there or not whole."""
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return value if isinstance(value, dict) else None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One start of one container.

    record.json  written before anything starts: the container's id and which image it is of
    lock         held by conmon from its birth
    pid          the container's first process, by conmon;  process.json: the same with its start time
    hooked.json  that its postStart hook has ended, and what was wrong with it
    log, log.1…  its output;  final.json: how it ended
    """

    directory: Path
    unit: str
    number: int

    @property
    def record(self) -> Path:
        return self.directory / "record.json"

    @property
    def lock(self) -> Path:
        return self.directory / "lock"

    @property
    def pid(self) -> Path:
        return self.directory / "pid"

    @property
    def conmon_pid(self) -> Path:
        return self.directory / "conmon.pid"

    @property
    def process(self) -> Path:
        return self.directory / "process.json"

    @property
    def hooked(self) -> Path:
        return self.directory / "hooked.json"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def logs(self) -> list[Path]:
        """Its log and the rotated ones that are there."""
        return [self.log, *self.directory.glob("log.*")]

    @property
    def message(self) -> Path:
        """Its termination message: with the other small files that containers write, in memory of a bounded size."""
        return self.directory.parents[2] / SMALL_FILES / f"message-{self.unit}-{self.number}"

    @property
    def earlier_message(self) -> Path:
        """Where that of a container lies that an earlier version started."""
        return self.directory / "message"

    @property
    def final(self) -> Path:
        return self.directory / "final.json"

    @property
    def rootfs(self) -> Path:
        return self.directory / "rootfs"


class Layout:
    """The directories of one runtime instance. ``plane`` tells apart what several instances put into shared places."""

    def __init__(self, data_dir: Path) -> None:
        self.root = data_dir.resolve() / "oci"
        self.plane = hashlib.sha256(str(self.root).encode()).hexdigest()[:8]
        self.memory = self.root / "memory"
        self.state = self.memory / "state"
        self.bundles = self.memory / "bundles"
        self.exits = self.root / "exits"
        self.trash = self.root / "trash"
        self.pods = self.root / "pods"
        self.boot = self.root / "boot"

    @property
    def parent_cgroup(self) -> str:
        """What all cgroups of this instance are below."""
        return f"/isoplane/{self.plane}"

    def create(self) -> None:
        """Make the directories. Raises OSError, also where nothing can be mounted."""
        for path in (self.root, self.exits, self.trash, self.pods):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        mounting.in_memory(self.memory, MEMORY)
        for path in (self.state, self.bundles):
            path.mkdir(mode=0o700, exist_ok=True)

    def leave(self) -> None:
        """Once no sandbox is left, give back the memory."""
        if not self.uids() and os.path.ismount(self.memory):
            mounting.leave_memory(self.memory)

    def bundle(self, container_id: str) -> Path:
        return self.bundles / container_id

    def mounted(self, container_id: str) -> Path:
        """Which volumes its mounts are: see ``guarded``."""
        return self.bundle(container_id) / "mounted.json"

    def config(self, container_id: str) -> Path:
        """What the low-level runtime is told of a container: its environment with its Secrets, too."""
        return self.bundle(container_id) / "config.json"

    def pod(self, uid: str) -> Path:
        """A sandbox's directory. Raises ValueError for what could leave it."""
        if not uid or "/" in uid or uid in (".", ".."):
            raise ValueError(f"{uid!r} is not a workload's uid")
        return self.pods / uid

    def sandbox(self, uid: str) -> Path:
        return self.pod(uid) / "sandbox.json"

    def attempt(self, uid: str, unit: str, number: int) -> Attempt:
        return Attempt(self.pod(uid) / "units" / unit / str(number), unit, number)

    def attempts(self, uid: str, unit: str) -> list[Attempt]:
        """All starts of a unit that left something, in order."""
        directory = self.pod(uid) / "units" / unit
        try:
            numbers = sorted(int(name) for name in os.listdir(directory) if name.isdigit())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [self.attempt(uid, unit, number) for number in numbers]

    def units(self, uid: str) -> list[str]:
        try:
            return sorted(os.listdir(self.pod(uid) / "units"))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def uids(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            return sorted(os.listdir(self.pods))
        return []

    def everything(self) -> Iterator[tuple[str, Attempt]]:
        """Every attempt of every sandbox."""
        for uid in self.uids():
            for unit in self.units(uid):
                for attempt in self.attempts(uid, unit):
                    yield uid, attempt

    def container_id(self, uid: str, unit: str, number: int) -> str:
        """The low-level runtime's name for one attempt: unique, and the same whenever it is asked for."""
        return hashlib.sha256(f"{self.plane}/{uid}/{unit}/{number}".encode()).hexdigest()[:32]

    def cgroup(self, uid: str, unit: str = "", number: int = 0) -> str:
        """The cgroup of a sandbox, or of one attempt in it, from the hierarchy's root."""
        path = f"{self.parent_cgroup}/{uid}"
        return f"{path}/{unit}.{number}" if unit else path
