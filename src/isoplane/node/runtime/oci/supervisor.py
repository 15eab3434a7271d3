"""What is done to the containers of one sandbox, and seen of them: the blocking half of the runtime, one call at a time.

Called on the launcher's threads.  Who may do what at the same time is decided by ``runtime``; what is on the disk is said in
``layout``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence

from isoplane.node import procfs, trees
from isoplane.node.images import Image
from isoplane.node.runtime import usage
from isoplane.node.runtime.oci import cgroups, container, hooks, logs, processes, sandbox, volumes
from isoplane.node.runtime.oci.environment import Facts
from isoplane.node.runtime.oci.launch import Launch, Starter
from isoplane.node.runtime.oci.launcher import CommandFailure, Launcher
from isoplane.node.runtime.oci.layout import Attempt, Layout, write_json
from isoplane.node.runtime.oci.observe import Look, look, observe_unit, settle
from isoplane.node.runtime.oci.projects import Projects
from isoplane.node.runtime.oci.recover import recover
from isoplane.node.runtime.protocol import RuntimeFailure, RuntimeReason
from isoplane.workload.eviction import StorageUse
from isoplane.workload.shape import ALIVE, Observed, Unit, UnitState

LOG_FILES = 5
"""How many files of a log are kept: the kubelet's default."""


