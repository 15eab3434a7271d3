"""QemuRuntime: virtual machines behind the Runtime protocol.

Each sandbox is a ``Machine`` with a directory below ``<data_dir>/qemu/machines``; this class finds them again after a
restart, hands every call to the right one, and turns a VMI's spec into files and a command line.  When to start, stop
or kill is the controller's to decide; what a spec means is domain.py's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from isoplane.client.sockets import short
from isoplane.node import mounting, procfs
from isoplane.node.images.model import ImageError
from isoplane.node.network import tap
from isoplane.node.runtime import usage
from isoplane.node.runtime.protocol import ExecResult, Materials, NetworkInterface, RuntimeFailure, RuntimeReason
from isoplane.node.runtime.qemu import agent, privileges, records
from isoplane.node.runtime.qemu import command as command_line
from isoplane.node.runtime.qemu.cgroup import Cgroup, Limits, parents
from isoplane.node.runtime.qemu.command import KVM, TCG, Identity
from isoplane.node.runtime.qemu.disks import ImageSource, make_files
from isoplane.node.runtime.qemu.domain import Domain, parse
from isoplane.node.runtime.qemu.machine import Machine
from isoplane.node.runtime.qemu.probe import MEMORY, Host, find_binary, probe_host, probe_offer
from isoplane.node.runtime.qemu.records import Run, Sandbox
from isoplane.node.runtime.qemu.serial import stamp
from isoplane.workload.eviction import StorageUse
from isoplane.workload.machine_offer import KNOWN
from isoplane.workload.shape import Observed, RunState, Unit, Workload

log = logging.getLogger(__name__)

_TICK = 1.0
_MEMORY = "mode=700,size=10%"
"""Of the host's memory, at most, for disks that may hold Secrets: each is as large as what it was made of."""


