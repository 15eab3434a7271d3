"""One machine on this host: launch its QEMU, follow it, adopt it, end it.

The states it goes through, all of them readable from its directory and from QEMU (see records.py):

    prepared ──launch──► running ◄──pause──► paused
                            │ guest powers off, panics; ``kill``; QEMU dies
                            ▼
                end.json written ──► QEMU quits ──► exited

QEMU is started in a session of its own with its errors in a file, so it belongs to no plane: whatever becomes of this
process, it runs on, and init reaps it.  (``-daemonize`` would do the same, but forbids denying QEMU new processes and loses
its later errors; a supervisor beside each machine would only add a process that can die.)  It is told to pause, not to
leave, when the guest shuts down or panics (``-action``), because a process that is gone cannot say whether its guest meant
it; the plane, or the next one after a kill -9, reads that state by QMP, writes it down and lets QEMU go.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from isoplane.node import procfs
from isoplane.node.runtime.protocol import RuntimeFailure, RuntimeReason
from isoplane.node.runtime.qemu import process, records
from isoplane.node.runtime.qemu.cgroup import Cgroup, Limits
from isoplane.node.runtime.qemu.command import AGENT_SOCKET, CARD, CONSOLE_SOCKET, QMP_SOCKET
from isoplane.node.runtime.qemu.qmp import Qmp, QmpClosed, QmpError
from isoplane.node.runtime.qemu.records import End, Run, Sandbox
from isoplane.node.runtime.qemu.serial import SerialLog
from isoplane.workload.shape import UnitObserved, UnitState

log = logging.getLogger(__name__)

START_TIMEOUT = 60.0
QUIT_TIMEOUT = 5.0
ADOPT_TIMEOUT = 10.0
_CONNECT_PERIOD = 0.005
_IO_ERROR_PERIOD = 10.0
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
        self.run = records.load(directory / "run.json", Run)
        self.end = records.load(directory / "end.json", End)
        self.lock = asyncio.Lock()
        self.agent_turn = asyncio.Lock()
        self.status = ""
        """QMP's word for its state; '' while no QEMU is connected."""
        self._changed = changed
        self._cgroup = Cgroup(directory)
        self._qmp: Qmp | None = None
        self._watch: process.ExitWatch | None = None
        self._gone = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._serial: SerialLog | None = None
        self._resumed = 0.0

    # -- what it is -----------------------------------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        """Whether its QEMU process exists."""
        return self._watch is not None

    @property
    def ended(self) -> End | None:
        """How the current run ended; None while it runs, and before the first."""
        return self.end if self.run and self.end and self.end.attempt == self.run.attempt else None

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
        run = self.run
        if self.sandbox is None or run is None or not run.launched:
            return None
        end = None if self.alive else self.ended
        status = "exited" if end else self.status
        common: dict[str, Any] = {
            "name": self.sandbox.unit,
            "attempt": run.attempt,
            "handle": f"qemu://{self.uid}/{run.attempt}",
            "started_at": run.started_at,
            "image_id": self.sandbox.files.images[0].digest if self.sandbox.files.images else "",
            "details": MappingProxyType(
                {
                    "accelerator": run.accelerator,
                    "qmp_status": status,
                    "cgroup_limits": run.limited,
                    "mac": self.sandbox.mac,
                }
            ),
        }
        if end:
            return UnitObserved(
                state=UnitState.EXITED,
                finished_at=end.finished_at,
                exit_code=end.exit_code,
                signal=end.signal,
                reason=end.reason,
                message=end.message,
                graceful=end.graceful,
                **common,
            )
        paused = self.status in ("paused", "io-error", "suspended", "prelaunch")
        return UnitObserved(state=UnitState.PAUSED if paused else UnitState.RUNNING, pid=run.pid, **common)

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
        self.run, self.end, self.status = run, None, ""
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
        self.run = replace(run, pid=pid, limited=self._cgroup.limited)
        try:
            self._follow(pid)
            await self._first_answer()
            if not link_up:
                await self._command("set_link", {"name": CARD, "up": False})
        except BaseException:
            procfs.send(pid, signal.SIGKILL)
            self._release()
            raise
        self._launched(self.run)

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

    def _launched(self, run: Run) -> None:
        started = procfs.started_at(run.pid) or time.time()
        self.run = replace(run, launched=True, started_at=started)
        self._save("run.json", self.run)

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

    async def _connect(self) -> None:
        qmp = await Qmp.connect(self.directory / QMP_SOCKET, self._event)
        self._qmp = qmp
        qmp.closed.add_done_callback(lambda _: self._disconnected(qmp))
        self.status = str((await qmp.execute("query-status"))["status"])
        self._judge_status()

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
        if not pid and self.run.launched and self.ended is None:
            self._finish("Crashed", "QEMU ended while no plane was watching", exit_code=1)

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
            self._launched(replace(self.run, pid=pid, limited=self._cgroup.limited))
        if self.ended is not None:
            self._later(self._quit())

    # -- ask and end ----------------------------------------------------------------------------------------------------

    async def power_button(self) -> None:
        """Press it; a guest that does not listen yet misses it. Does nothing when no machine runs."""
        await self._command("system_powerdown")

    async def pause(self, paused: bool) -> None:
        now = time.monotonic()
        if not paused and self.status == "io-error":
            # The host's disk was full. Going on fails again at once while it is, so give it time between two tries.
            if now - self._resumed < _IO_ERROR_PERIOD:
                return
            self._resumed = now
        await self._command("stop" if paused else "cont")
        if self._qmp is not None:
            await self._refresh()

    async def _command(self, command: str, arguments: Mapping[str, Any] | None = None) -> None:
        if self._qmp is None or self.ended is not None:
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
            self._finish("Destroyed", "the machine was switched off", exit_code=137, signal_number=signal.SIGKILL)
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
        if name == "SHUTDOWN" and data.get("guest"):
            self.status = "shutdown"
            self._judge_status()
        elif name == "GUEST_PANICKED":
            self.status = "guest-panicked"
            self._judge_status()
        elif name in ("STOP", "RESUME") and self.ended is None:
            self._later(self._refresh())

    async def _refresh(self) -> None:
        if self._qmp is None:
            return
        try:
            self.status = str((await self._qmp.execute("query-status"))["status"])
        except QmpError:
            return
        self._judge_status()
        self._changed(self.uid)

    def _judge_status(self) -> None:
        """A machine in a state it cannot leave has ended: say how, then let QEMU go."""
        if self.status == "shutdown":
            self._finish("GuestShutdown", "the guest powered off", graceful=True)
        elif self.status == "guest-panicked":
            self._finish("GuestPanicked", "the guest's kernel panicked; see its serial log", exit_code=1)
        elif self.status == "internal-error":
            self._finish("Crashed", "QEMU could not go on with the guest (internal error)", exit_code=1)

    def _finish(
        self, reason: str, message: str, *, graceful: bool = False, exit_code: int = 0, signal_number: int = 0
    ) -> None:
        """Write down how the run ends unless that is known already, then make QEMU quit."""
        assert self.run is not None
        if self.ended is None:
            self.end = End(self.run.attempt, reason, message, graceful, exit_code, signal_number, time.time())
            self._save("end.json", self.end)
        if self.alive:
            self._later(self._quit())

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
        self.status = ""
        if self.run is not None and self.run.launched and self.ended is None:
            self._finish(**self._post_mortem(status))
        self._gone.set()
        self.serial().tick()
        self._changed(self.uid)

    def _post_mortem(self, status: int | None) -> dict[str, Any]:
        if self._cgroup.out_of_memory():
            return {"reason": "OOMKilled", "message": "QEMU was killed at its memory limit", "exit_code": 137}
        number = os.WTERMSIG(status) if status is not None and os.WIFSIGNALED(status) else 0
        how = f"by signal {number} ({signal.strsignal(number)})" if number else f"from outside: {self._last_words()}"
        code = 128 + number if number else 1
        return {"reason": "Crashed", "message": f"QEMU was ended {how}", "exit_code": code, "signal_number": number}

    def _disconnected(self, lost: Qmp) -> None:
        if self._qmp is lost:
            self._qmp = None
            if self.run is not None and self.run.launched:
                self._later(self._reconnect())

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
                self._changed(self.uid)
            except QmpError:
                delay = min(delay * 2, 5)

    def _later(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
