"""The OCI runtime: Pods as containers of crun or runc, each supervised by a conmon that outlives the plane.

This is the Runtime protocol's face; blocking work happens on threads, one sandbox's changes one after another.  It keeps
nothing in memory that it could not read again: see ``layout`` for what is on the disk, ``observe`` for how it is read,
``launch`` for the order in which a container comes to be.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from isoplane.client.streams import ExecOptions
from isoplane.node import procfs
from isoplane.node.images import Image, ImageStore
from isoplane.node.keyed_locks import KeyedLocks
from isoplane.node.runtime.oci import cgroups, container, hooks, logs, probe
from isoplane.node.runtime.oci.environment import Facts
from isoplane.node.runtime.oci.execute import Execution, Executor
from isoplane.node.runtime.oci.launcher import Launcher
from isoplane.node.runtime.oci.layout import Attempt, Layout
from isoplane.node.runtime.oci.observe import Look, hook_state, look
from isoplane.node.runtime.oci.session import ExecSession
from isoplane.node.runtime.oci.supervisor import Supervisor
from isoplane.node.runtime.oci.watch import Watcher
from isoplane.node.runtime.protocol import (
    ExecResult,
    ImageListener,
    Materials,
    RuntimeFailure,
    RuntimeReason,
    nobody_listens,
)
from isoplane.workload.eviction import StorageUse
from isoplane.workload.shape import ALIVE, Observed, Unit, UnitState, Workload

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

ROTATE_AT = 10 << 20
"""Bytes at which a log is rotated: the kubelet's default."""
_ROTATE_PERIOD = 10.0


