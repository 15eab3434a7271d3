"""What a VirtualMachine's status tells: of itself, of its instance, of what was planned and of what went wrong. Pure.

Stands beside :mod:`~isoplane.controllers.virtualmachine_plan`; the controller writes what this returns.
Source: KubeVirt's VirtualMachine controller (updateStatus, setPrintableStatus, syncConditions, syncStartFailureStatus).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from isoplane.controllers.virtualmachine_plan import (
    GENERATION,
    SUSPENDED,
    Plan,
    is_final,
    is_preempted,
    phase,
    run_strategy,
    start_requested,
    stop_requested,
    template_changed,
)
from isoplane.objects import metadata
from isoplane.objects.phase import ENDED
from isoplane.workload import backoff

RESTARTED = ("Always", "RerunOnFailure", "Once")
"""Strategies under which a failed start counts."""
_OWN = frozenset({"Ready", "Failure", "RestartRequired", SUSPENDED})
"""Conditions that are not simply copied from the instance."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the last attempt to act was refused. ``reason``: FailedCreate or FailedDelete."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class View:
    """What the words of the status are chosen by."""

    vm: Mapping[str, Any]
    vmi: Mapping[str, Any] | None
    status: Mapping[str, Any]
    plan: Plan

    def told(self, type_: str, status: str, reason: str = "") -> bool:
        """Whether the instance has this condition."""
        found = metadata.condition(self.vmi, type_) if self.vmi else None
        return found is not None and found.get("status") == status and (not reason or found.get("reason") == reason)

    @property
    def running(self) -> bool:
        return phase(self.vmi) == "Running"


def _stopping(view: View) -> bool:
    vmi = view.vmi
    return vmi is not None and not is_final(vmi) and (metadata.is_deleting(vmi) or bool(view.plan.stop))


def _starting(view: View) -> bool:
    if view.vmi is None:
        return view.plan.create is not None
    return phase(view.vmi) in ("", "Pending", "Scheduling", "Scheduled")


def _crash_looping(view: View) -> bool:
    if (view.vmi is not None and not is_final(view.vmi)) or view.plan.create is not None:
        return False
    failures = (view.status.get("startFailure") or {}).get("consecutiveFailCount") or 0
    return failures > 0 and run_strategy(view.vm) in RESTARTED


def _waiting_for_receiver(view: View) -> bool:
    return view.vmi is None and run_strategy(view.vm) == "WaitAsReceiver"


def _stopped(view: View) -> bool:
    return is_final(view.vmi) if view.vmi is not None else view.plan.create is None


PRINTABLE: tuple[tuple[str, Callable[[View], bool]], ...] = (
    ("Terminating", lambda view: metadata.is_deleting(view.vm)),
    ("Stopping", _stopping),
    ("Paused", lambda view: view.running and view.told("Paused", "True")),
    ("Running", lambda view: view.running),
    ("ErrorPvcNotFound", lambda view: view.told("Synchronized", "False", "FailedPvcNotFound")),
    ("ErrorUnschedulable", lambda view: view.told("PodScheduled", "False", "Unschedulable")),
    ("ErrImagePull", lambda view: view.told("Synchronized", "False", "ErrImagePull")),
    ("ImagePullBackOff", lambda view: view.told("Synchronized", "False", "ImagePullBackOff")),
    ("Starting", _starting),
    ("CrashLoopBackOff", _crash_looping),
    ("WaitingForReceiver", _waiting_for_receiver),
    ("Stopped", _stopped),
)
"""printableStatus, the first match wins, Unknown when none does.

Upstream's order, without the words for what is not served here (migrations, data volumes).  WaitingForReceiver stands
before Stopped, which would hide it: no instance is made before a migration comes.
"""


