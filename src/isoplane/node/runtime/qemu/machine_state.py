"""What becomes of a machine when something happens to it: event → new state, effects. Pure; ``machine.py`` carries it out.

A run is what one start of QEMU is from its launch to its end; how it ended is written down *before* QEMU is let go, so that
a plane which dies in between leaves the truth behind.

| event | condition | state | effects |
|---|---|---|---|
| Launch | | a new run, no end | |
| Spawned | | its process lives | |
| Launched | | it is known to have come up | save run |
| LaunchFailed | | no process | |
| Answered | a status, from a monitor that is connected (again) | that status, connected | see StatusRead |
| StatusRead | no end; shutdown, guest-panicked, internal-error | ended: what that means | save end, quit, tell |
| StatusRead | otherwise | that status | quit, where it has ended; tell |
| GuestShutdown, GuestPanicked | | as if that status had been read | as there, without tell |
| GuestReset | | unchanged: the guest goes on in the same run | |
| Stopped, Resumed | no end | unchanged | ask status |
| PowerButton | connected, no end | unchanged | system_powerdown, however often it was pressed before |
| Pause | connected, no end | unchanged | stop, ask status |
| Resume | connected, no end; paused by a full disk and resumed a moment ago | unchanged | |
| Resume | connected, no end; otherwise | resumed now | cont, ask status |
| Kill | its process lives | ended: Destroyed, unless it has ended | save end, quit |
| MonitorLost | launched, its process lives | not connected | reconnect |
| ProcessGone | launched, no end | no process; ended: how the process ended | save end, tell |
| ProcessGone | otherwise | no process | tell |
| NobodyThere | launched, no end (an earlier plane's run without a process) | ended: Crashed | save end |
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from isoplane.node.runtime.qemu.machine_events import (
    Answered,
    AskStatus,
    Command,
    Effect,
    Event,
    GuestPanicked,
    GuestReset,
    GuestShutdown,
    Kill,
    Launch,
    Launched,
    LaunchFailed,
    MonitorLost,
    NobodyThere,
    Pause,
    PowerButton,
    ProcessGone,
    Quit,
    Reconnect,
    Resume,
    Resumed,
    Save,
    Spawned,
    StatusRead,
    Stopped,
    Tell,
)
from isoplane.node.runtime.qemu.records import End, Run, Sandbox
from isoplane.workload.shape import UnitObserved, UnitState

IO_ERROR, SHUTDOWN, PANICKED, BROKEN = "io-error", "shutdown", "guest-panicked", "internal-error"
STANDING = ("paused", IO_ERROR, "suspended", "prelaunch")
"""QMP's words for a guest that does not run and can go on."""
IO_ERROR_PERIOD = 10.0
"""Seconds between two tries to go on with a guest that a full disk stopped: while it is full, going on fails at once."""


@dataclass(frozen=True, slots=True)
class State:
    """``status`` is QMP's word, '' while no monitor has answered; ``end`` may be an earlier run's."""

    run: Run | None = None
    end: End | None = None
    status: str = ""
    process: bool = False
    connected: bool = False
    resumed: float = float("-inf")
    """When it was last told to go on after a full disk, by the clock of the events."""

    @property
    def ended(self) -> End | None:
        """How the current run ended; None while it runs, and before the first."""
        return self.end if self.run and self.end and self.end.attempt == self.run.attempt else None


Result = tuple[State, tuple[Effect, ...]]


def react(state: State, event: Event) -> Result:
    """The table above."""
    match event:
        case Launch(run):
            return State(run=run), ()
        case Spawned(pid, limited):
            assert state.run is not None, "a process belongs to a run"
            return replace(state, run=replace(state.run, pid=pid, limited=limited), process=True), ()
        case Launched(started_at):
            assert state.run is not None, "only what was launched can have come up"
            run = replace(state.run, launched=True, started_at=started_at)
            return replace(state, run=run), (Save(run),)
        case LaunchFailed():
            return replace(state, process=False, connected=False), ()
        case Answered(status, at):
            return _told(_read(replace(state, connected=True), status, at))
        case StatusRead(status, at):
            return _told(_read(state, status, at))
        case GuestShutdown(at):
            return _read(state, SHUTDOWN, at)
        case GuestPanicked(at):
            return _read(state, PANICKED, at)
        case Stopped() | Resumed():
            return state, () if state.ended else (AskStatus(),)
        case Kill(at):
            destroyed = _End("Destroyed", "the machine was switched off", code=137, signal=signal.SIGKILL)
            return _finish(state, destroyed, at) if state.process else (state, ())
        case MonitorLost():
            followed = state.process and state.run is not None and state.run.launched
            return replace(state, connected=False), (Reconnect(),) if followed else ()
        case ProcessGone():
            return _gone(state, event)
        case NobodyThere(at):
            lost = _End("Crashed", "QEMU ended while no plane was watching", code=1)
            return _finish(state, lost, at) if _is_running(state) else (state, ())
        case GuestReset():
            return state, ()
        case PowerButton() | Pause() | Resume():
            return _asked(state, event)


