"""The delta between the desired and the actual state of one workload: what to do next, for both kinds alike.

:func:`plan` is the heart of the one controller: desired − actual = actions.  It is pure and level-triggered, so the agent
may call it at any time, after any crash, and carry out what it says; each action is idempotent.  It decides *what*; how
is the runtime's, and when to look again is ``Plan.wake_at``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from isoplane.workload import backoff
from isoplane.workload.health import Health, probe_grace
from isoplane.workload.lifecycle import changed, decided, done_at, ended_well, expired, will_restart
from isoplane.workload.shape import (
    ALIVE,
    Observed,
    RunState,
    Unit,
    UnitObserved,
    UnitRole,
    UnitState,
    Verdict,
    Workload,
)

HOOK_FAILED = "its postStart hook failed"
IMAGE_CHANGED = "its image was changed"
LIVENESS_FAILED = "liveness probe failed"
STARTUP_FAILED = "startup probe failed"


@dataclass(frozen=True, slots=True)
class Prepare:
    """Plug in the network, mount volumes and images."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start a unit, for the first time (attempt 0) or again."""

    unit: Unit
    attempt: int


@dataclass(frozen=True, slots=True)
class AskStop:
    """Ask a unit to end; ``why`` is for people."""

    unit: str
    why: str


@dataclass(frozen=True, slots=True)
class Kill:
    """End a unit now."""

    unit: str
    why: str


@dataclass(frozen=True, slots=True)
class Pause:
    """Freeze (or thaw) a unit."""

    unit: str
    paused: bool


@dataclass(frozen=True, slots=True)
class Remove:
    """Remove the sandbox and everything in it."""


Action = Prepare | Start | AskStop | Kill | Pause | Remove


@dataclass(frozen=True, slots=True)
class Memory:
    """What the agent remembers of a workload between two looks. Losing it costs a delay, never correctness."""

    asked: Mapping[str, float] = field(default_factory=dict)
    """Unit → POSIX seconds of the last graceful ask."""
    asked_first: Mapping[str, float] = field(default_factory=dict)
    """Unit → POSIX seconds of the first graceful ask of this attempt."""
    crashes: Mapping[str, int] = field(default_factory=dict)
    """Unit → restarts since it last ran long enough; absent: taken from its attempt."""
    health: Mapping[str, Health] = field(default_factory=dict)
    retry_at: float = 0
    """No preparing and no starting before this time, after a failed step."""
    verdict: Verdict | None = None
    """Why the node ends it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, in order, and when to look again if nothing happens before (POSIX seconds; None: no need)."""

    actions: tuple[Action, ...] = ()
    wake_at: float | None = None
    backing_off: Mapping[str, float] = field(default_factory=dict)
    """Units that wait to be started again → when."""


def plan(workload: Workload | None, observed: Observed | None, memory: Memory, now: float) -> Plan:
    """The next actions. ``workload`` None means that nobody wants the sandbox any more."""
    if workload is None:
        return _clear(observed)
    if workload.finished or workload.deleting or workload.desired is RunState.STOP:
        return _stop(workload, observed, memory, now)
    if memory.verdict is not None:
        return _end(observed, memory.verdict)
    if workload.gates or not workload.node:
        return Plan()
    if observed is not None and not expired(workload, now) and decided(workload, observed) is not None:
        return _stop(workload, observed, memory, now)
    if workload.expires_at is None:
        return _bring_up(workload, observed, memory, now)
    if expired(workload, now):
        over = replace(workload, stop_deadline=workload.expires_at + workload.grace_seconds)
        return _stop(over, observed, memory, now)
    found = _bring_up(workload, observed, memory, now)
    return replace(found, wake_at=min(at for at in (found.wake_at, workload.expires_at) if at is not None))


def _end(observed: Observed | None, verdict: Verdict) -> Plan:
    """No grace: what a workload takes that it may not have is taken from others meanwhile."""
    alive = [] if observed is None else [name for name, unit in observed.units.items() if unit.state in ALIVE]
    return Plan(tuple(Kill(name, verdict.reason) for name in alive))


def _bring_up(workload: Workload, observed: Observed | None, memory: Memory, now: float) -> Plan:
    if observed is None or not observed.prepared:
        if memory.retry_at > now:
            return Plan(wake_at=memory.retry_at)
        return Plan((Prepare(),))
    return _run(workload, observed, memory, now)


def _clear(observed: Observed | None) -> Plan:
    if observed is None:
        return Plan()
    kills = [Kill(name, "its object is gone") for name, unit in observed.units.items() if unit.state in ALIVE]
    return Plan((*kills, Remove()))