class QemuRuntime:
    """Machines below ``data_dir/qemu``. ``accelerator`` forces ``kvm`` or ``tcg``; by default it is probed at first need."""

    name = "qemu"
    reachable = True

    def __init__(self, data_dir: Path, images: ImageSource, *, accelerator: str | None = None) -> None:
        if accelerator not in (None, KVM, TCG):
            raise ValueError(f"accelerator {accelerator!r} is not one of kvm, tcg")
        self._root = data_dir.absolute() / "qemu"
        self._machines_dir = self._root / "machines"
        self._memory = records.memory_of(self._machines_dir / "of-any").parent
        self._images = images
        self._machines: dict[str, Machine] = {}
        self._callbacks: list[Callable[[str], None]] = []
        self._binary = ""
        self.offer = KNOWN
        self._forced = accelerator
        self._probe: asyncio.Task[Host] | None = None
        self._ticker: asyncio.Task[None] | None = None

    # -- life of the runtime --------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Find QEMU, probe KVM in the background, adopt what runs. Raises RuntimeFailure without QEMU or a directory."""
        self._binary = find_binary()
        self.offer = await probe_offer(self._binary, MEMORY)
        try:
            self._machines_dir.mkdir(parents=True, exist_ok=True)
            self._root.chmod(0o700)
            mounting.in_memory(self._memory, _MEMORY)
            if privileges.can_change():
                await asyncio.to_thread(privileges.sweep)
            await asyncio.to_thread(records.relocate, self._machines_dir)
            await self._adopt_all()
        except OSError as error:
            message = f"{self._machines_dir}: {error.strerror or error}; check its permissions and free space"
            raise RuntimeFailure(RuntimeReason.SANDBOX, message) from error
        self._probe = asyncio.create_task(probe_host(self._binary, MEMORY, self._forced))
        self._ticker = asyncio.create_task(self._tick())

    async def close(self) -> None:
        for task in (self._probe, self._ticker):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task
        for machine in self._machines.values():
            machine.release()
        self._machines.clear()
        if os.path.ismount(self._memory) and not any(self._machines_dir.iterdir()):
            mounting.leave_memory(self._memory)

    async def host(self) -> Host:
        """QEMU, its version and the accelerator that new machines run on. The first caller may wait for the probe."""
        assert self._probe is not None, "start() comes first"
        return await asyncio.shield(self._probe)

    def on_change(self, callback: Callable[[str], None]) -> None:
        self._callbacks.append(callback)

    def _changed(self, uid: str) -> None:
        for callback in self._callbacks:
            callback(uid)

    async def _adopt_all(self) -> None:
        running = self._running()
        for directory in filter(Path.is_dir, self._machines_dir.iterdir()):
            self._machines[directory.name] = Machine(directory, self._changed)
        await asyncio.gather(*(m.adopt(running.pop(uid, 0)) for uid, m in self._machines.items()))
        for uid, pid in running.items():
            log.warning("QEMU %d of the removed machine %s still runs; it is killed", pid, uid)
            procfs.send(pid, signal.SIGKILL)
        known = set(self._machines)
        left = {group.name for parent in parents(self._machines_dir).values() for group in parent.glob("*/")}
        for uid in left - known:
            await Cgroup(self._machines_dir / uid).remove()
        for directory in self._memory.iterdir():
            if directory.name not in known:
                shutil.rmtree(directory)

    def _running(self) -> dict[str, int]:
        """uid → process, of every QEMU on this host that keeps its pid file below our directory."""
        found: dict[str, int] = {}
        for pid in procfs.numbers():
            for word in procfs.command_line(pid):
                path = Path(word)
                if path.suffix == ".pid" and path.parent.parent == self._machines_dir:
                    found[path.parent.name] = pid
        return found

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            for machine in list(self._machines.values()):
                if machine.alive:
                    try:
                        machine.serial().tick()
                    except OSError as error:
                        log.warning("serial log of %s: %s", machine.uid, error)

    # -- acts -----------------------------------------------------------------------------------------------------------

    async def prepare(self, workload: Workload, materials: Materials) -> None:
        machine = self._machine(workload.uid, create=True)
        async with machine.lock:
            if machine.sandbox is not None:
                return
            await self._make_sandbox(machine, workload, materials)

    async def _make_sandbox(self, machine: Machine, workload: Workload, materials: Materials) -> None:
        """Make what is missing of a machine's files, and write down what there is."""
        unit = workload.units[0]
        files = await make_files(
            parse(unit.recipe, self.offer),
            machine.directory,
            machine.memory,
            self._images,
            materials,
            instance_id=f"{workload.name}.{workload.namespace}.{workload.uid}",
            hostname=workload.hostname or workload.name,
        )
        net = materials.network
        sandbox = Sandbox(workload.uid, workload.namespace, workload.name, unit.name, net.addresses, net.mac, files)
        try:
            records.save(machine.directory / "sandbox.json", sandbox)
        except OSError as error:
            raise RuntimeFailure(RuntimeReason.SANDBOX, f"{machine.directory}: {error.strerror}") from error
        machine.sandbox = sandbox

    async def refresh(self, workload: Workload, materials: Materials) -> None:
        """A machine's disks are what they were when it was prepared."""

    async def start_unit(self, workload: Workload, unit: Unit, attempt: int, materials: Materials) -> None:
        machine = self._machine(workload.uid)
        async with machine.lock:
            if machine.run is not None and machine.run.attempt == attempt and not machine.run.launched:
                # An earlier call was cut off: whatever it left is ours to find, not to start beside.
                left = procfs.with_argument(str(machine.pid_file(attempt)))
                await machine.adopt(next(left, 0))
            if machine.alive or (machine.run is not None and machine.run.launched and machine.run.attempt >= attempt):
                return
            if machine.sandbox is not None and machine.sandbox.lost_its_memory(machine.memory):
                await self._make_sandbox(machine, workload, materials)  # the host was started again since
            await self._launch(machine, workload, unit, attempt, materials)

    async def _launch(
        self, machine: Machine, workload: Workload, unit: Unit, attempt: int, materials: Materials
    ) -> None:
        if machine.sandbox is None:
            raise RuntimeFailure(RuntimeReason.RUN, f"machine {workload.key} is not prepared")
        domain = parse(unit.recipe, self.offer)
        host = await self.host()
        run = Run(attempt, host.accelerator)
        holds: list[int] = []
        try:
            user = await asyncio.to_thread(privileges.claim, machine.directory) if privileges.can_change() else 0
            tap_fd = _open_tap(materials.network.tap)
            holds += [tap_fd] if tap_fd >= 0 else []
            holds += [used.image().hold() for used in machine.sandbox.files.images]
            limits = Limits(unit.cpu_request, unit.cpu_limit, unit.memory_limit)
            argv = self._arguments(
                domain, machine, machine.sandbox, workload, run, host, materials.network, user, tap_fd
            )
            link_up = domain.link_up or not domain.interface_model
            await machine.launch(run, argv, limits, holds, confined=bool(user), link_up=link_up)
        except ImageError as error:
            raise RuntimeFailure(RuntimeReason.RUN, str(error)) from error
        except OSError as error:
            raise RuntimeFailure(RuntimeReason.SANDBOX, f"machine {workload.key} cannot be started: {error}") from error
        finally:
            for hold in holds:
                os.close(hold)

    @staticmethod
    def _arguments(
        domain: Domain,
        machine: Machine,
        sandbox: Sandbox,
        workload: Workload,
        run: Run,
        host: Host,
        network: NetworkInterface,
        user: int,
        tap_fd: int,
    ) -> list[str]:
        return command_line.build(
            domain,
            sandbox.files,
            Identity(workload.uid, workload.namespace, workload.name),
            network,
            command_line.Run(
                host.binary,
                host.accelerator,
                str(machine.pid_file(run.attempt)),
                f"serial-{run.attempt}.log",
                user=user,
                tap=tap_fd,
                version=host.version,
                memory_limit=workload.units[0].memory_limit,
                # With its cable out a guest waits too, for the moment that it takes to pull it.
                paused=workload.desired is RunState.PAUSE or not domain.link_up,
            ),
        )

    async def stop_unit(self, uid: str, unit: str) -> None:
        if machine := self._machines.get(uid):
            await machine.power_button()

    async def kill_unit(self, uid: str, unit: str) -> None:
        if machine := self._machines.get(uid):
            async with machine.lock:
                await machine.kill()

    async def pause_unit(self, uid: str, unit: str, paused: bool) -> None:
        if machine := self._machines.get(uid):
            await machine.pause(paused)

    async def remove(self, uid: str) -> None:
        machine = self._machines.get(uid)
        if machine is None:
            return
        async with machine.lock:
            await machine.remove()
            await asyncio.to_thread(privileges.release, machine.directory)
        self._machines.pop(uid, None)

    def _machine(self, uid: str, create: bool = False) -> Machine:
        machine = self._machines.get(uid)
        if machine is None:
            if not create:
                raise RuntimeFailure(RuntimeReason.RUN, f"machine {uid} is not prepared")
            if not uid or "/" in uid or uid in (".", ".."):
                raise RuntimeFailure(RuntimeReason.SANDBOX, f"{uid!r} is not a workload's uid")
            directory = self._machines_dir / uid
            try:
                directory.mkdir(exist_ok=True)
            except OSError as error:
                raise RuntimeFailure(RuntimeReason.SANDBOX, f"{directory}: {error.strerror or error}") from error
            machine = self._machines[uid] = Machine(directory, self._changed)
        return machine

    # -- what is --------------------------------------------------------------------------------------------------------

    async def observe(self, uid: str) -> Observed | None:
        machine = self._machines.get(uid)
        return None if machine is None else _observed(machine)

    async def observe_all(self) -> Sequence[Observed]:
        return [_observed(machine) for machine in self._machines.values()]

    async def storage(self, workload: Workload) -> StorageUse:
        """Its disks in their files, the console's log and all else in its directory."""
        machine = self._machines.get(workload.uid)
        if machine is None:
            return StorageUse()
        found = await asyncio.to_thread(usage.measure, [machine.directory])
        return StorageUse({unit.name: found.get(machine.directory, 0) for unit in workload.units})

    async def console(self, uid: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection to a machine's serial console. Raises RuntimeFailure when none runs; QEMU serves one at a time."""
        try:
            with short(self._machine(uid).console) as address:
                return await asyncio.open_unix_connection(address)
        except OSError as error:
            raise RuntimeFailure(RuntimeReason.RUN, f"machine {uid} has no console now: {error.strerror}") from error

    async def exec(self, uid: str, unit: str, command: Sequence[str], timeout: float) -> ExecResult:
        """By the QEMU guest agent: the machine needs its channel (see agent.py) and the guest the agent."""
        machine = self._running_machine(uid)
        return await agent.execute(machine.agent, machine.agent_turn, command, timeout)

    async def ping(self, uid: str, unit: str, timeout: float) -> None:
        """Return if the guest agent answers (guestAgentPing). Raises RuntimeFailure."""
        machine = self._running_machine(uid)
        await agent.ping(machine.agent, machine.agent_turn, timeout)

    def _running_machine(self, uid: str) -> Machine:
        machine = self._machine(uid)
        if not machine.alive:
            raise RuntimeFailure(RuntimeReason.RUN, f"machine {uid} does not run")
        return machine

    async def logs(
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
        machine = self._machine(uid)
        attempt = machine.run.attempt if machine.run else 0
        if previous and attempt == 0:
            raise RuntimeFailure(RuntimeReason.RUN, f"machine {uid} has no earlier run")
        serial = machine.serial(attempt - 1) if previous else machine.serial()
        if follow and not previous:
            async for when, line in serial.follow(lambda: not machine.alive, tail=tail_lines, since=since):
                yield stamp(when, line) if timestamps else line
            return
        for when, line in serial.lines(tail=tail_lines, since=since):
            yield stamp(when, line) if timestamps else line


def _observed(machine: Machine) -> Observed:
    sandbox = machine.sandbox
    unit = machine.observed()
    return Observed(
        uid=machine.uid,
        namespace=sandbox.namespace if sandbox else "",
        name=sandbox.name if sandbox else "",
        prepared=sandbox is not None,
        units={unit.name: unit} if unit else {},
        addresses=sandbox.addresses if sandbox else (),
    )


def _open_tap(name: str) -> int:
    """The tap's descriptor, -1 for a machine without one. One that is missing is not made: the guest would talk to nobody."""
    if not name:
        return -1
    try:
        socket.if_nametoindex(name)
    except OSError:
        message = f"the machine's network device {name} does not exist; it is made again at the next try"
        raise RuntimeFailure(RuntimeReason.SANDBOX, message) from None
    return tap.attach(name)