class Supervisor:
    """Starts, signals, pauses and observes containers."""

    def __init__(self, layout: Layout, launcher: Launcher) -> None:
        self._layout = layout
        self._launcher = launcher
        self._projects = Projects(layout.pods)
        self._starter = Starter(launcher, layout, self._projects)

    def prepare(self, facts: Facts) -> None:
        """Make what the containers share. Raises RuntimeFailure."""
        sandbox.prepare(self._layout, facts, self._projects)

    def refresh(self, facts: Facts) -> None:
        """Bring the files of a prepared sandbox's volumes up to their objects. Raises RuntimeFailure."""
        uid = facts.workload.uid
        if sandbox.is_prepared(sandbox.record(self._layout, uid)):
            volumes.refresh(self._layout.pod(uid) / "volumes", facts)

    def remove(self, uid: str) -> None:
        """Remove every trace of a sandbox. Raises RuntimeFailure."""
        sandbox.remove(self._layout, self._starter, uid)

    def recover(self) -> list[tuple[str, Look]]:
        """After a restart: what lives, with its workload's uid."""
        return recover(self._layout, self._starter)

    def start_unit(self, facts: Facts, unit: Unit, number: int, image: Image) -> Look:
        uid = facts.workload.uid
        if not sandbox.is_prepared(sandbox.record(self._layout, uid)):
            raise RuntimeFailure(RuntimeReason.SANDBOX, f"the sandbox of {facts.workload.key} is not prepared")
        earlier = []
        for attempt in self._layout.attempts(uid, unit.name):
            found = look(self._layout, attempt)
            container_id = str(found.record.get("id") or self._layout.container_id(uid, unit.name, attempt.number))
            if found.state is UnitState.ABSENT:
                self._starter.clear(attempt, container_id)
            elif attempt.number >= number:
                if found.state is UnitState.CREATED:
                    processes.wait_pid(attempt.pid, attempt.lock, 10.0)
                    self._launch_again(found, container_id)
                return look(self._layout, attempt)
            elif found.state in ALIVE:
                message = (
                    f"container {unit.name!r}: attempt {attempt.number} still runs; {number} cannot start beside it"
                )
                raise RuntimeFailure(RuntimeReason.RUN, message)
            else:
                earlier.append(found)
        self._tidy(uid, earlier, number)
        attempt = self._layout.attempt(uid, unit.name, number)
        try:
            described = container.describe(
                unit,
                image,
                facts,
                pod=self._layout.pod(uid),
                message=attempt.message,
                cgroup=self._layout.cgroup(uid, unit.name, number),
                unified=cgroups.unified_only(),
            )
        except RuntimeFailure as failure:
            raise RuntimeFailure(failure.reason, f"container {unit.name!r}: {failure.message}") from None
        self._starter.start(
            Launch(
                uid=uid,
                attempt=attempt,
                container_id=self._layout.container_id(uid, unit.name, number),
                asked=unit.image,
                image=image,
                container=described,
                stop_signal=str((unit.recipe.get("lifecycle") or {}).get("stopSignal") or image.config.stop_signal),
                stdin=bool(unit.recipe.get("stdin")),
                post_start=hooks.declared(unit.recipe, "postStart", facts.address),
                pre_stop=hooks.declared(unit.recipe, "preStop", facts.address),
                storage_limit=unit.storage_limit,
                log_fallback=unit.recipe.get("terminationMessagePolicy") == "FallbackToLogsOnError",
            )
        )
        return look(self._layout, attempt)

    def _launch_again(self, found: Look, container_id: str) -> None:
        self._launcher.isolated(lambda: self._starter.release(found.attempt, container_id))

    def _tidy(self, uid: str, earlier: Sequence[Look], number: int) -> None:
        """Of ended attempts the last keeps its log and how it ended; all lose their file systems and cgroups."""
        for found in earlier:
            attempt = found.attempt
            settle(self._layout, found)
            container_id = str(found.record.get("id"))
            processes.wait_conmon(attempt.lock, attempt.conmon_pid, container_id, 10.0)
            self._starter.delete(container_id)
            cgroups.remove(self._layout.cgroup(uid, attempt.unit, attempt.number))
            (self._layout.exits / container_id).unlink(missing_ok=True)
            if attempt.final.exists():  # which has what it says
                attempt.message.unlink(missing_ok=True)
            self._projects.release([attempt.directory / "upper"])
            if found is earlier[-1]:
                for name in ("upper", "work", "rootfs"):
                    trees.remove_tree(attempt.directory / name)
            else:
                trees.remove_tree(attempt.directory)

    def observe(self, uid: str) -> Observed | None:
        if not self._layout.pod(uid).exists():
            return None
        known = sandbox.record(self._layout, uid)
        units = {unit: observe_unit(self._layout, uid, unit) for unit in self._layout.units(uid)}
        return Observed(
            uid=uid,
            namespace=str(known.get("namespace") or ""),
            name=str(known.get("name") or ""),
            prepared=sandbox.is_prepared(known),
            units={name: unit for name, unit in units.items() if unit.state is not UnitState.ABSENT},
            addresses=tuple(str(one) for one in known.get("addresses") or ()),
        )

    def observe_all(self) -> list[Observed]:
        return [found for uid in self._layout.uids() if (found := self.observe(uid)) is not None]

    def storage(self, uid: str, empty_dirs: Iterable[str]) -> StorageUse:
        """What a sandbox takes of the disk: what containers wrote, their logs, its volumes. What lies in memory is none."""
        pod = self._layout.pod(uid)
        volumes = {name: pod / "volumes" / name for name in empty_dirs}
        volumes = {name: path for name, path in volumes.items() if not os.path.ismount(path)}
        written = {
            unit: [path for a in self._layout.attempts(uid, unit) for path in (a.directory / "upper", *a.logs)]
            for unit in self._layout.units(uid)
        }
        found = usage.measure([*volumes.values(), *(path for paths in written.values() for path in paths)])
        return StorageUse(
            {unit: sum(found.get(path, 0) for path in paths) for unit, paths in written.items()},
            {name: found.get(path, 0) for name, path in volumes.items()},
        )

    def latest(self, uid: str, unit: str) -> Look | None:
        for attempt in reversed(self._layout.attempts(uid, unit)):
            found = look(self._layout, attempt)
            if found.state is not UnitState.ABSENT:
                return found
        return None

    def hook_ended(self, attempt: Attempt, failure: str) -> None:
        """Note that an attempt's postStart hook has ended, and why it failed ('' when it did not)."""
        # The sandbox may have been removed meanwhile; nobody asks then.
        with contextlib.suppress(FileNotFoundError):
            write_json(attempt.hooked, {"failure": failure})

    def running(self, uid: str, unit: str) -> Look:
        found = self.latest(uid, unit)
        if found is None or found.state is not UnitState.RUNNING:
            state = found.state.value.lower() if found else "absent"
            raise RuntimeFailure(RuntimeReason.RUN, f"container {unit!r} of sandbox {uid} is not running but {state}")
        return found

    def send(self, uid: str, unit: str, kill: bool) -> bool:
        """Signal the unit; False while it is being created and has no process yet."""
        found = self.latest(uid, unit)
        if found is None or found.state not in ALIVE:
            return True
        if not found.pid:
            return False
        if kill or found.state is UnitState.CREATED:
            # Before its start line a container handles no signal, and a frozen one not even this.
            procfs.send(found.pid, processes.signal_number("KILL"))
            cgroups.thaw(str(found.record.get("cgroup")))
        else:
            procfs.send(found.pid, processes.signal_number(str(found.record.get("stopSignal") or "TERM")))
        return True

    def pause(self, uid: str, unit: str, paused: bool) -> None:
        found = self.latest(uid, unit)
        wanted = UnitState.RUNNING if paused else UnitState.PAUSED
        if found is None or found.state is not wanted:
            return
        command, launcher = "pause" if paused else "resume", self._launcher
        try:
            launcher.isolated(lambda: launcher.run(command, str(found.record.get("id"))))
        except CommandFailure as error:
            raise RuntimeFailure(RuntimeReason.RUN, f"container {unit!r} could not {command}: {error}") from None

    def rotate(self, size: int) -> None:
        for uid in self._layout.uids():
            for unit in self._layout.units(uid):
                for attempt in self._layout.attempts(uid, unit)[-1:]:
                    # conmon listens in its bundle; one that an earlier version started, beside the log.
                    bundle = self._layout.bundle(self._layout.container_id(uid, unit, attempt.number))
                    listens = bundle if (bundle / "ctl").exists() else attempt.directory
                    logs.rotate(listens, attempt.log, size, LOG_FILES)
