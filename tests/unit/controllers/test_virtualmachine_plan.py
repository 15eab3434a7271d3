"""Every run strategy against every state of its instance, as a table; then what goes beyond upstream."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoplane.controllers.virtualmachine_plan import (
    FINALIZER,
    GENERATION,
    STRATEGIES,
    TEMPLATE,
    decide,
    instance_of,
    run_strategy,
    template_hash,
)
from isoplane.objects import metadata

NOW = 1_000_000.0
Object = dict[str, Any]


def machine(
    strategy: str | None = "Always", *, status: Object | None = None, deleting: bool = False, **meta: Any
) -> Object:
    obj: Object = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": {
            "name": "vm",
            "namespace": "ns",
            "uid": "0b3c0c9e-0000-4000-8000-000000000001",
            "generation": 3,
            "finalizers": [FINALIZER],
            **meta,
        },
        "spec": {"template": {"metadata": {"labels": {"a": "b"}}, "spec": {"domain": {"devices": {}}}}},
        "status": status or {},
    }
    if strategy is not None:
        obj["spec"]["runStrategy"] = strategy
    if deleting:
        obj["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    return obj


def instance(vm: Object, phase: str = "Running", *, deleting: bool = False, grace: int = 30, **status: Any) -> Object:
    vmi = instance_of(vm)
    vmi["metadata"]["uid"] = "instance-1"
    vmi["status"] = {"phase": phase, **status}
    if deleting:
        vmi["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        vmi["metadata"]["deletionGracePeriodSeconds"] = grace
    return vmi


def act(vm: Object, vmi: Object | None) -> str:
    """The plan in a word."""
    plan = decide(vm, vmi, NOW)
    words = [
        word
        for word, holds in (
            ("start", plan.create is not None),
            ("stop", bool(plan.stop)),
            ("ask", plan.ask_start),
            ("wait", plan.wake_at is not None),
            ("spec=" + plan.strategy, bool(plan.strategy)),
            ("let go", plan.let_go),
            ("release", plan.release),
            ("problem", bool(plan.problem)),
        )
        if holds
    ]
    return ", ".join(words) or "-"


START = {"stateChangeRequests": [{"action": "Start"}]}
STOP = {"stateChangeRequests": [{"action": "Stop", "uid": "instance-1"}]}
STOP_OTHER = {"stateChangeRequests": [{"action": "Stop", "uid": "instance-0"}]}


@pytest.mark.parametrize(
    ("strategy", "none", "running", "succeeded", "failed"),
    [
        ("Always", "start", "-", "stop, let go", "stop, let go"),
        ("RerunOnFailure", "start", "-", "stop, let go", "stop, ask, let go"),
        ("Manual", "-", "-", "let go", "let go"),
        ("Once", "start", "-", "let go", "let go"),
        ("Halted", "-", "stop", "stop, let go", "stop, let go"),
        ("WaitAsReceiver", "-", "-", "let go", "let go"),
    ],
)
def test_what_each_strategy_does(strategy: str, none: str, running: str, succeeded: str, failed: str) -> None:
    vm = machine(strategy)
    assert act(vm, None) == none
    assert act(vm, instance(vm, "Running")) == running
    assert act(vm, instance(vm, "Succeeded")) == succeeded
    assert act(vm, instance(vm, "Failed")) == failed


@pytest.mark.parametrize(
    ("strategy", "start_requested", "stop_requested"),
    [
        ("Always", "start", "stop"),
        ("RerunOnFailure", "start", "stop"),
        ("Manual", "start", "stop"),
        ("Once", "start", "stop"),
        ("Halted", "spec=Always", "stop"),
    ],
)
def test_what_each_strategy_does_when_asked(strategy: str, start_requested: str, stop_requested: str) -> None:
    told = {"runStrategy": strategy}
    assert act(machine(strategy, status={**told, **START}), None) == start_requested
    vm = machine(strategy, status={**told, **STOP})
    assert act(vm, instance(vm)) == stop_requested


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s != "Halted"])
def test_a_request_to_stop_an_earlier_instance_is_not_for_this_one(strategy: str) -> None:
    vm = machine(strategy, status=STOP_OTHER)
    assert act(vm, instance(vm)) == "-"


def test_rerun_on_failure_stays_stopped_after_a_success_and_after_a_stop() -> None:
    vm = machine("RerunOnFailure", status={"runStrategy": "RerunOnFailure"})
    assert act(vm, None) == "-"


def test_rerun_on_failure_starts_when_the_strategy_is_new() -> None:
    assert act(machine("RerunOnFailure", status={"runStrategy": "Halted"}), None) == "start"


def test_a_stop_that_ends_in_failure_is_not_run_again() -> None:
    vm = machine("RerunOnFailure", status={"runStrategy": "RerunOnFailure", **STOP})
    assert act(vm, instance(vm, "Failed", deleting=True)) == "let go"


@pytest.mark.parametrize(("field", "strategy"), [(True, "Always"), (False, "Halted")])
def test_the_deprecated_running_field(field: bool, strategy: str) -> None:
    vm = machine(None)
    vm["spec"]["running"] = field
    assert run_strategy(vm) == strategy


def test_nothing_said_means_halted() -> None:
    assert run_strategy(machine(None)) == "Halted"


def test_an_unknown_strategy_is_a_problem_and_does_nothing() -> None:
    assert act(machine("Sometimes"), None) == "problem"


def test_back_off_is_waited_for() -> None:
    failure = {"startFailure": {"retryAfterTimestamp": metadata.rfc3339(NOW + 30), "consecutiveFailCount": 1}}
    plan = decide(machine(status=failure), None, NOW)
    assert plan.create is None
    assert plan.wake_at == NOW + 30
    assert decide(machine(status=failure), None, NOW + 31).create is not None


def test_a_deleted_vm_stops_its_instance_first() -> None:
    vm = machine(deleting=True)
    assert act(vm, instance(vm)) == "stop"
    assert act(vm, instance(vm, deleting=True)) == "-"
    assert act(vm, instance(vm, "Succeeded", deleting=True)) == "let go"
    assert act(vm, None) == "release"


def test_a_deleted_vm_may_leave_its_instance_behind() -> None:
    vm = machine(deleting=True, finalizers=[FINALIZER, "orphan"])
    assert act(vm, instance(vm)) == "let go, release"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_instance_that_belongs_to_nobody_is_taken_over(strategy: str) -> None:
    vm = machine(strategy)
    alone = instance(vm)
    alone["metadata"].update(ownerReferences=[], finalizers=[])
    assert decide(vm, alone, NOW).adopt == "instance-1"
    assert act(machine(deleting=True), alone) == "release"
    leaving = instance(vm, deleting=True)
    leaving["metadata"].update(ownerReferences=[], finalizers=[])
    assert act(vm, leaving) == "problem"


def test_an_instance_that_was_set_free_is_not_held() -> None:
    vm = machine()
    free = instance(vm, deleting=True)
    free["metadata"]["ownerReferences"] = []
    assert act(vm, free) == "let go, problem"
    assert act(machine(deleting=True), free) == "let go, release"


def test_an_instance_of_an_earlier_vm_of_that_name_is_left_alone() -> None:
    vm = machine()
    stranger = instance(vm)
    stranger["metadata"]["ownerReferences"][0]["uid"] = "another"
    assert act(vm, stranger) == "problem"


PREEMPTED = {
    "conditions": [
        {"type": "DisruptionTarget", "status": "True", "reason": "PreemptedByQuota", "message": "by pod/ns/critical"}
    ]
}
SUSPENDED = {"conditions": [{"type": "QuotaSuspended", "status": "True", "reason": "PreemptedByQuota"}]}


@pytest.mark.parametrize("strategy", ["Always", "RerunOnFailure", "Manual", "Once"])
def test_an_instance_that_quota_took_back_is_created_again(strategy: str) -> None:
    vm = machine(strategy, status={"runStrategy": strategy, **SUSPENDED})
    assert act(vm, instance(vm, "Succeeded", deleting=True, **PREEMPTED)) == "let go"
    assert act(vm, None) == "start"


def test_a_halted_vm_is_not_resumed_by_quota() -> None:
    assert act(machine("Halted", status={"runStrategy": "Always", **SUSPENDED}), None) == "-"


def test_a_pending_instance_that_is_deleted_is_let_go() -> None:
    """It never ran, so no end will ever be told."""
    vm = machine()
    assert act(vm, instance(vm, "Pending", deleting=True, grace=0)) == "let go"
    assert act(vm, instance(vm, "Running", deleting=True, grace=30)) == "-"


def test_manual_makes_room_for_a_start_that_is_asked_for() -> None:
    vm = machine("Manual", status=START)
    assert act(vm, instance(vm, "Succeeded")) == "stop, let go"


def test_the_instance_is_the_template_owned_and_named() -> None:
    vm = machine()
    vm["spec"]["template"]["metadata"]["annotations"] = {"note": "x"}
    vmi = instance_of(vm)
    assert vmi["metadata"]["name"] == "vm"
    assert vmi["metadata"]["labels"] == {"a": "b"}
    assert vmi["metadata"]["annotations"] == {"note": "x", GENERATION: "3", TEMPLATE: template_hash(vm)}
    assert metadata.controller_of(vmi) == metadata.owner_reference(vm)
    assert vmi["spec"]["domain"] == {"devices": {}, "firmware": {"uuid": metadata.uid(vm)}}
    assert "firmware" not in vm["spec"]["template"]["spec"]["domain"]


def test_a_firmware_identity_that_the_author_gave_stays() -> None:
    vm = machine()
    vm["spec"]["template"]["spec"]["domain"]["firmware"] = {"uuid": "mine"}
    assert instance_of(vm)["spec"]["domain"]["firmware"] == {"uuid": "mine"}


def test_start_paused() -> None:
    vm = machine(status={"stateChangeRequests": [{"action": "Start", "data": {"paused": "true"}}]})
    vmi = instance_of(vm)
    assert vmi["spec"]["startStrategy"] == "Paused"
    assert vmi["metadata"]["annotations"]["isoplane.io/paused"] == "true"


def test_a_change_beside_the_template_brings_the_generation_up_to_date() -> None:
    vm = machine()
    vmi = instance(vm)
    vm["metadata"]["generation"] = 4
    assert decide(vm, vmi, NOW).bump
    vm["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 5
    assert not decide(vm, vmi, NOW).bump


phases = st.sampled_from(["", "Pending", "Scheduling", "Scheduled", "Running", "Succeeded", "Failed"])
requests = st.sampled_from([{}, START, STOP, STOP_OTHER])


@given(
    strategy=st.sampled_from(STRATEGIES),
    phase=st.none() | phases,
    request=requests,
    deleting=st.booleans(),
    going=st.booleans(),
    suspended=st.booleans(),
)
def test_plans_are_sane(
    strategy: str, phase: str | None, request: Object, deleting: bool, going: bool, suspended: bool
) -> None:
    """Never started beside an instance, never while it is deleted; never stopped twice; never released too early."""
    status = {**request, **(SUSPENDED if suspended else {})}
    vm = machine(strategy, status=status, deleting=deleting)
    vmi = None if phase is None else instance(vm, phase, deleting=going)
    plan = decide(vm, vmi, NOW)
    if plan.create is not None:
        assert vmi is None
        assert not deleting
        assert strategy not in ("Halted", "WaitAsReceiver")
    if plan.stop:
        assert vmi is not None
        assert not metadata.is_deleting(vmi)
    if plan.release:
        assert deleting
        assert vmi is None
    if strategy == "Halted" and vmi is not None and not going:
        assert plan.stop
    if plan.let_go:
        assert phase in ("Succeeded", "Failed")
