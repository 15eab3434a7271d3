"""Both adapters: an object to the shape and back, in each kind's own upstream words."""

from __future__ import annotations

import copy
from typing import Any

import pytest

import samples_support as samples
from isoplane.objects import metadata
from isoplane.objects.kinds import PODS, VIRTUALMACHINEINSTANCES
from isoplane.workload.adapters import Report, Waiting
from isoplane.workload.lifecycle import ALIGNMENT, TRANSITIONS
from isoplane.workload.registry import adapter_for
from isoplane.workload.shape import InterfaceType, Observed, RunState, Stage, UnitObserved, UnitState
from isoplane.workload.view import workload_object

NOW = 1_800_000_000.0
KINDS = [(PODS, samples.pod), (VIRTUALMACHINEINSTANCES, samples.vmi)]
both = pytest.mark.parametrize(("resource", "make"), KINDS, ids=["pod", "vmi"])


def adapter(resource: Any) -> Any:
    found = adapter_for(resource)
    assert found is not None
    return found


def observed(obj: dict[str, Any], state: UnitState, **fields: Any) -> Observed:
    workload = adapter_for_object(obj).project(obj)
    units = {u.name: UnitObserved(u.name, state, started_at=NOW, **fields) for u in workload.units}
    return Observed(workload.uid, workload.namespace, workload.name, True, units)


def adapter_for_object(obj: dict[str, Any]) -> Any:
    return adapter(PODS if obj["kind"] == "Pod" else VIRTUALMACHINEINSTANCES)


@both
def test_the_shape_says_who_what_and_how_much(resource: Any, make: Any) -> None:
    workload = adapter(resource).project(make())
    assert workload.namespace == "tenant-a"
    assert all(amount >= 0 for amount in workload.request.values())
    assert workload.grace_seconds == 30
    assert workload.stage is Stage.ACCEPTED
    assert [p.name for p in workload.ports] == ["http"]
    assert workload.desired is RunState.RUN


def test_the_kinds_differ_where_they_should() -> None:
    pod, vm = adapter(PODS).project(samples.pod()), adapter(VIRTUALMACHINEINSTANCES).project(samples.vmi())
    assert (pod.interface, vm.interface) == (InterfaceType.VETH, InterfaceType.TAP)
    assert (pod.runtime, vm.runtime) == ("oci", "qemu")
    assert pod.disruption_cost < vm.disruption_cost
    assert vm.graceful_resend == 5.0
    assert (pod.id, vm.id) == ("pod/tenant-a/web", "vmi/tenant-a/guest")


@both
def test_a_report_is_told_in_the_kinds_own_phases_and_read_back_as_the_same_stage(resource: Any, make: Any) -> None:
    obj = make()
    placed = adapter(resource).place(obj, "n1", NOW)
    obj = placed.body if not placed.action else {**obj, "spec": {**obj["spec"], "nodeName": "n1"}}
    for stage, state in ((Stage.RUNNING, UnitState.RUNNING), (Stage.SUCCEEDED, UnitState.EXITED)):
        report = Report(
            stage,
            observed(make(), state, exit_code=0),
            node="n1",
            addresses=("10.0.0.9", "fd00::9"),
            transitions={stage: NOW},
        )
        before = copy.deepcopy(obj)
        told = adapter(resource).report(obj, report, NOW)
        assert obj == before, "an adapter never changes its argument"
        back = adapter(resource).project(told)
        assert back.stage is stage
        assert (back.address, back.addresses) == ("10.0.0.9", ("10.0.0.9", "fd00::9"))
        assert back.node == "n1"
        assert back.transitions[stage] == NOW
        ready = metadata.condition(told, "Ready")
        assert ready is not None
        assert ready["status"] == ("True" if stage is Stage.RUNNING else "False")


@both
def test_reporting_the_same_twice_changes_nothing(resource: Any, make: Any) -> None:
    report = Report(Stage.RUNNING, observed(make(), UnitState.RUNNING), node="n1", addresses=("10.0.0.9",))
    once = adapter(resource).report(make(), report, NOW)
    assert adapter(resource).report(once, report, NOW + 60) == once


@both
def test_gating_is_seen_and_undone(resource: Any, make: Any) -> None:
    gated = adapter(resource).gate(make(), "waits for 1 cpu of quota compute", NOW)
    assert adapter(resource).project(gated).stage is Stage.GATED
    assert adapter(resource).project(gated).gates
    free = adapter(resource).ungate(gated, NOW + 1)
    assert adapter(resource).project(free).stage is Stage.ACCEPTED
    assert not adapter(resource).project(free).gates