def _stop(workload: Workload, observed: Observed | None, memory: Memory, now: float) -> Plan:
    """Ask every unit to end, again where asking may get lost, and kill what is left at the deadline; then remove."""
    if observed is None:
        return Plan()
    alive = [unit for unit in observed.units.values() if unit.state in ALIVE]
    if not alive:
        # A finished workload keeps its sandbox (logs, exit codes) until its object goes.
        return Plan((Remove(),)) if workload.deleting else Plan()
    stopped = not workload.finished and workload.desired is RunState.STOP
    over = not stopped and decided(workload, observed) is not None
    why = "deleted" if workload.deleting else "finished" if workload.finished or over else "stopped"
    if why == "stopped" and expired(workload, now):
        why = "active for longer than its deadline"
    deadline = _deadline(workload, observed, memory, now)
    # Sidecars outlive what they serve, and each the ones behind it: the last is asked first, once it is its turn.
    sidecars = [unit.name for unit in workload.units if unit.role is UnitRole.SIDECAR]
    last = next((name for name in reversed(sidecars) if observed.unit(name).state in ALIVE), "")
    asides = frozenset(sidecars)
    mains_left = any(unit.name not in asides for unit in alive)
    actions: list[Action] = []
    wake = deadline
    for unit in alive:
        if now >= deadline or workload.grace_seconds == 0:
            actions.append(Kill(unit.name, why))
            continue
        if unit.name in asides and (mains_left or unit.name != last):
            continue
        if unit.state is UnitState.PAUSED:
            actions.append(Pause(unit.name, False))
        action, again = _ask(workload, unit, memory, now, why)
        actions.extend(action)
        wake = min(wake, again)
    return Plan(tuple(actions), wake_at=wake if now < deadline else now + 1.0)


def _deadline(workload: Workload, observed: Observed, memory: Memory, now: float) -> float:
    """When whatever is left is killed: the grace counts once, for all units together, from the first request on."""
    if workload.stop_deadline is not None:
        return workload.stop_deadline
    if workload.desired is not RunState.STOP and decided(workload, observed) is not None:
        return (done_at(workload, observed) or now) + workload.grace_seconds
    return min((now, *memory.asked_first.values())) + workload.grace_seconds


def _ask(workload: Workload, unit: UnitObserved, memory: Memory, now: float, why: str) -> tuple[list[Action], float]:
    """One graceful ask, repeated every ``graceful_resend`` seconds; and when to look again."""
    last = memory.asked.get(unit.name)
    if last is None:
        return [AskStop(unit.name, why)], now + (workload.graceful_resend or 3600.0)
    if workload.graceful_resend and now - last >= workload.graceful_resend:
        return [AskStop(unit.name, why)], now + workload.graceful_resend
    return [], last + workload.graceful_resend if workload.graceful_resend else now + 3600.0


def _run(workload: Workload, observed: Observed, memory: Memory, now: float) -> Plan:
    """Start what is due, in order; restart what ended and should not have; freeze or thaw; replace the unhealthy."""
    actions: list[Action] = []
    backing_off: dict[str, float] = {}
    wakes: list[float] = []
    held = False
    for unit in workload.units:
        seen = observed.unit(unit.name)
        if unit.role is UnitRole.INIT and _mains_started(workload, observed):
            continue
        if seen.state in ALIVE:
            step, wake = _keep(workload, unit, seen, memory, now)
            actions.extend(step)
            if wake is not None:
                wakes.append(wake)
            if unit.role is UnitRole.INIT:
                break
            if unit.role is UnitRole.SIDECAR and not memory.health.get(unit.name, Health()).started:
                break
            # One after the other: nothing is started while the hook of one before it goes on.
            held = held or seen.hook_pending
            continue
        if held:
            continue
        if seen.state is UnitState.EXITED and unit.role is UnitRole.INIT and ended_well(seen):
            continue
        due = start_due(unit, seen, memory)
        if due is None:
            if unit.role is UnitRole.INIT:
                break
            continue
        due = max(due, memory.retry_at)
        if due > now:
            wakes.append(due)
            if seen.state is UnitState.EXITED:
                backing_off[unit.name] = due
        else:
            actions.append(Start(unit, seen.attempt + 1 if seen.state is UnitState.EXITED else 0))
            held = held or unit.start_hook
        if unit.role is not UnitRole.MAIN:
            # The rest waits until this one has ended (init) or started (sidecar).
            break
    return Plan(tuple(actions), min(wakes, default=None), backing_off)


def _mains_started(workload: Workload, observed: Observed) -> bool:
    return any(
        unit.role is UnitRole.MAIN and observed.unit(unit.name).state is not UnitState.ABSENT for unit in workload.units
    )


def start_due(unit: Unit, seen: UnitObserved, memory: Memory) -> float | None:
    """When a unit that does not run is to be started (POSIX seconds; 0: now); None: never again."""
    if seen.state is UnitState.ABSENT:
        return 0.0
    if not will_restart(unit, seen):
        return None
    if changed(unit, seen):
        return 0.0
    return seen.finished_at + backoff.container(memory.crashes.get(unit.name, seen.attempt))


def _keep(
    workload: Workload, unit: Unit, seen: UnitObserved, memory: Memory, now: float
) -> tuple[list[Action], float | None]:
    """A unit that is alive: finish its start, freeze or thaw it, or end it when its probe gave up."""
    if seen.state is UnitState.CREATED:
        return [Start(unit, seen.attempt)], None
    want_paused = workload.desired is RunState.PAUSE
    if (seen.state is UnitState.PAUSED) is not want_paused:
        return [Pause(unit.name, want_paused)], None
    health = memory.health.get(unit.name)
    grace = workload.grace_seconds
    if changed(unit, seen):
        why = IMAGE_CHANGED
    elif seen.hook_failure:
        why = HOOK_FAILED
    elif health is not None and health.failed:
        why = LIVENESS_FAILED if health.failed == "liveness" else STARTUP_FAILED
        grace = probe_grace(unit, health.failed, grace)
    else:
        return [], None
    first = memory.asked_first.get(unit.name)
    if first is not None and now - first >= grace:
        return [Kill(unit.name, why)], now + 1.0
    action, again = _ask(workload, seen, memory, now, why)
    return action, min(again, (first if first is not None else now) + grace)
