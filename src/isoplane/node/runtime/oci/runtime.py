"""The OCI runtime: Pods as containers of crun or runc, each supervised by a conmon that outlives the plane.

This is the Runtime protocol's face; blocking work happens on threads, one sandbox's changes one after another.  It keeps
nothing in memory that it could not read again: see ``layout`` for what is on the disk, ``observe`` for how it is read,
``launch`` for the order in which a container comes to be.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from isoplane.node.images import Image, ImageStore
from isoplane.node.runtime.oci import cgroups, container, logs, probe, processes, sandbox
from isoplane.node.runtime.oci.environment import Facts
from isoplane.node.runtime.oci.exclusive import KeyedLocks
from isoplane.node.runtime.oci.execute import Execution, Executor
from isoplane.node.runtime.oci.launch import Launch, Starter
from isoplane.node.runtime.oci.launcher import CommandFailure, Launcher
from isoplane.node.runtime.oci.layout import Layout
from isoplane.node.runtime.oci.observe import Look, look, observe_unit, settle
from isoplane.node.runtime.oci.recover import recover
from isoplane.node.runtime.oci.watch import Watcher
from isoplane.node.runtime.protocol import ExecResult, Materials, RuntimeFailure, RuntimeReason
from isoplane.workload.shape import Observed, Unit, UnitState, Workload

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

ROTATE_AT = 10 << 20
"""Bytes at which a log is rotated, and how many files of it are kept: the kubelet's defaults."""
LOG_FILES = 5
_ROTATE_PERIOD = 10.0
_ALIVE = (UnitState.CREATED, UnitState.RUNNING, UnitState.PAUSED)


