"""What a VirtualMachine tells: the printable status in upstream's order, conditions, crashes in a row, suspension."""

from __future__ import annotations

from typing import Any

import pytest
from test_virtualmachine_plan import NOW, PREEMPTED, START, STOP, STOP_OTHER, Object, instance, machine

from isoplane.controllers.virtualmachine_plan import Plan, decide
from isoplane.controllers.virtualmachine_status import PRINTABLE, Failure, ran_for, status_of
from isoplane.objects import metadata

UPSTREAM = (
    "Terminating", "Stopping", "Migrating", "Paused", "Running", "ErrorPvcNotFound", "DataVolumeError",
    "ErrorUnschedulable", "Provisioning", "WaitingForVolumeBinding", "ErrImagePull", "ImagePullBackOff", "Starting",
    "CrashLoopBackOff", "Stopped", "WaitingForReceiver",
)  # fmt: skip


def tell(vm: Object, vmi: Object | None, now: float = NOW, **kwargs: Any) -> Object:
    return status_of(vm, vmi, decide(vm, vmi, now), now, **kwargs)


def printed(vm: Object, vmi: Object | None, now: float = NOW) -> str:
    return str(tell(vm, vmi, now)["printableStatus"])


def condition(status: Object, type_: str) -> tuple[str, str] | None:
    found = metadata.condition({"status": status}, type_)
    return (str(found["status"]), str(found.get("reason", ""))) if found else None


def stamps(**at: float) -> list[Object]:
    return [{"phase": p, "phaseTransitionTimestamp": metadata.rfc3339(t)} for p, t in at.items()]


def test_the_words_come_in_upstreams_order() -> None:
    words = [name for name, _ in PRINTABLE if name != "WaitingForReceiver"]
    assert words == [name for name in UPSTREAM if name in words]


def cond(type_: str, status: str, reason: str = "") -> Object:
    return {"conditions": [{"type": type_, "status": status, "reason": reason}]}


@pytest.mark.parametrize(
    ("phase", "status", "expected"),
    [
        ("", {}, "Starting"),
        ("Pending", {}, "Starting"),
        ("Pending", cond("QuotaAdmitted", "False", "WaitingForQuota"), "Starting"),
        ("Scheduling", {}, "Starting"),
        ("Scheduled", {}, "Starting"),
        ("Running", {}, "Running"),
        ("Running", cond("Paused", "True", "PausedByUser"), "Paused"),
        ("Pending", cond("PodScheduled", "False", "Unschedulable"), "ErrorUnschedulable"),
        ("Scheduling", cond("Synchronized", "False", "ErrImagePull"), "ErrImagePull"),
        ("Scheduling", cond("Synchronized", "False", "ImagePullBackOff"), "ImagePullBackOff"),
        ("Scheduling", cond("Synchronized", "False", "FailedPvcNotFound"), "ErrorPvcNotFound"),
        ("Succeeded", {}, "Stopped"),
    ],
)
def test_printable_status_by_the_instance(phase: str, status: Object, expected: str) -> None:
    vm = machine("Manual")
    assert printed(vm, instance(vm, phase, **status)) == expected


def test_printable_status_without_an_instance() -> None:
    assert printed(machine("Always"), None) == "Starting"
    assert printed(machine("Halted"), None) == "Stopped"
    assert printed(machine("WaitAsReceiver"), None) == "WaitingForReceiver"
    failure = {"startFailure": {"retryAfterTimestamp": metadata.rfc3339(NOW + 30), "consecutiveFailCount": 2}}
    assert printed(machine("Always", status=failure), None) == "CrashLoopBackOff"
    assert printed(machine("Always", deleting=True), None) == "Terminating"


def test_stopping_while_the_instance_is_deleted_or_about_to_be() -> None:
    vm = machine("Halted")
    assert printed(vm, instance(vm, "Running")) == "Stopping"
    assert printed(vm, instance(vm, "Running", deleting=True)) == "Stopping"


def test_ready_follows_the_instance() -> None:
    vm = machine()
    assert condition(tell(vm, None), "Ready") == ("False", "VMINotExists")
    assert condition(tell(vm, instance(vm)), "Ready") == ("False", "VMIConditionMissing")
    status = tell(vm, instance(vm, **cond("Ready", "True")))
    assert condition(status, "Ready") == ("True", "")
    assert status["ready"] is True
    assert status["created"] is True
    assert tell(vm, None)["created"] is False


def test_the_instances_conditions_are_copied_and_go_with_it() -> None:
    vm = machine()
    vm["status"] = tell(vm, instance(vm, **cond("Paused", "True", "PausedByUser")))
    assert condition(vm["status"], "Paused") == ("True", "PausedByUser")
    assert condition(tell(vm, None), "Paused") is None