@both
def test_a_victim_is_told_by_whom(resource: Any, make: Any) -> None:
    marked = adapter(resource).mark_victim(make(), "PreemptedByQuota", "preempted by vmi/tenant-a/critical", NOW)
    disruption = metadata.condition(marked, "DisruptionTarget")
    assert disruption is not None
    assert disruption["reason"] == "PreemptedByQuota"
    assert "vmi/tenant-a/critical" in disruption["message"]


@both
def test_priority_is_recorded_and_read_back(resource: Any, make: Any) -> None:
    known = adapter(resource).project(adapter(resource).set_priority(make(), "gold", 1000, "Never"))
    assert (known.priority, known.priority_class, known.preemption_policy) == (1000, "gold", "Never")


@both
def test_deleting_is_stopping_with_a_deadline(resource: Any, make: Any) -> None:
    obj = make()
    obj["metadata"] |= {"deletionTimestamp": "2026-01-02T03:05:05Z", "deletionGracePeriodSeconds": 7}
    workload = adapter(resource).project(obj)
    assert (workload.stage, workload.desired, workload.grace_seconds) == (Stage.STOPPING, RunState.STOP, 7)
    assert workload.stop_deadline == metadata.posix("2026-01-02T03:05:05Z")


@both
def test_a_lost_node_is_unknown_and_no_phase_is_invented(resource: Any, make: Any) -> None:
    running = adapter(resource).report(make(), Report(Stage.RUNNING, observed(make(), UnitState.RUNNING)), NOW)
    lost = adapter(resource).report(
        running, Report(Stage.RUNNING, observed(make(), UnitState.RUNNING), reachable=False), NOW
    )
    assert lost["status"]["phase"] == "Running"
    assert workload_object(adapter(resource), lost)["status"]["stage"] == "Unknown"


@both
def test_tells_whether_its_policies_are_enforced(resource: Any, make: Any) -> None:
    def told(**how: str) -> tuple[Any, str]:
        report = Report(Stage.RUNNING, observed(make(), UnitState.RUNNING), node="n1", **how)
        new = adapter(resource).report(make(), report, NOW)
        found = metadata.condition(new, "NetworkPolicyEnforced") or {}
        said = found.get("status"), found.get("message")
        return said, workload_object(adapter(resource), new)["status"]["policyRevision"]

    assert told() == ((None, None), "")
    assert told(enforced="abc") == (("True", "revision abc"), "abc")
    assert told(enforced="abc", not_enforced="nftables: refused") == (
        ("False", "revision abc stays in force: nftables: refused"),
        "",
    )
    assert told(not_enforced="nftables: refused") == (("False", "its port stays closed: nftables: refused"), "")


def test_waiting_and_crashing_containers_read_as_with_a_kubelet() -> None:
    crashed = observed(samples.pod(), UnitState.EXITED, exit_code=3, finished_at=NOW, attempt=2)
    report = Report(Stage.RUNNING, crashed, waiting={"main": Waiting("CrashLoopBackOff", "back-off 20s")})
    status = adapter(PODS).report(samples.pod(), report, NOW)["status"]["containerStatuses"][0]
    assert status["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    assert status["lastState"]["terminated"]["exitCode"] == 3
    assert status["restartCount"] == 2


@both
def test_the_unified_view_tells_each_transition(resource: Any, make: Any) -> None:
    start = metadata.posix("2026-01-02T03:04:05Z")
    assert start is not None
    report = Report(
        Stage.RUNNING,
        observed(make(), UnitState.RUNNING),
        transitions={Stage.PLACED: start + 1, Stage.RUNNING: start + 3},
    )
    view = workload_object(adapter(resource), adapter(resource).report(make(), report, NOW))
    assert [(s["stage"], s["seconds"]) for s in view["status"]["transitions"]] == [
        ("Accepted", 0.0),
        ("Placed", 1.0),
        ("Running", 2.0),
    ]


def test_the_alignment_table_covers_every_stage_once() -> None:
    assert [row.stage for row in ALIGNMENT] == list(TRANSITIONS) == list(Stage)
    assert all(target in TRANSITIONS for targets in TRANSITIONS.values() for target in targets)


def test_a_probe_port_that_nobody_declares_is_refused() -> None:
    broken = samples.pod()
    broken["spec"]["containers"][0]["readinessProbe"] = {"httpGet": {"port": "nope"}}
    with pytest.raises(ValueError, match="nope"):
        adapter(PODS).project(broken)
