"""One life cycle for both kinds: the stages, the transitions between them and the alignment with upstream, as data.

A stage is derived, never stepped: :func:`stage_of` reads a workload and what its host shows of it, so a controller that
missed everything comes to the same answer as one that saw it all.  :data:`TRANSITIONS` says which changes can be seen,
:data:`ALIGNMENT` how a stage is told on each kind's own object.  No phase is ever invented.
Sources: kubelet's getPhase; KubeVirt's VirtualMachineInstancePhase; the founding document's alignment table.
"""

from __future__ import annotations

from dataclasses import dataclass

from isoplane.workload.shape import (
    ALIVE,
    Observed,
    RestartRule,
    RunState,
    Stage,
    Unit,
    UnitObserved,
    UnitRole,
    UnitState,
    Workload,
)

TRANSITIONS: dict[Stage, frozenset[Stage]] = {
    Stage.ACCEPTED: frozenset(
        {Stage.GATED, Stage.PLACED, Stage.PREPARING, Stage.RUNNING, Stage.STOPPING, Stage.FAILED}
    ),
    Stage.GATED: frozenset({Stage.ACCEPTED, Stage.PLACED, Stage.STOPPING, Stage.FAILED}),
    Stage.PLACED: frozenset({Stage.PREPARING, Stage.RUNNING, Stage.STOPPING, Stage.SUCCEEDED, Stage.FAILED}),
    Stage.PREPARING: frozenset({Stage.RUNNING, Stage.STOPPING, Stage.SUCCEEDED, Stage.FAILED}),
    Stage.RUNNING: frozenset({Stage.STOPPING, Stage.SUCCEEDED, Stage.FAILED}),
    Stage.STOPPING: frozenset({Stage.SUCCEEDED, Stage.FAILED}),
    Stage.SUCCEEDED: frozenset(),
    Stage.FAILED: frozenset(),
}
"""Stage → the stages that may be seen next (some may be passed too fast to be seen)."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """How one stage is told: on a Pod, on a VMI, by the founding document, and what it means."""

    stage: Stage
    pod: str
    vmi: str
    founding: str
    meaning: str
    latency: str


ALIGNMENT: tuple[Alignment, ...] = (
    Alignment(Stage.ACCEPTED, "Pending", "Pending", "Pending ~ Scheduled", "stored and charged, not yet on a node", "ms"),
    Alignment(Stage.GATED, "Pending", "Pending", "Pending ~ Scheduled", "waits for quota behind its hold", "until it fits"),
    Alignment(Stage.PLACED, "Pending", "Scheduling", "Pending ~ Scheduled", "bound to a node", "ms"),
    Alignment(
        Stage.PREPARING, "Pending", "Scheduled", "Pending ~ Scheduled",
        "image, disks, network and init containers on the node", "Pod: tens of ms; VM: tens of ms, then the guest boots",
    ),
    Alignment(Stage.RUNNING, "Running", "Running", "Running ~ Running", "runs; Ready says whether it serves", "–"),
    Alignment(
        Stage.STOPPING, "phase kept, deletionTimestamp set (kubectl: Terminating)",
        "phase kept, deletionTimestamp set (a VM prints Stopping)", "Terminating ~ Stopping",
        "asked to end: SIGTERM, or the ACPI power button", "up to the grace period",
    ),
    Alignment(Stage.SUCCEEDED, "Succeeded", "Succeeded", "Succeeded ~ Succeeded", "ended well, or the guest powered off", "–"),
    Alignment(Stage.FAILED, "Failed", "Failed", "Failed ~ Failed", "ended badly, or was destroyed after its grace", "–"),
)  # fmt: skip
"""The alignment table; ``Unknown`` is no stage but a flag (``reachable: false``) beside it."""

UNREACHABLE = "Unknown"
"""What people read for a workload on a lost node, whatever its stage."""


def ended_well(unit: UnitObserved) -> bool:
    """Whether an exited unit succeeded: by its exit code where it has one, else by having ended gracefully."""
    return unit.exit_code == 0 if unit.exit_code is not None else unit.graceful


def changed(unit: Unit, seen: UnitObserved) -> bool:
    """Whether a unit was started from another image than it names by now: then it is replaced, whatever its rule."""
    return bool(seen.image) and bool(unit.image) and seen.image != unit.image


def will_restart(unit: Unit, seen: UnitObserved) -> bool:
    """Whether an exited unit is started again in the same sandbox."""
    if changed(unit, seen) or unit.restart is RestartRule.ALWAYS:
        return True
    return unit.restart is RestartRule.ON_FAILURE and not ended_well(seen)


def expired(workload: Workload, now: float) -> bool:
    """Whether it has been active for longer than it may."""
    return workload.expires_at is not None and now >= workload.expires_at


def overran(workload: Workload, observed: Observed | None, now: float) -> bool:
    """Whether it failed by its deadline: nothing of it runs any more, and it had not ended by itself before."""
    if not expired(workload, now) or workload.deleting or workload.desired is RunState.STOP:
        return False
    seen = [] if observed is None else list(observed.units.values())
    if any(unit.state in ALIVE for unit in seen):
        return False
    in_time = observed is not None and outcome(workload, observed) is not None
    return not in_time or any(unit.finished_at >= (workload.expires_at or 0) for unit in seen)


def initialized(workload: Workload, observed: Observed) -> bool:
    """Whether every init unit has done its part: ended well, or, for a sidecar, has been started."""
    for unit in workload.units:
        seen = observed.unit(unit.name)
        if unit.role is UnitRole.INIT and not (seen.state is UnitState.EXITED and ended_well(seen)):
            return False
        if unit.role is UnitRole.SIDECAR and not _ever_started(seen):
            return False
    return True


def _ever_started(seen: UnitObserved) -> bool:
    """Whether a unit's start has been completed once, its hook included."""
    return seen.state is not UnitState.ABSENT and (seen.attempt > 0 or not seen.starting)