class OciRuntime:
    """Containers below ``data_dir/oci``. ``runtime`` chooses the low-level runtime; None probes for one that works."""

    reachable = True

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
        self._hooks: dict[tuple[str, str, str, int], asyncio.Task[None]] = {}
        self._callbacks: list[Callable[[str], None]] = []
        self._launcher: Launcher | None = None
        self._watcher: Watcher | None = None
        self._rotation: asyncio.Task[None] | None = None

    # -- life -----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        try:
            await self._start()
        except BaseException as error:
            await self.close()
            if isinstance(error, OSError):
                what = f"{error.filename or self._layout.root}: {error.strerror}"
                hint = "the data directory must be writable and have space left"
                raise RuntimeFailure(RuntimeReason.SANDBOX, f"containers cannot be run: {what}: {hint}") from None
            raise

    async def _start(self) -> None:
        await asyncio.to_thread(self._layout.create)
        self._launcher = await asyncio.to_thread(probe.find, self._layout, self._wanted, self._threads)
        self._supervisor = Supervisor(self._layout, self._launcher)
        self._executor = Executor(self._launcher, self._layout)
        self._watcher = Watcher(self._layout.exits, self._changed)
        adopted = await self._on_thread(self._supervisor.recover)
        for uid, found in adopted:
            self._watch(uid, found)
        self._rotation = asyncio.create_task(self._rotate_logs(), name="rotate container logs")

    async def close(self) -> None:
        tasks = [*self._hooks.values(), *([self._rotation] if self._rotation is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._hooks.clear()
        self._rotation = None
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None
        if self._launcher is not None:
            launcher, self._launcher = self._launcher, None
            await asyncio.to_thread(launcher.close)
        await asyncio.to_thread(self._layout.leave)

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
            pulls = [
                group.create_task(self._resolve(unit, policy, materials.on_image))
                for (_, policy), unit in wanted.items()
            ]
        for failure in (result for pull in pulls if isinstance(result := pull.result(), RuntimeFailure)):
            raise failure
        await self._exclusive(workload.uid, self._supervisor.prepare, facts)

    async def refresh(self, workload: Workload, materials: Materials) -> None:
        await self._exclusive(workload.uid, self._supervisor.refresh, self._facts(workload, materials))

    async def start_unit(self, workload: Workload, unit: Unit, attempt: int, materials: Materials) -> None:
        policy = "Never" if _pull_policy(unit) == "Never" else "IfNotPresent"
        # The first attempt's image was told of when the sandbox was prepared.
        image = await self._resolve(unit, policy, materials.on_image if attempt else nobody_listens)
        if isinstance(image, RuntimeFailure):
            raise image
        facts = self._facts(workload, materials)
        found = await self._exclusive(workload.uid, self._supervisor.start_unit, facts, unit, attempt, image)
        self._watch(workload.uid, found)

    async def stop_unit(self, uid: str, unit: str) -> None:
        found = await asyncio.to_thread(self._supervisor.latest, uid, unit)
        hook = found.record.get("preStop") if found is not None and found.state is UnitState.RUNNING else None
        if found is not None and isinstance(hook, dict):
            self._run_hook(uid, unit, "preStop", found.attempt.number, self._before_stop(uid, unit, hook))
        else:
            await self._signal(uid, unit, kill=False)

    async def kill_unit(self, uid: str, unit: str) -> None:
        await self._signal(uid, unit, kill=True)

    async def pause_unit(self, uid: str, unit: str, paused: bool) -> None:
        await self._exclusive(uid, self._supervisor.pause, uid, unit, paused)
        found = None if paused else await asyncio.to_thread(self._supervisor.latest, uid, unit)
        if found is not None:
            self._watch(uid, found)

    async def remove(self, uid: str) -> None:
        await self._exclusive(uid, self._supervisor.remove, uid)
        if self._watcher is not None:
            self._watcher.forget(uid)
        for key in [key for key in self._hooks if key[0] == uid]:
            self._hooks.pop(key).cancel()
        if not self._locks and not self._layout.uids():
            # Nothing is being started, and nothing can be meanwhile: this is the event loop.
            cgroups.remove_empty_parents(self._layout.parent_cgroup)

    # -- observing --------------------------------------------------------------------------------------------------------

    async def observe(self, uid: str) -> Observed | None:
        return await asyncio.to_thread(self._supervisor.observe, uid)

    async def observe_all(self) -> Sequence[Observed]:
        return await asyncio.to_thread(self._supervisor.observe_all)

    async def storage(self, workload: Workload) -> StorageUse:
        volumes = [str(v.get("name")) for v in workload.volumes if "emptyDir" in v]
        return await asyncio.to_thread(self._supervisor.storage, workload.uid, volumes)

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
            ended=lambda: look(self._layout, attempt).state not in ALIVE,
        )

    async def exec(self, uid: str, unit: str, command: Sequence[str], timeout: float) -> ExecResult:
        execution = await self.exec_interactive(uid, unit, command, tty=False, stdin=False)
        return await execution.collect(timeout)

    async def exec_interactive(
        self, uid: str, unit: str, command: Sequence[str], *, tty: bool, stdin: bool = True
    ) -> Execution:
        """Run a command inside a unit with its input and output connected: see :class:`Execution`."""
        found = await asyncio.to_thread(self._supervisor.running, uid, unit)
        return await self._executor.start(found, command, tty=tty, stdin=stdin)

    async def open_exec(self, uid: str, unit: str, options: ExecOptions) -> ExecSession:
        """The same for a client of the API. Raises RuntimeFailure when the command could not be started."""
        return ExecSession(
            await self.exec_interactive(uid, unit, options.command, tty=options.tty, stdin=options.stdin)
        )

    # -- plumbing ---------------------------------------------------------------------------------------------------------

    def _ready(self) -> Launcher:
        if self._launcher is None:
            raise RuntimeFailure(RuntimeReason.SANDBOX, "the OCI runtime is not started")
        return self._launcher

    def _facts(self, workload: Workload, materials: Materials) -> Facts:
        network = materials.network
        addresses = network.addresses or (materials.node_addresses if not network.netns else ())
        return Facts(
            workload=workload,
            materials=materials,
            addresses=addresses,
            host_cpu=container.host_cpu(),
            host_memory=container.host_memory(),
            units={unit.name: unit for unit in workload.units},
        )

    async def _resolve(self, unit: Unit, policy: str, listener: ImageListener) -> Image | RuntimeFailure:
        try:
            return await self.images.resolve(unit.image, policy, listener)
        except RuntimeFailure as failure:
            return RuntimeFailure(failure.reason, f"container {unit.name!r}: {failure.message}", image=failure.image)

    async def _signal(self, uid: str, unit: str, *, kill: bool) -> None:
        if not await asyncio.to_thread(self._supervisor.send, uid, unit, kill):
            # It is being created: wait for that, then signal.
            await self._exclusive(uid, self._supervisor.send, uid, unit, kill)

    async def _on_thread(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._ready().pool, partial(work, *args, **kwargs))

    async def _exclusive(self, uid: str, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run blocking work while nothing else changes this sandbox, to its end even when the caller gives up."""

        async def run() -> T:
            async with self._locks.hold(uid):
                return await self._on_thread(work, *args, **kwargs)

        return await asyncio.shield(asyncio.ensure_future(run()))

    def _run_hook(self, uid: str, unit: str, name: str, attempt: int, work: Coroutine[Any, Any, None]) -> None:
        """Run a hook once per attempt, for as long as this process lives."""
        key = (uid, unit, name, attempt)
        if key in self._hooks:
            work.close()
            return
        self._hooks[key] = asyncio.create_task(work, name=f"{name} of {unit} in {uid}")

    async def _after_start(self, uid: str, attempt: Attempt, hook: Mapping[str, Any]) -> None:
        """Run a postStart hook and note how it ended; what follows from that is the controller's."""
        failure = ""
        try:
            await hooks.run(hook, partial(self.exec, uid, attempt.unit))
        except hooks.HookFailure as failed:
            failure = str(failed) or "it failed"
        await asyncio.to_thread(self._supervisor.hook_ended, attempt, failure)
        self._changed(uid)

    async def _before_stop(self, uid: str, unit: str, hook: Mapping[str, Any]) -> None:
        try:
            await hooks.run(hook, partial(self.exec, uid, unit))
        except hooks.HookFailure as failure:
            log.warning("preStop hook of %s in sandbox %s failed: %s", unit, uid, failure)
        await self._signal(uid, unit, kill=False)

    def _watch(self, uid: str, found: Look) -> None:
        """Notice when a container ends, and run the hook of its start unless that has ended: in an earlier process, too."""
        if self._watcher is None or found.state not in ALIVE:
            return
        hook, attempt = found.record.get("postStart"), found.attempt
        if isinstance(hook, dict) and found.state is UnitState.RUNNING and hook_state(found)[0]:
            self._run_hook(uid, attempt.unit, "postStart", attempt.number, self._after_start(uid, attempt, hook))
        conmon = procfs.read_pid(found.attempt.conmon_pid) if found.supervised else 0
        self._watcher.watch(uid, str(found.record.get("id")), conmon, found.pid)

    def _changed(self, uid: str) -> None:
        for callback in self._callbacks:
            callback(uid)

    async def _rotate_logs(self) -> None:
        while True:
            await asyncio.sleep(self._rotate_period)
            try:
                await asyncio.to_thread(self._supervisor.rotate, self._rotate_at)
            except OSError as error:
                log.warning("container logs could not be rotated: %s", error)


def _pull_policy(unit: Unit) -> str:
    return str(unit.recipe.get("imagePullPolicy") or "")