def test_generations() -> None:
    vm = machine()
    vmi = instance(vm)
    vm["metadata"]["generation"] = 4
    vm["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 1
    status = tell(vm, vmi)
    assert (status["observedGeneration"], status["desiredGeneration"]) == (3, 4)
    assert condition(status, "RestartRequired") == ("True", "TemplateChanged")
    assert condition(tell(vm, None), "RestartRequired") is None


def test_the_strategy_is_told_once_there_was_an_instance() -> None:
    vm = machine("RerunOnFailure")
    assert "runStrategy" not in tell(vm, None)
    assert tell(vm, instance(vm))["runStrategy"] == "RerunOnFailure"


@pytest.mark.parametrize(
    ("request_", "phase", "left"),
    [
        (START, "Pending", 0),
        (START, "Running", 0),
        (START, "Failed", 1),
        (START, None, 1),
        (STOP, "Running", 1),
        (STOP, None, 0),
        (STOP_OTHER, "Running", 0),
    ],
)
def test_requests_go_when_they_are_done(request_: Object, phase: str | None, left: int) -> None:
    vm = machine("Manual", status=request_)
    vmi = instance(vm, phase) if phase is not None else None
    status = status_of(vm, vmi, Plan(), NOW)
    assert len(status.get("stateChangeRequests", ())) == left


def test_a_start_is_done_once_the_instance_is_created_and_not_when_that_failed() -> None:
    vm = machine("Manual", status=START)
    assert "stateChangeRequests" not in tell(vm, None)
    refused = tell(vm, None, failure=Failure("FailedCreate", "no"))
    assert refused["stateChangeRequests"] == START["stateChangeRequests"]


def test_a_restart_stops_this_one_then_starts_the_next() -> None:
    both = [*STOP["stateChangeRequests"], *START["stateChangeRequests"]]
    vm = machine("Manual", status={"stateChangeRequests": both})
    vmi = instance(vm)
    assert decide(vm, vmi, NOW).stop
    vm["status"] = tell(vm, None)
    assert vm["status"]["stateChangeRequests"] == START["stateChangeRequests"]
    assert decide(vm, None, NOW).create is not None
    assert "stateChangeRequests" not in tell(vm, None)


def test_a_failed_run_is_remembered_as_a_request_to_start() -> None:
    vm = machine("RerunOnFailure")
    vmi = instance(vm, "Failed")
    vm["status"] = tell(vm, vmi)
    assert vm["status"]["stateChangeRequests"] == [{"action": "Start"}]
    assert not decide(vm, vmi, NOW).ask_start


def crash(vm: Object, uid: str, ran: float = 5.0, at: float = NOW) -> Object:
    vmi = instance(vm, "Failed", phaseTransitionTimestamps=stamps(Running=at - ran, Failed=at))
    vmi["metadata"]["uid"] = uid
    return vmi


def test_crashes_in_a_row_are_counted_once_each_and_waited_out_ever_longer() -> None:
    vm = machine()
    waits = []
    for number in range(1, 8):
        vmi = crash(vm, f"i-{number}")
        for _ in range(2):
            vm["status"] = tell(vm, vmi)
        failure = vm["status"]["startFailure"]
        assert failure["consecutiveFailCount"] == number
        assert failure["lastFailedVMIUID"] == f"i-{number}"
        retry = metadata.posix(failure["retryAfterTimestamp"])
        assert retry is not None
        waits.append(retry - NOW)
    assert waits == [10, 40, 90, 160, 250, 300, 300]


def test_jitter_spreads_the_wait() -> None:
    vm = machine()
    failure = tell(vm, crash(vm, "i"), jitter=0.99)["startFailure"]
    retry = metadata.posix(failure["retryAfterTimestamp"])
    assert retry is not None
    assert 10 <= retry - NOW <= 15


def test_ten_minutes_of_running_forgive_everything() -> None:
    vm = machine(status={"startFailure": {"consecutiveFailCount": 4, "lastFailedVMIUID": "old"}})
    assert "startFailure" not in tell(vm, crash(vm, "i", ran=601))
    running = instance(vm, "Running", phaseTransitionTimestamps=stamps(Running=NOW - 700))
    assert "startFailure" not in tell(vm, running)
    young = instance(vm, "Running", phaseTransitionTimestamps=stamps(Running=NOW - 5))
    assert tell(vm, young)["startFailure"]["consecutiveFailCount"] == 4


def test_what_was_asked_to_end_did_not_crash() -> None:
    vm = machine()
    preempted = {**crash(vm, "i")["status"], **PREEMPTED}
    for vmi in (instance(vm, "Failed", deleting=True), instance(vm, **{**preempted, "phase": "Failed"})):
        assert "startFailure" not in tell(vm, vmi)
    asked = machine(status=STOP)
    assert "startFailure" not in tell(asked, instance(asked, "Failed"))


def test_a_success_that_never_ran_counts_and_one_that_ran_does_not() -> None:
    vm = machine()
    assert tell(vm, instance(vm, "Succeeded"))["startFailure"]["consecutiveFailCount"] == 1
    ran = instance(vm, "Succeeded", phaseTransitionTimestamps=stamps(Running=NOW - 5, Succeeded=NOW))
    assert "startFailure" not in tell(vm, ran)


def test_a_good_end_or_being_asked_to_end_breaks_the_row() -> None:
    crashed = {"startFailure": {"consecutiveFailCount": 2, "lastFailedVMIUID": "old"}}
    vm = machine("RerunOnFailure", status={"runStrategy": "RerunOnFailure", **crashed})
    well = instance(vm, "Succeeded", phaseTransitionTimestamps=stamps(Running=NOW - 5, Succeeded=NOW))
    assert "startFailure" not in tell(vm, well)
    assert "startFailure" not in tell(vm, instance(vm, "Running", deleting=True))
    assert tell(vm, instance(vm, "Running"))["startFailure"]["consecutiveFailCount"] == 2
    assert decide(vm, None, NOW).create is not None, "a crash under another strategy is run again"


@pytest.mark.parametrize("strategy", ["Manual", "Halted"])
def test_strategies_that_do_not_restart_count_nothing(strategy: str) -> None:
    vm = machine(strategy, status={"startFailure": {"consecutiveFailCount": 4}})
    assert "startFailure" not in tell(vm, crash(vm, "i"))


def test_how_long_it_ran() -> None:
    assert ran_for({"status": {"phaseTransitionTimestamps": stamps(Pending=1)}}, NOW) == 0
    assert ran_for({"status": {"phaseTransitionTimestamps": stamps(Running=100, Failed=160)}}, NOW) == 60
    assert ran_for({"status": {"phaseTransitionTimestamps": stamps(Running=NOW - 7)}}, NOW) == 7


def test_suspended_from_the_preemption_until_it_runs_again() -> None:
    vm = machine("Manual", status={"runStrategy": "Manual"})
    vm["status"] = tell(vm, instance(vm, "Running", deleting=True, **PREEMPTED))
    found = metadata.condition(vm, "QuotaSuspended")
    assert found is not None
    assert (found["status"], found["reason"], found["message"]) == ("True", "PreemptedByQuota", "by pod/ns/critical")
    vm["status"] = tell(vm, instance(vm, "Succeeded", deleting=True, **PREEMPTED))
    vm["status"] = tell(vm, None)
    assert condition(vm["status"], "QuotaSuspended") == ("True", "PreemptedByQuota")
    again = {"conditions": [{"type": "QuotaAdmitted", "status": "False", "reason": "WaitingForQuota"}]}
    vm["status"] = tell(vm, instance(vm, "Pending", **again))
    assert condition(vm["status"], "QuotaSuspended") == ("True", "PreemptedByQuota")
    vm["status"] = tell(vm, instance(vm, "Running"))
    assert condition(vm["status"], "QuotaSuspended") is None


@pytest.mark.parametrize("strategy", ["Halted", "Manual"])
def test_its_owner_ends_the_suspension(strategy: str) -> None:
    suspended = {"conditions": [{"type": "QuotaSuspended", "status": "True", "reason": "PreemptedByQuota"}]}
    vm = machine(strategy, status={**STOP, **suspended})
    status = tell(vm, instance(vm, "Pending"))
    assert condition(status, "QuotaSuspended") is None


def test_failures_are_told_until_an_attempt_succeeds() -> None:
    vm = machine()
    vm["status"] = tell(vm, None, failure=Failure("FailedCreate", "exceeded quota: team"))
    found = metadata.condition(vm, "Failure")
    assert found is not None
    assert (found["status"], found["reason"], found["message"]) == ("True", "FailedCreate", "exceeded quota: team")
    assert condition(tell(vm, instance(vm)), "Failure") is None


def test_a_stranger_in_its_place_is_a_failure() -> None:
    vm = machine()
    stranger = instance(vm)
    stranger["metadata"]["ownerReferences"][0]["uid"] = "another"
    plan = decide(vm, stranger, NOW)
    status = status_of(vm, None, plan, NOW)
    assert condition(status, "Failure") == ("True", "FailedCreate")
    assert status["created"] is False


def test_telling_twice_says_the_same() -> None:
    vm = machine()
    vmi = instance(vm, "Failed", **cond("Ready", "False", "GuestNotRunning"))
    vm["status"] = tell(vm, vmi)
    assert tell(vm, vmi, NOW + 5, jitter=0.7) == vm["status"]