def status_of(
    vm: Mapping[str, Any],
    vmi: Mapping[str, Any] | None,
    plan: Plan,
    now: float,
    *,
    jitter: float = 0.0,
    failure: Failure | None = None,
) -> dict[str, Any]:
    """The status of ``vm`` with its own instance ``vmi`` (None: it has none). ``jitter`` in [0, 1) spreads back-offs."""
    status: dict[str, Any] = deepcopy(dict(vm.get("status") or {}))
    meta = vm.get("metadata") or {}
    status["created"] = vmi is not None
    ready = metadata.condition(vmi, "Ready") if vmi is not None else None
    status["ready"] = bool(ready and ready.get("status") == "True")
    if vmi is not None and (generation := metadata.annotations_of(vmi).get(GENERATION, "")).isdigit():
        status["observedGeneration"] = int(meta.get("generation") or 1) if plan.bump else int(generation)
        status["desiredGeneration"] = int(meta.get("generation") or 1)
    if status.get("runStrategy") or vmi is not None:
        status["runStrategy"] = run_strategy(vm)
    _requests(status, vmi, plan, failure)
    _start_failure(status, vm, vmi, now, jitter)
    status["conditions"] = _conditions(vm, vmi, plan, failure, metadata.rfc3339(now))
    view = View(vm, vmi, status, plan)
    status["printableStatus"] = next((name for name, holds in PRINTABLE if holds(view)), "Unknown")
    return status


def _requests(status: dict[str, Any], vmi: Mapping[str, Any] | None, plan: Plan, failure: Failure | None) -> None:
    """Drop the first request once it is done, add the one that the plan asks for."""
    pending = list(status.get("stateChangeRequests") or ())
    if pending and (_is_done(pending[0], vmi) or _is_being_done(pending[0], plan, failure)):
        pending.pop(0)
    if plan.ask_start:
        pending.append({"action": "Start"})
    if pending:
        status["stateChangeRequests"] = pending
    else:
        status.pop("stateChangeRequests", None)


def _is_done(request: Mapping[str, Any], vmi: Mapping[str, Any] | None) -> bool:
    if request.get("action") == "Stop":
        return vmi is None or request.get("uid") != metadata.uid(vmi)
    return vmi is not None and not metadata.is_deleting(vmi) and not is_final(vmi)


def _is_being_done(request: Mapping[str, Any], plan: Plan, failure: Failure | None) -> bool:
    """Whether the instance was just created as asked: told at once, or a guest that ends at once is started twice."""
    return request.get("action") == "Start" and plan.create is not None and failure is None


def ran_for(vmi: Mapping[str, Any], now: float) -> float:
    """Seconds since the instance began to run, up to its end; 0 when it never ran."""
    stamps = {
        str(entry.get("phase")): metadata.posix(entry.get("phaseTransitionTimestamp"))
        for entry in (vmi.get("status") or {}).get("phaseTransitionTimestamps") or ()
    }
    began = stamps.get("Running")
    if began is None:
        return 0.0
    ended = next((stamps[end] for end in ENDED if stamps.get(end)), None)
    return max(0.0, (ended or now) - began)


def _start_failure(
    status: dict[str, Any], vm: Mapping[str, Any], vmi: Mapping[str, Any] | None, now: float, jitter: float
) -> None:
    """Count crashes in a row.

    Upstream forgets them as soon as an instance runs, so a guest that panics while booting is restarted without end; here
    it has to run for ten minutes first, as a container has to.  What ended well, or was asked to end, breaks the row.
    """
    if run_strategy(vm) not in RESTARTED:
        status.pop("startFailure", None)
        return
    if vmi is None:
        return
    if ran_for(vmi, now) >= backoff.RESET_AFTER:
        status.pop("startFailure", None)
        return
    known = status.get("startFailure") or {}
    if known.get("lastFailedVMIUID") == metadata.uid(vmi):
        return
    asked = metadata.is_deleting(vmi) or is_preempted(vmi) or stop_requested(vm, vmi)
    crashed = phase(vmi) == "Failed" or (is_final(vmi) and not _ran(vmi))
    if asked or (is_final(vmi) and not crashed):
        status.pop("startFailure", None)
        return
    if not crashed:
        return
    count = int(known.get("consecutiveFailCount") or 0) + 1
    status["startFailure"] = {
        "consecutiveFailCount": count,
        "lastFailedVMIUID": metadata.uid(vmi),
        "retryAfterTimestamp": metadata.rfc3339(now + backoff.machine(count, jitter)),
    }


