"""One machine on this host: launch its QEMU, follow it, adopt it, end it.

What becomes of it when something happens is decided in machine_state.py; here its events come from (QMP, the process, whoever
asks) and its effects are carried out.

QEMU is started in a session of its own with its errors in a file, so it belongs to no plane: whatever becomes of this
process, it runs on, and init reaps it.  (``-daemonize`` would do the same, but forbids denying QEMU new processes and loses
its later errors; a supervisor beside each machine would only add a process that can die.)  It is told to pause, not to
leave, when the guest shuts down or panics (``-action``), because a process that is gone cannot say whether its guest meant
it; the plane, or the next one after a kill -9, reads that state by QMP, writes it down and lets QEMU go.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from isoplane.node import procfs
from isoplane.node.runtime.protocol import RuntimeFailure, RuntimeReason
from isoplane.node.runtime.qemu import machine_events as events
from isoplane.node.runtime.qemu import machine_state, process, records
from isoplane.node.runtime.qemu.cgroup import Cgroup, Limits
from isoplane.node.runtime.qemu.command import AGENT_SOCKET, CARD, CONSOLE_SOCKET, QMP_SOCKET
from isoplane.node.runtime.qemu.qmp import Qmp, QmpClosed, QmpError
from isoplane.node.runtime.qemu.records import End, Run, Sandbox
from isoplane.node.runtime.qemu.serial import SerialLog
from isoplane.workload.shape import UnitObserved

log = logging.getLogger(__name__)

START_TIMEOUT = 60.0
QUIT_TIMEOUT = 5.0
ADOPT_TIMEOUT = 10.0
_CONNECT_PERIOD = 0.005
_BECOME_QEMU = (
    'cd "$1" || exit 1; shift; while [ "$1" != -- ]; do echo $$ >"$1" || exit 1; shift; done; shift; exec "$@"'
)
"""Enter the machine's directory and control groups, then become QEMU: arguments are the directory, groups, ``--``, argv."""
_NAMESPACES = ("unshare", "--net", "--mount", "--ipc", "--uts", "--propagation", "slave", "--")
"""An empty network (its tap comes as a descriptor), and mounts that follow the host's and never lead back."""


