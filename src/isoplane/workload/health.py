"""Probe results become health: thresholds counted, a startup probe that holds the others back. Pure.

The prober (node) asks; this says what the answers mean.  Source: kubelet's prober worker.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from isoplane.workload.shape import Probe, Unit

ProbeKind = Literal["startup", "readiness", "liveness"]


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of one attempt of one unit. ``failed`` is the liveness or startup probe that gave up on it."""

    started: bool = True
    ready: bool = True
    failed: str = ""
    streaks: tuple[tuple[str, int], ...] = ()
    """Per probe kind: successes in a row as a positive number, failures as a negative one."""

    def streak(self, kind: str) -> int:
        return dict(self.streaks).get(kind, 0)


def initial(unit: Unit) -> Health:
    """The health of a unit that has just been started: not ready before its probe says so."""
    return Health(started=unit.startup is None, ready=unit.readiness is None and unit.startup is None)


def probes_of(unit: Unit) -> list[tuple[ProbeKind, Probe]]:
    """The probes a unit declares."""
    pairs: list[tuple[ProbeKind, Probe | None]] = [
        ("startup", unit.startup),
        ("readiness", unit.readiness),
        ("liveness", unit.liveness),
    ]
    return [(kind, probe) for kind, probe in pairs if probe is not None]


def due(kind: ProbeKind, health: Health) -> bool:
    """Whether a probe is asked now: startup until it succeeded, the others only after that."""
    return not health.started if kind == "startup" else health.started


def after(unit: Unit, health: Health, kind: ProbeKind, success: bool) -> Health:
    """The health once one more answer of one probe is known."""
    probe: Probe | None = getattr(unit, kind)
    if probe is None:
        return health
    old = health.streak(kind)
    streak = (max(old, 0) + 1) if success else (min(old, 0) - 1)
    streaks = (*(pair for pair in health.streaks if pair[0] != kind), (kind, streak))
    new = replace(health, streaks=streaks)
    healthy, sick = streak >= probe.success_threshold, -streak >= probe.failure_threshold
    if kind == "readiness":
        return replace(new, ready=True if healthy else False if sick else health.ready)
    if sick:
        return replace(new, failed=kind, ready=False)
    if kind == "startup" and healthy:
        return replace(new, started=True, ready=unit.readiness is None)
    return new


def pace(kind: ProbeKind, probe: Probe, health: Health) -> float:
    """Seconds until a probe is asked next. Readiness is asked early, so that Ready is not late by a whole period."""
    early = kind == "readiness" and not health.ready and probe.success_threshold == 1
    return min(probe.period, 1.0) if early else probe.period


def counts(success: bool, on_time: bool) -> bool:
    """Whether an answer is one: thresholds count periods, so between two of them only a success is news."""
    return on_time or success


def probe_grace(unit: Unit, kind: str, default: int) -> int:
    """Seconds that a unit has to end once a probe gave up on it: the probe's own where it says so, else the Pod's."""
    own = next((probe.grace_seconds for name, probe in probes_of(unit) if name == kind), None)
    return default if own is None else own
