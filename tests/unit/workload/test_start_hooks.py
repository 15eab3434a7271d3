"""A postStart hook holds back Running, Ready and the next unit; one that failed ends its unit (kubernetes#37805, #81450)."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import samples_support as samples
from isoplane.workload import delta
from isoplane.workload.adapters import Report
from isoplane.workload.delta import AskStop, Kill, Memory, Start
from isoplane.workload.health import Health
from isoplane.workload.lifecycle import initialized, stage_of
from isoplane.workload.pod import PodAdapter
from isoplane.workload.shape import Observed, Stage, UnitObserved, UnitState, Workload

NOW = 1_800_000_000.0
HOOK = {"lifecycle": {"postStart": {"exec": {"command": ["true"]}}}}
ABSENT = UnitObserved("", UnitState.ABSENT)
PENDING = UnitObserved("", UnitState.RUNNING, started_at=NOW, hook_pending=True)
FAILED = UnitObserved("", UnitState.RUNNING, started_at=NOW, hook_failure="exit code 1")
UP = UnitObserved("", UnitState.RUNNING, started_at=NOW)


def pod(*, sidecar: bool = False) -> dict[str, object]:
    found = samples.pod()
    spec = found["spec"]
    spec["nodeName"] = "n1"
    first = {"name": "a", "image": "x", **HOOK}
    rest = [{"name": name, "image": "x"} for name in ("b", "c")]
    spec["initContainers"] = [{**first, "restartPolicy": "Always"}] if sidecar else []
    spec["containers"] = rest if sidecar else [first, *rest]
    return found


def workload(*, sidecar: bool = False) -> Workload:
    return PodAdapter().project(pod(sidecar=sidecar))


def host(**units: UnitObserved) -> Observed:
    return Observed("u", "n", "w", True, {name: replace(seen, name=name) for name, seen in units.items()})


def started(seen: Observed, *, sidecar: bool = False) -> list[str]:
    health = {name: Health() for name in seen.units}
    plan = delta.plan(workload(sidecar=sidecar), seen, Memory(health=health), NOW)
    return [action.unit.name for action in plan.actions if isinstance(action, Start)]


@pytest.mark.parametrize("sidecar", [False, True])
def test_the_next_unit_starts_when_the_hook_has_ended(sidecar: bool) -> None:
    assert started(host(), sidecar=sidecar) == ["a"]
    assert started(host(a=PENDING), sidecar=sidecar) == []
    assert started(host(a=UP), sidecar=sidecar) == ["b", "c"]


@given(st.lists(st.sampled_from([ABSENT, PENDING, FAILED, UP]), min_size=3, max_size=3), st.integers(0, 2))
def test_held_means_neither_running_nor_ready(units: list[UnitObserved], attempt: int) -> None:
    """Whatever else goes on; a Pod that ran once stays Running through a restart."""
    present = {
        name: replace(unit, attempt=attempt) for name, unit in zip("abc", units, strict=True) if unit is not ABSENT
    }
    seen = host(**present)
    stage = stage_of(workload(), seen, NOW)
    assert (stage is Stage.RUNNING) is all(unit is UP or (unit is not ABSENT and attempt > 0) for unit in units)
    report = Report(stage=stage, observed=seen, initialized=True, health={name: Health() for name in "abc"})
    status = PodAdapter().report(pod(), report, NOW)["status"]
    for told, unit in zip(status["containerStatuses"], units, strict=True):
        assert ("running" in told["state"], told["ready"], told["started"]) == ((unit is UP),) * 3
    ready = {c["type"]: c["status"] for c in status["conditions"]}["Ready"]
    assert ready == ("True" if all(unit is UP for unit in units) else "False")


def test_a_sidecar_is_not_initialized_before_its_hook_has_ended() -> None:
    assert not initialized(workload(sidecar=True), host(a=PENDING))
    assert initialized(workload(sidecar=True), host(a=UP))


def test_a_failed_hook_ends_its_unit_within_the_grace_and_holds_nobody() -> None:
    work, seen = workload(), host(a=FAILED)
    plan = delta.plan(work, seen, Memory(), NOW)
    assert [a.unit for a in plan.actions if isinstance(a, AskStop)] == ["a"]
    assert started(seen) == ["b", "c"]
    over = Memory(asked={"a": NOW}, asked_first={"a": NOW})
    plan = delta.plan(work, seen, over, NOW + work.grace_seconds)
    assert [a.unit for a in plan.actions if isinstance(a, Kill)] == ["a"]


def test_what_waits_for_a_hook_is_looked_after_all_the_same() -> None:
    """The unit behind it that is unhealthy is not left alone meanwhile."""
    memory = Memory(health={"c": Health(failed="liveness")})
    plan = delta.plan(workload(), host(a=PENDING, c=UP), memory, NOW)
    assert [action.unit for action in plan.actions if isinstance(action, AskStop)] == ["c"]


def test_how_the_attempt_before_ended_is_told_though_nobody_looked_meanwhile() -> None:
    before = UnitObserved("a", UnitState.EXITED, finished_at=NOW - 1, exit_code=137, reason="OOMKilled")
    seen = host(a=replace(UP, attempt=1, before=before))
    report = Report(stage=Stage.RUNNING, observed=seen, initialized=True, health={})
    (told, *_) = PodAdapter().report(pod(), report, NOW)["status"]["containerStatuses"]
    assert (told["restartCount"], told["lastState"]["terminated"]["reason"]) == (1, "OOMKilled")
