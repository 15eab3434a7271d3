"""The end of a workload with sidecars (KEP-753), and what a probe's own figures change, as tables over the pure cores."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

import samples_support as samples
from isoplane.workload import common, delta, health
from isoplane.workload.adapters import Report
from isoplane.workload.delta import AskStop, Kill, Memory, Start
from isoplane.workload.health import Health
from isoplane.workload.lifecycle import stage_of
from isoplane.workload.pod import PodAdapter
from isoplane.workload.shape import (
    ALIVE,
    Observed,
    Probe,
    RestartRule,
    RunState,
    Stage,
    Unit,
    UnitObserved,
    UnitRole,
    UnitState,
    Workload,
)

NOW = 1_800_000_000.0
UNITS = (Unit("s1", UnitRole.SIDECAR), Unit("s2", UnitRole.SIDECAR), Unit("main", restart=RestartRule.NEVER))


def workload(**fields: object) -> Workload:
    return replace(PodAdapter().project(samples.pod()), units=UNITS, node="n1", **fields)  # type: ignore[arg-type]


def host(**states: str) -> Observed:
    """``main="Exited"`` ended at NOW with code 0."""
    units = {
        name: UnitObserved(
            name,
            UnitState(state),
            started_at=NOW - 60,
            finished_at=NOW if state == "Exited" else 0,
            exit_code=0 if state == "Exited" else None,
        )
        for name, state in states.items()
    }
    return Observed("u", "n", "w", True, units)


@pytest.mark.parametrize(
    ("states", "asked", "stage"),
    [
        ({"s1": "Running", "s2": "Running", "main": "Running"}, [], Stage.RUNNING),
        ({"s1": "Running", "s2": "Running", "main": "Exited"}, ["s2"], Stage.RUNNING),
        ({"s1": "Running", "s2": "Exited", "main": "Exited"}, ["s1"], Stage.RUNNING),
        ({"s1": "Exited", "s2": "Exited", "main": "Exited"}, [], Stage.SUCCEEDED),
    ],
)
def test_sidecars_end_last_first_and_the_phase_waits(states: dict[str, str], asked: list[str], stage: Stage) -> None:
    told = {"s1": Health(), "s2": Health(), "main": Health()}
    plan = delta.plan(workload(), host(**states), Memory(health=told), NOW)
    assert [action.unit for action in plan.actions if isinstance(action, AskStop)] == asked
    assert not any(isinstance(action, Start) for action in plan.actions)
    assert stage_of(workload(), host(**states), NOW) is stage


def test_deleted_the_mains_are_asked_first_and_then_the_sidecars_in_turn() -> None:
    leaving = workload(deleting=True, desired=RunState.STOP, stop_deadline=NOW + 30)
    order = []
    states = {"s1": "Running", "s2": "Running", "main": "Running"}
    while any(state == "Running" for state in states.values()):
        (action,) = delta.plan(leaving, host(**states), Memory(), NOW).actions
        assert isinstance(action, AskStop)
        order.append(action.unit)
        states[action.unit] = "Exited"
    assert order == ["main", "s2", "s1"]


@given(st.floats(0, 200), st.lists(st.sampled_from(["Running", "Exited"]), min_size=2, max_size=2), st.booleans())
def test_the_grace_counts_once_whatever_is_remembered(later: float, sidecars: list[str], remembered: bool) -> None:
    """A sidecar that ignores every request is killed when the grace is over, after a crash of the plane too."""
    seen = host(s1=sidecars[0], s2=sidecars[1], main="Exited")
    memory = Memory(asked={"s2": NOW + 1}, asked_first={"s2": NOW + 1}) if remembered else Memory()
    work = workload()
    plan = delta.plan(work, seen, memory, NOW + later)
    alive = {name for name, unit in seen.units.items() if unit.state in ALIVE}
    killed = {action.unit for action in plan.actions if isinstance(action, Kill)}
    assert killed == (alive if later >= work.grace_seconds else set())
    assert not alive or (plan.wake_at is not None and plan.wake_at <= max(NOW + work.grace_seconds, NOW + later + 1))


def test_a_deadline_of_activity_gives_no_second_grace() -> None:
    """The main unit used up the grace after the deadline: its sidecars have none left."""
    work = workload(expires_at=NOW - 25, grace_seconds=30)
    seen = host(s1="Running", s2="Running", main="Exited")
    assert {a.unit for a in delta.plan(work, seen, Memory(), NOW + 5).actions if isinstance(a, Kill)} == {"s1", "s2"}


@pytest.mark.parametrize(("own", "killed_after"), [(2, 2), (None, 90)])
def test_a_probe_has_its_own_grace(own: int | None, killed_after: float) -> None:
    unit = Unit("main", liveness=Probe(tcp_port=1, grace_seconds=own))
    work = replace(workload(grace_seconds=90), units=(unit,))
    for after, expected in ((0.0, False), (killed_after - 0.5, False), (killed_after, True)):
        memory = Memory({"main": NOW}, {"main": NOW}, health={"main": Health(failed="liveness")})
        plan = delta.plan(work, host(main="Running"), memory, NOW + after)
        assert any(isinstance(action, Kill) for action in plan.actions) is expected
    declared = common.probe({"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": own}, {})
    assert declared is not None
    assert declared.grace_seconds == own


def test_thresholds_count_periods() -> None:
    slow = Probe(tcp_port=1, period=10, failure_threshold=4)
    unready = Health(started=False, ready=False)
    assert health.pace("startup", slow, unready) == 10
    assert health.pace("liveness", slow, unready) == 10
    assert health.pace("readiness", slow, unready) == 1
    assert health.pace("readiness", slow, Health()) == 10
    assert health.pace("readiness", replace(slow, success_threshold=2), unready) == 10
    assert [health.counts(*pair) for pair in ((True, True), (False, True), (True, False), (False, False))] == [
        True, True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize("ready", [True, False])
def test_a_sidecar_that_is_not_ready_makes_the_pod_not_ready(ready: bool) -> None:
    pod = samples.pod()
    name = pod["spec"]["containers"][0]["name"]
    pod["spec"]["initContainers"] = [{"name": "side", "image": "x", "restartPolicy": "Always"}]
    seen = host(**{"side": "Running", name: "Running"})
    report = Report(
        stage=Stage.RUNNING, observed=seen, initialized=True, health={"side": Health(ready=ready), name: Health()}
    )
    status = PodAdapter().report(pod, report, NOW)["status"]
    conditions = {c["type"]: c["status"] for c in status["conditions"]}
    assert conditions["Ready"] == conditions["ContainersReady"] == ("True" if ready else "False")