class OciRuntime:
    """Containers below ``data_dir/oci``. ``runtime`` chooses the low-level runtime; None probes for one that works."""

    name = "oci"

    def __init__(
        self,
        data_dir: Path,
        images: ImageStore,
        *,
        runtime: str | None = None,
        threads: int = 8,
        rotate_at: int = ROTATE_AT,
        rotate_period: float = _ROTATE_PERIOD,
    ) -> None:
        self.images = images
        self._layout = Layout(data_dir)
        self._wanted = runtime
        self._threads = threads
        self._rotate_at = rotate_at
        self._rotate_period = rotate_period
        self._locks = KeyedLocks()
        self._callbacks: list[Callable[[str], None]] = []
        self._launcher: Launcher | None = None
        self._watcher: Watcher | None = None
        self._rotation: asyncio.Task[None] | None = None

    # -- life -----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        try:
            await asyncio.to_thread(self._layout.create)
        except OSError as error:
            raise RuntimeFailure(
                RuntimeReason.SANDBOX, f"{self._layout.root} cannot be made: {error.strerror}: choose another --data"
            ) from None
        self._launcher = await asyncio.to_thread(probe.find, self._layout, self._wanted, self._threads)
        self._starter = Starter(self._launcher, self._layout)
        self._executor = Executor(self._launcher)
        self._watcher = Watcher(self._layout.exits, self._changed)
        adopted = await self._on_thread(recover, self._layout, self._starter)
        for uid, found in adopted:
            self._watch(uid, found)
        self._rotation = asyncio.create_task(self._rotate_logs(), name="rotate container logs")

    async def close(self) -> None:
        if self._rotation is not None:
            self._rotation.cancel()
            await asyncio.gather(self._rotation, return_exceptions=True)
            self._rotation = None
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
        if self._launcher is not None:
            launcher, self._launcher = self._launcher, None
            await asyncio.to_thread(launcher.close)

    @property
    def info(self) -> Mapping[str, str]:
        """What was found on the host: ``runtime`` (crun or runc) and its path."""
        tools = self._ready().tools
        return {"runtime": tools.runtime, "path": tools.runtime_path, "conmon": tools.conmon_path}

    def on_change(self, callback: Callable[[str], None]) -> None:
        self._callbacks.append(callback)

    # -- acting -----------------------------------------------------------------------------------------------------------

    async def prepare(self, workload: Workload, materials: Materials) -> None:
        facts = self._facts(workload, materials)
        async with asyncio.TaskGroup() as group:
            # An image that several units use is asked for once; the store shares the work among sandboxes.
            wanted = {(unit.image, _pull_policy(unit)): unit for unit in workload.units}
            pulls = [group.create_task(self._resolve(unit, policy)) for (_, policy), unit in wanted.items()]
        for failure in (result for pull in pulls if isinstance(result := pull.result(), RuntimeFailure)):
            raise failure
        await self._exclusive(workload.uid, sandbox.prepare, self._layout, facts)

    async def start_unit(self, workload: Workload, unit: Unit, attempt: int, materials: Materials) -> None:
        policy = "Never" if _pull_policy(unit) == "Never" else "IfNotPresent"
        image = await self._resolve(unit, policy)
        if isinstance(image, RuntimeFailure):
            raise image
        facts = self._facts(workload, materials)
        found = await self._exclusive(workload.uid, self._start_unit, facts, unit, attempt, image)
        self._watch(workload.uid, found)

    async def stop_unit(self, uid: str, unit: str) -> None:
        await self._signal(uid, unit, kill=False)

    async def kill_unit(self, uid: str, unit: str) -> None:
        await self._signal(uid, unit, kill=True)

    async def pause_unit(self, uid: str, unit: str, paused: bool) -> None:
        await self._exclusive(uid, self._pause, uid, unit, paused)

    async def remove(self, uid: str) -> None:
        await self._exclusive(uid, sandbox.remove, self._layout, self._starter, uid)
        if self._watcher is not None:
            self._watcher.forget(uid)
        if not self._locks and not self._layout.uids():
            # Nothing is being started, and nothing can be meanwhile: this is the event loop.
            cgroups.remove_empty_parents(self._layout.parent_cgroup)

    # -- observing --------------------------------------------------------------------------------------------------------

    async def observe(self, uid: str) -> Observed | None:
        return await asyncio.to_thread(self._observe, uid)

    async def observe_all(self) -> Sequence[Observed]:
        return await asyncio.to_thread(self._observe_all)

    def logs(
        self,
        uid: str,
        unit: str,
        *,
        follow: bool,
        tail_lines: int | None,
        since: float | None,
        previous: bool,
        timestamps: bool,
    ) -> AsyncIterator[bytes]:
        attempts = [a for a in self._layout.attempts(uid, unit) if look(self._layout, a).state is not UnitState.ABSENT]
        if len(attempts) < (2 if previous else 1):
            what = "previous terminated container" if previous else "container that was started"
            raise RuntimeFailure(RuntimeReason.RUN, f"there is no {what} {unit!r} in sandbox {uid}")
        attempt = attempts[-2 if previous else -1]
        return logs.read(
            attempt.log,
            follow=follow and not previous,
            tail=tail_lines,
            decoder=logs.Decoder(since=since, timestamps=timestamps),
            ended=lambda: look(self._layout, attempt).state not in _ALIVE,
        )

    async def exec(self, uid: str, unit: str, command: Sequence[str], timeout: float) -> ExecResult:
        execution = await self.exec_interactive(uid, unit, command, tty=False, stdin=False)
        return await execution.collect(timeout)

    async def exec_interactive(
        self, uid: str, unit: str, command: Sequence[str], *, tty: bool, stdin: bool = True
    ) -> Execution:
        """Run a command inside a unit with its input and output connected: see :class:`Execution`."""
        found = await asyncio.to_thread(self._running, uid, unit)
        return await self._executor.start(found, command, tty=tty, stdin=stdin)

    # -- on threads -------------------------------------------------------------------------------------------------------

    def _start_unit(self, facts: Facts, unit: Unit, number: int, image: Image) -> Look:
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
            elif found.state in _ALIVE:
                message = (
                    f"container {unit.name!r}: attempt {attempt.number} still runs; {number} cannot start beside it"
                )
                raise RuntimeFailure(RuntimeReason.RUN, message)
            else:
                earlier.append(found)
        self._tidy(uid, earlier, number)
        attempt = self._layout.attempt(uid, unit.name, number)
        described = container.describe(
            unit,
            image,
            facts,
            pod=self._layout.pod(uid),
            message=attempt.message,
            cgroup=self._layout.cgroup(uid, unit.name, number),
            unified=cgroups.unified_only(),
        )
        self._starter.start(
            Launch(
                uid=uid,
                attempt=attempt,
                container_id=self._layout.container_id(uid, unit.name, number),
                image=image,
                container=described,
                stop_signal=str((unit.recipe.get("lifecycle") or {}).get("stopSignal") or image.config.stop_signal),
                stdin=bool(unit.recipe.get("stdin")),
                log_fallback=unit.recipe.get("terminationMessagePolicy") == "FallbackToLogsOnError",
            )
        )
        return look(self._layout, attempt)

    def _launch_again(self, found: Look, container_id: str) -> None:
        self._ready().isolated(lambda: self._starter.release(found.attempt, container_id))

    def _tidy(self, uid: str, earlier: Sequence[Look], number: int) -> None:
        """Of ended attempts the last keeps its log and how it ended; all lose their file systems and cgroups."""
        for found in earlier:
            attempt = found.attempt
            settle(self._layout, found)
            processes.wait_unlocked(attempt.lock, 10.0)
            container_id = str(found.record.get("id"))
            self._starter.delete(container_id)
            cgroups.remove(self._layout.cgroup(uid, attempt.unit, attempt.number))
            (self._layout.exits / container_id).unlink(missing_ok=True)
            if found is earlier[-1]:
                for name in ("upper", "work", "rootfs"):
                    shutil.rmtree(attempt.directory / name, ignore_errors=True)
            else:
                shutil.rmtree(attempt.directory, ignore_errors=True)

    def _observe(self, uid: str) -> Observed | None:
        if not self._layout.pod(uid).exists():
            return None
        known = sandbox.record(self._layout, uid)
        units = {unit: observe_unit(self._layout, uid, unit) for unit in self._layout.units(uid)}
        address = str(known.get("address") or "")
        return Observed(
            uid=uid,
            namespace=str(known.get("namespace") or ""),
            name=str(known.get("name") or ""),
            prepared=sandbox.is_prepared(known),
            units={name: unit for name, unit in units.items() if unit.state is not UnitState.ABSENT},
            addresses=(address,) if address else (),
        )

    def _observe_all(self) -> list[Observed]:
        return [found for uid in self._layout.uids() if (found := self._observe(uid)) is not None]

    def _latest(self, uid: str, unit: str) -> Look | None:
        for attempt in reversed(self._layout.attempts(uid, unit)):
            found = look(self._layout, attempt)
            if found.state is not UnitState.ABSENT:
                return found
        return None

    def _running(self, uid: str, unit: str) -> Look:
        found = self._latest(uid, unit)
        if found is None or found.state is not UnitState.RUNNING:
            state = found.state.value.lower() if found else "absent"
            raise RuntimeFailure(RuntimeReason.RUN, f"container {unit!r} of sandbox {uid} is not running but {state}")
        return found

    def _send(self, uid: str, unit: str, kill: bool) -> bool:
        """Signal the unit; False while it is being created and has no process yet."""
        found = self._latest(uid, unit)
        if found is None or found.state not in _ALIVE:
            return True
        if not found.pid:
            return False
        if kill or found.state is UnitState.CREATED:
            # Before its start line a container handles no signal, and a frozen one not even this.
            processes.send(found.pid, processes.signal_number("KILL"))
            cgroups.thaw(str(found.record.get("cgroup")))
        else:
            processes.send(found.pid, processes.signal_number(str(found.record.get("stopSignal") or "TERM")))
        return True

    def _pause(self, uid: str, unit: str, paused: bool) -> None:
        found = self._latest(uid, unit)
        wanted = UnitState.RUNNING if paused else UnitState.PAUSED
        if found is None or found.state is not wanted:
            return
        command, launcher = "pause" if paused else "resume", self._ready()
        try:
            launcher.isolated(lambda: launcher.run(command, str(found.record.get("id"))))
        except CommandFailure as error:
            raise RuntimeFailure(RuntimeReason.RUN, f"container {unit!r} could not {command}: {error}") from None

    def _rotate(self) -> None:
        for uid in self._layout.uids():
            for unit in self._layout.units(uid):
                for attempt in self._layout.attempts(uid, unit)[-1:]:
                    logs.rotate(attempt.directory, attempt.log, self._rotate_at, LOG_FILES)

    # -- plumbing ---------------------------------------------------------------------------------------------------------

    def _ready(self) -> Launcher:
        if self._launcher is None:
            raise RuntimeFailure(RuntimeReason.SANDBOX, "the OCI runtime is not started")
        return self._launcher

    def _facts(self, workload: Workload, materials: Materials) -> Facts:
        address = materials.network.address or (materials.node_address if not materials.network.netns else "")
        return Facts(
            workload=workload,
            materials=materials,
            address=address,
            host_cpu=container.host_cpu(),
            host_memory=container.host_memory(),
            units={unit.name: unit for unit in workload.units},
        )

    async def _resolve(self, unit: Unit, policy: str) -> Image | RuntimeFailure:
        try:
            return await self.images.resolve(unit.image, policy)
        except RuntimeFailure as failure:
            return RuntimeFailure(failure.reason, f"container {unit.name!r}: {failure.message}")

    async def _signal(self, uid: str, unit: str, *, kill: bool) -> None:
        if not await asyncio.to_thread(self._send, uid, unit, kill):
            # It is being created: wait for that, then signal.
            await self._exclusive(uid, self._send, uid, unit, kill)

    async def _on_thread(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._ready().pool, partial(work, *args, **kwargs))

    async def _exclusive(self, uid: str, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking work while nothing else changes this sandbox, to its end even when the caller gives up."""

        async def run() -> T:
            async with self._locks.hold(uid):
                return await self._on_thread(work, *args, **kwargs)

        return await asyncio.shield(asyncio.ensure_future(run()))

    def _watch(self, uid: str, found: Look) -> None:
        if self._watcher is None or found.state not in _ALIVE:
            return
        conmon = processes.read_pid(found.attempt.conmon_pid) if found.supervised else 0
        self._watcher.watch(uid, str(found.record.get("id")), conmon, found.pid)

    def _changed(self, uid: str) -> None:
        for callback in self._callbacks:
            callback(uid)

    async def _rotate_logs(self) -> None:
        while True:
            await asyncio.sleep(self._rotate_period)
            try:
                await asyncio.to_thread(self._rotate)
            except OSError as error:
                log.warning("container logs could not be rotated: %s", error)


def _pull_policy(unit: Unit) -> str:
    return str(unit.recipe.get("imagePullPolicy") or "")