def _ran(vmi: Mapping[str, Any]) -> bool:
    stamps = (vmi.get("status") or {}).get("phaseTransitionTimestamps") or ()
    return any(entry.get("phase") == "Running" for entry in stamps)


def _conditions(
    vm: Mapping[str, Any], vmi: Mapping[str, Any] | None, plan: Plan, failure: Failure | None, now: str
) -> list[dict[str, Any]]:
    """Ready always; the instance's own as they are; Failure, RestartRequired and QuotaSuspended while they hold."""
    old = list((vm.get("status") or {}).get("conditions") or ())
    copied = [dict(c) for c in ((vmi or {}).get("status") or {}).get("conditions") or () if c.get("type") not in _OWN]
    kept = [c for c in old if c.get("type") in _OWN]
    result = metadata.set_condition(kept, _ready(vmi), now)
    result = _failure(result, plan, failure, now)
    if vmi is not None and not metadata.is_deleting(vmi) and not is_final(vmi) and template_changed(vm, vmi):
        changed = "a non-live-updatable field was changed in the template spec"
        entry = {"type": "RestartRequired", "status": "True", "reason": "TemplateChanged", "message": changed}
        result = metadata.set_condition(result, entry, now)
    else:
        result = metadata.drop_condition(result, "RestartRequired")
    return [*_suspended(result, vm, vmi, now), *copied]


def _ready(vmi: Mapping[str, Any] | None) -> dict[str, Any]:
    if vmi is None:
        return {"type": "Ready", "status": "False", "reason": "VMINotExists", "message": "VMI does not exist"}
    found = metadata.condition(vmi, "Ready")
    if found is None:
        message = "VMI is missing the Ready condition"
        return {"type": "Ready", "status": "False", "reason": "VMIConditionMissing", "message": message}
    return {key: found[key] for key in ("type", "status", "reason", "message") if found.get(key)}


def _failure(conditions: list[dict[str, Any]], plan: Plan, failure: Failure | None, now: str) -> list[dict[str, Any]]:
    if failure is None and plan.problem:
        failure = Failure("FailedCreate", plan.problem)
    if failure is not None:
        entry = {"type": "Failure", "status": "True", "reason": failure.reason, "message": failure.message}
        return metadata.set_condition(conditions, entry, now)
    # While the next attempt is still to come, the last one's failure is the news.
    return conditions if plan.stop else metadata.drop_condition(conditions, "Failure")


def _suspended(
    conditions: list[dict[str, Any]], vm: Mapping[str, Any], vmi: Mapping[str, Any] | None, now: str
) -> list[dict[str, Any]]:
    """QuotaSuspended from the moment quota takes the instance back until one runs again, or its owner stops it."""
    stopped_by_owner = run_strategy(vm) == "Halted" or metadata.is_deleting(vm)
    if vmi is not None and stop_requested(vm, vmi):
        stopped_by_owner = True
    if stopped_by_owner:
        return metadata.drop_condition(conditions, SUSPENDED)
    if is_preempted(vmi):
        target = metadata.condition(vmi or {}, "DisruptionTarget") or {}
        message = str(target.get("message") or "its quota was taken back")
        entry = {"type": SUSPENDED, "status": "True", "reason": "PreemptedByQuota", "message": message}
        return metadata.set_condition(conditions, entry, now)
    ended_alone = vmi is not None and is_final(vmi) and not start_requested(vm)
    if phase(vmi) == "Running" or ended_alone:
        return metadata.drop_condition(conditions, SUSPENDED)
    return conditions