@dataclass(frozen=True, slots=True)
class _End:
    """How a run ends, as far as it does not depend on which run and when."""

    reason: str
    message: str
    graceful: bool = False
    code: int = 0
    signal: int = 0


_FINAL: Mapping[str, _End] = {
    SHUTDOWN: _End("GuestShutdown", "the guest powered off", graceful=True),
    PANICKED: _End("GuestPanicked", "the guest's kernel panicked; see its serial log", code=1),
    BROKEN: _End("Crashed", "QEMU could not go on with the guest (internal error)", code=1),
}
"""The statuses that a machine cannot leave, and what they mean."""


def _is_running(state: State) -> bool:
    return state.run is not None and state.run.launched and state.ended is None


def _asked(state: State, event: PowerButton | Pause | Resume) -> Result:
    """What is asked of a guest; one that has ended, or cannot be told, is not asked."""
    if not state.connected or state.ended:
        return state, ()
    match event:
        case PowerButton():
            return state, (Command("system_powerdown"),)
        case Pause():
            return state, (Command("stop"), AskStatus())
        case Resume(now):
            if state.status == IO_ERROR:
                if now - state.resumed < IO_ERROR_PERIOD:
                    return state, ()
                state = replace(state, resumed=now)
            return state, (Command("cont"), AskStatus())


def _read(state: State, status: str, at: float) -> Result:
    """A machine in a state that it cannot leave has ended: say how, then let QEMU go."""
    state = replace(state, status=status)
    if status in _FINAL or state.ended:
        return _finish(state, _FINAL.get(status), at)
    return state, ()


def _told(result: Result) -> Result:
    state, effects = result
    return state, (*effects, Tell())


def _finish(state: State, how: _End | None, at: float) -> Result:
    """Write down how the run ends unless that is known already, then make QEMU quit."""
    assert state.run is not None, "only a run can end"
    effects: list[Effect] = []
    if state.ended is None and how is not None:
        end = End(state.run.attempt, how.reason, how.message, how.graceful, how.code, how.signal, at)
        state = replace(state, end=end)
        effects.append(Save(end))
    if state.process:
        effects.append(Quit())
    return state, tuple(effects)


def _gone(state: State, event: ProcessGone) -> Result:
    state = replace(state, process=False, connected=False, status="")
    effects: tuple[Effect, ...] = ()
    if _is_running(state):
        state, effects = _finish(state, _post_mortem(event), event.at)
    return state, (*effects, Tell())


def _post_mortem(event: ProcessGone) -> _End:
    if event.out_of_memory:
        return _End("OOMKilled", "QEMU was killed at its memory limit", code=137)
    if event.signal:
        how = f"QEMU was ended by signal {event.signal} ({signal.strsignal(event.signal)})"
        return _End("Crashed", how, code=128 + event.signal, signal=event.signal)
    return _End("Crashed", f"QEMU was ended from outside: {event.words}", code=1)


def observed(uid: str, sandbox: Sandbox | None, state: State) -> UnitObserved | None:
    """The unit as its runtime sees it, or None before the first start."""
    run = state.run
    if sandbox is None or run is None or not run.launched:
        return None
    end = None if state.process else state.ended
    details = {
        "accelerator": run.accelerator,
        "qmp_status": "exited" if end else state.status,
        "cgroup_limits": run.limited,
        "mac": sandbox.mac,
    }
    seen: dict[str, Any] = {
        "state": UnitState.PAUSED if state.status in STANDING else UnitState.RUNNING,
        "pid": run.pid,
    }
    if end:
        seen = {
            "state": UnitState.EXITED, "finished_at": end.finished_at, "exit_code": end.exit_code, "signal": end.signal,
            "reason": end.reason, "message": end.message, "graceful": end.graceful,
        }  # fmt: skip
    return UnitObserved(
        name=sandbox.unit,
        attempt=run.attempt,
        handle=f"qemu://{uid}/{run.attempt}",
        started_at=run.started_at,
        image_id=sandbox.files.images[0].digest if sandbox.files.images else "",
        details=MappingProxyType(details),
        **seen,
    )