def outcome(workload: Workload, observed: Observed) -> Stage | None:
    """Succeeded or Failed once it is decided and nothing runs any more, sidecars included; None before."""
    if any(unit.state in ALIVE for unit in observed.units.values()):
        return None
    return decided(workload, observed)


def done_at(workload: Workload, observed: Observed) -> float:
    """POSIX seconds at which the last unit ended that is no sidecar: from then on the sidecars' grace counts."""
    served = [observed.unit(unit.name) for unit in workload.units if unit.role is not UnitRole.SIDECAR]
    return max((seen.finished_at for seen in served), default=0.0)


def decided(workload: Workload, observed: Observed) -> Stage | None:
    """How it ends, once no main or init unit will run again by itself, though sidecars may; None while one may.

    Source: KEP-753: sidecars end after what they serve, and the phase waits for them.
    """
    for unit in workload.units:
        seen = observed.unit(unit.name)
        init_failed = unit.role is UnitRole.INIT and seen.state is UnitState.EXITED and not ended_well(seen)
        if init_failed and not will_restart(unit, seen):
            return Stage.FAILED
    mains = [(u, observed.unit(u.name)) for u in workload.units if u.role is UnitRole.MAIN]
    if not mains or any(seen.state is not UnitState.EXITED for _, seen in mains):
        return None
    wanted = not workload.deleting and workload.desired is not RunState.STOP
    if wanted and any(will_restart(unit, seen) for unit, seen in mains):
        return None
    return Stage.SUCCEEDED if all(ended_well(seen) for _, seen in mains) else Stage.FAILED


def running(workload: Workload, observed: Observed) -> bool:
    """kubelet's rule: initialised, and every main unit has been started at least once."""
    if not initialized(workload, observed):
        return False
    mains = [observed.unit(u.name) for u in workload.units if u.role is UnitRole.MAIN]
    return bool(mains) and all(_ever_started(seen) for seen in mains)


def stage_of(workload: Workload, observed: Observed | None, now: float) -> Stage:
    """The stage of a workload, given what its host shows of it (None: no trace). ``now`` in POSIX seconds."""
    if workload.finished:
        return workload.stage
    if overran(workload, observed, now):
        return Stage.FAILED
    if observed is not None and (ended := outcome(workload, observed)) is not None:
        return ended
    if workload.deleting or workload.desired is RunState.STOP:
        return Stage.STOPPING
    if workload.gates:
        return Stage.GATED
    if not workload.node:
        return Stage.ACCEPTED
    if observed is None:
        return Stage.PLACED
    return Stage.RUNNING if running(workload, observed) else Stage.PREPARING