class Machine:
    """A sandbox's directory and, while it runs, its QEMU. ``changed(uid)`` is called when it changes by itself."""

    def __init__(self, directory: Path, changed: Callable[[str], None]) -> None:
        self.directory = directory
        self.uid = directory.name
        self.memory = records.memory_of(directory)
        self.sandbox: Sandbox | None = records.load_sandbox(directory / "sandbox.json")
        self.state = machine_state.State(
            records.load(directory / "run.json", Run), records.load(directory / "end.json", End)
        )
        self.lock = asyncio.Lock()
        self.agent_turn = asyncio.Lock()
        self._changed = changed
        self._cgroup = Cgroup(directory)
        self._qmp: Qmp | None = None
        self._watch: process.ExitWatch | None = None
        self._gone = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._serial: SerialLog | None = None

    # -- what it is -----------------------------------------------------------------------------------------------------

    @property
    def run(self) -> Run | None:
        """Its newest start."""
        return self.state.run

    @property
    def alive(self) -> bool:
        """Whether its QEMU process exists."""
        return self.state.process

    def pid_file(self, attempt: int) -> Path:
        return self.directory / f"qemu-{attempt}.pid"

    def serial(self, attempt: int | None = None) -> SerialLog:
        """The console log of an attempt, by default the current one's."""
        number = attempt if attempt is not None else self.run.attempt if self.run else 0
        path = self.directory / f"serial-{number}.log"
        if self._serial is None or self._serial.path != path:
            found = SerialLog(path)
            if attempt is not None and self.run and attempt != self.run.attempt:
                return found
            self._serial = found
        return self._serial

    @property
    def console(self) -> Path:
        """The unix socket of its serial console, for one client at a time."""
        return self.directory / CONSOLE_SOCKET

    @property
    def agent(self) -> Path:
        """The unix socket of the guest agent's channel, if the machine has one."""
        return self.directory / AGENT_SOCKET

    def observed(self) -> UnitObserved | None:
        """The unit as it is now, or None before the first start."""
        return machine_state.observed(self.uid, self.sandbox, self.state)

    # -- launch and adopt -----------------------------------------------------------------------------------------------

    async def launch(
        self,
        run: Run,
        argv: Sequence[str],
        limits: Limits,
        holds: Sequence[int],
        *,
        confined: bool,
        link_up: bool = True,
    ) -> None:
        """Start QEMU and connect. ``holds`` are descriptors it keeps open; ``confined`` gives it namespaces of its own.

        Raises RuntimeFailure with QEMU's own words.
        """
        self._on(events.Launch(run))
        try:
            (self.directory / "end.json").unlink(missing_ok=True)
            records.save(self.directory / "run.json", run)
            groups = self._cgroup.create(limits)
        except OSError as error:
            message = f"machine {self.uid} cannot be started: {error.strerror}: {error.filename}"
            raise RuntimeFailure(RuntimeReason.SANDBOX, message) from error
        arguments = [str(self.directory), *map(str, groups), "--", *(_NAMESPACES if confined else ()), *argv]
        try:
            pid = process.spawn(["/bin/sh", "-c", _BECOME_QEMU, "sh", *arguments], self._errors, holds)
        except OSError as error:
            raise RuntimeFailure(RuntimeReason.RUN, f"QEMU could not be started: {error}") from error
        try:
            self._follow(pid)
            await self._first_answer()
            if not link_up:
                await self._command("set_link", {"name": CARD, "up": False})
        except BaseException:
            procfs.send(pid, signal.SIGKILL)
            self._release()
            self._on(events.LaunchFailed())
            raise
        self._launched(pid)

    async def _first_answer(self) -> None:
        """Wait for the monitor, or for QEMU to end instead. Raises RuntimeFailure with QEMU's own words."""
        deadline = time.monotonic() + START_TIMEOUT
        while not self._gone.is_set():
            try:
                return await self._connect()
            except QmpClosed:
                if time.monotonic() > deadline:
                    message = f"QEMU did not answer within {START_TIMEOUT:g} s: {self._last_words()}"
                    raise RuntimeFailure(RuntimeReason.RUN, message) from None
                await asyncio.sleep(_CONNECT_PERIOD)
        if self._cgroup.out_of_memory():
            message = "QEMU was killed at its memory limit while starting: raise resources.limits.memory"
            raise RuntimeFailure(RuntimeReason.RUN, message)
        raise RuntimeFailure(RuntimeReason.RUN, f"QEMU could not start: {self._last_words()}")

    @property
    def _errors(self) -> Path:
        return self.directory / "qemu.log"

    def _last_words(self) -> str:
        """The end of QEMU's own errors, without its program name and warnings."""
        try:
            lines = self._errors.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        said = [line.partition(": ")[2] or line for line in lines if "warning:" not in line]
        return "; ".join(said[-3:]) or "it said nothing"

    def _launched(self, pid: int) -> None:
        self._on(events.Launched(procfs.started_at(pid) or time.time()))

    def _save(self, name: str, record: Run | End) -> None:
        """Remember what has happened already. On a full disk it is known to this plane only, which says so."""
        try:
            records.save(self.directory / name, record)
        except OSError as error:
            log.warning("machine %s: %s: %s", self.uid, self.directory / name, error.strerror)

    def _follow(self, pid: int) -> None:
        """Watch a process. Raises ProcessLookupError when it is gone."""
        self._gone.clear()
        self._watch = process.ExitWatch(pid, lambda: self._exited(pid))
        self._on(events.Spawned(pid, self._cgroup.limited))

    async def _connect(self) -> None:
        qmp = await Qmp.connect(self.directory / QMP_SOCKET, self._event)
        self._qmp = qmp
        qmp.closed.add_done_callback(lambda _: self._disconnected(qmp))
        self._on(events.Answered(str((await qmp.execute("query-status"))["status"]), time.time()))

    async def adopt(self, pid: int) -> None:
        """Take over what an earlier plane left: ``pid`` is its QEMU's, 0 when there is none. Never raises, logs instead."""
        if self.run is None:
            return
        pid = procfs.read_pid(self.pid_file(self.run.attempt)) or pid
        if pid and str(self.pid_file(self.run.attempt)) not in procfs.command_line(pid):
            pid = 0
        if pid:
            try:
                await self._adopt_process(pid)
            except ProcessLookupError:
                pid = 0
        self.serial().tick()
        if not pid:
            self._on(events.NobodyThere(time.time()))

    async def _adopt_process(self, pid: int) -> None:
        assert self.run is not None
        deadline = time.monotonic() + ADOPT_TIMEOUT
        while True:
            try:
                self._release()
                self._follow(pid)
                await self._connect()
                break
            except QmpClosed:
                if time.monotonic() > deadline:
                    # It may be a busy host's fault: the machine is kept, and asked again for as long as it lives.
                    log.warning("machine %s: QEMU %d does not answer yet", self.uid, pid)
                    self._later(self._reconnect())
                    break
                await asyncio.sleep(0.05)
        if not self.run.launched:
            self._launched(pid)

    # -- ask and end ----------------------------------------------------------------------------------------------------

    async def power_button(self) -> None:
        """Press it; a guest that does not listen yet misses it. Does nothing when no machine runs."""
        await self._ask(events.PowerButton())

    async def pause(self, paused: bool) -> None:
        await self._ask(events.Pause() if paused else events.Resume(time.monotonic()))

    async def _command(self, command: str, arguments: Mapping[str, Any] | None = None) -> None:
        """Tell the monitor, if there is one. Raises RuntimeFailure when it refuses."""
        if self._qmp is None:
            return
        try:
            await self._qmp.execute(command, arguments)
        except QmpClosed:
            return
        except QmpError as error:
            raise RuntimeFailure(RuntimeReason.RUN, f"{command} of {self.uid}: {error}") from error

    async def kill(self) -> None:
        """End it now and wait until its process is gone. A machine that ended by itself keeps how it did."""
        if self.alive:
            self._on(events.Kill(time.time()))
            try:
                async with asyncio.timeout(3 * QUIT_TIMEOUT):
                    await self._gone.wait()
            except TimeoutError:
                pid = self.run.pid if self.run else 0
                raise RuntimeFailure(RuntimeReason.RUN, f"QEMU {pid} of {self.uid} cannot be killed") from None

    async def remove(self) -> None:
        """End it and remove its directory and control groups. Raises RuntimeFailure when the host refuses."""
        await self.kill()
        for task in self._tasks:
            task.cancel()
        self._release()
        if self.run is not None and not self.run.launched:
            for pid in procfs.with_argument(str(self.pid_file(self.run.attempt))):
                procfs.send(pid, signal.SIGKILL)
        try:
            await self._cgroup.remove()
            shutil.rmtree(self.memory, ignore_errors=True)
            shutil.rmtree(self.directory)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise RuntimeFailure(RuntimeReason.SANDBOX, f"machine {self.uid} cannot be removed: {error}") from error

    def release(self) -> None:
        """Let go of the process and the connection and leave the machine running."""
        for task in self._tasks:
            task.cancel()
        self._release()

    def _release(self) -> None:
        qmp, self._qmp = self._qmp, None
        if qmp is not None:
            qmp.close()
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    # -- what happens to it ---------------------------------------------------------------------------------------------

    def _event(self, name: str, data: Mapping[str, Any]) -> None:
        match name:
            case "SHUTDOWN" if data.get("guest"):
                self._on(events.GuestShutdown(time.time()))
            case "GUEST_PANICKED":
                self._on(events.GuestPanicked(time.time()))
            case "RESET":
                self._on(events.GuestReset())
            case "STOP":
                self._on(events.Stopped())
            case "RESUME":
                self._on(events.Resumed())

    def _on(self, event: events.Event) -> None:
        """Something happened: nobody waits for what follows from it."""
        for work in self._react(event):
            self._later(work())

    async def _ask(self, event: events.Event) -> None:
        """Somebody asks for something, and waits until it is done."""
        for work in self._react(event):
            await work()

    def _react(self, event: events.Event) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """Carry out what takes no time; what does is returned, in order."""
        self.state, effects = machine_state.react(self.state, event)
        works: list[Callable[[], Coroutine[Any, Any, None]]] = []
        for effect in effects:
            match effect:
                case events.Save(record):
                    self._save("run.json" if isinstance(record, Run) else "end.json", record)
                case events.Tell():
                    self._changed(self.uid)
                case events.Quit():
                    self._later(self._quit())
                case events.Reconnect():
                    self._later(self._reconnect())
                case events.Command(name):
                    works.append(functools.partial(self._command, name))
                case events.AskStatus():
                    works.append(self._ask_status)
        return works

    async def _ask_status(self) -> None:
        if self._qmp is None:
            return
        try:
            status = str((await self._qmp.execute("query-status"))["status"])
        except QmpError:
            return
        self._on(events.StatusRead(status, time.time()))

    async def _quit(self) -> None:
        """Ask QEMU to flush and leave, insist after a while."""
        try:
            if self._qmp is not None:
                await self._qmp.execute("quit", timeout=QUIT_TIMEOUT)
        except QmpError:
            pass
        try:
            async with asyncio.timeout(QUIT_TIMEOUT):
                await self._gone.wait()
        except TimeoutError:
            if self.alive and self.run is not None:
                procfs.send(self.run.pid, signal.SIGKILL)

    def _exited(self, pid: int) -> None:
        status = process.reap(pid)
        self._release()
        number = os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else 0
        killed = self._cgroup.out_of_memory()
        self._gone.set()
        self.serial().tick()
        self._on(events.ProcessGone(time.time(), number, killed, self._last_words()))

    def _disconnected(self, lost: Qmp) -> None:
        if self._qmp is lost:
            self._qmp = None
            self._on(events.MonitorLost())

    async def _reconnect(self) -> None:
        """The process lives and its monitor went away: come back to it, for as long as it lives."""
        watch, delay = self._watch, 0.05
        while True:
            await asyncio.sleep(delay)
            # The machine may have ended and been started anew meanwhile; its monitor serves one client only.
            if self._watch is not watch or self._watch is None or self._qmp is not None:
                return
            try:
                await self._connect()
            except QmpError:
                delay = min(delay * 2, 5)

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
