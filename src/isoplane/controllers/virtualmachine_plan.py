"""What a VirtualMachine does next: its run strategy, the requests on it and its instance in, one plan out. Pure.

Stands between the cache and :mod:`~isoplane.controllers.virtualmachine`, which carries the plan out and chooses nothing.
How the result is told is :mod:`~isoplane.controllers.virtualmachine_status`'s.
Source: KubeVirt's VirtualMachine controller (syncRunStrategy, setupVMIFromVM, isTrimFirstChangeRequestNeeded, the claim by
name).  Three things go beyond it: an instance that quota took back is created again whatever the
strategy; an instance that ended under Manual makes room when a start is asked for; and a crash is backed off
from even after the guest had begun to run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from isoplane.objects import metadata
from isoplane.objects.kinds import VIRTUALMACHINEINSTANCES
from isoplane.objects.metadata import Object
from isoplane.objects.phase import has_ended
from isoplane.workload.adapters import PAUSED_ANNOTATION

FINALIZER = "kubevirt.io/virtualMachineControllerFinalize"
"""On the VM: its instance is stopped first. On the instance: how it ended is recorded before it goes."""
ORPHAN = "orphan"
GENERATION = "kubevirt.io/vm-generation"
"""Annotation of the instance: the VM's generation whose template it runs."""
TEMPLATE = "isoplane.io/template-hash"
"""Annotation of the instance: which template it was made from; another one means that a restart is required."""
SUSPENDED = "QuotaSuspended"
"""Condition of a VM whose instance quota took back, until it runs again."""
STRATEGIES = ("Always", "Halted", "Manual", "RerunOnFailure", "Once", "WaitAsReceiver")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, in this order: hold, adopt, strategy, create, (status), let go, stop, bump; or release."""

    hold: bool = False
    """Put our finalizer on the VM."""
    adopt: str = ""
    """uid of the instance to take over: it bears our name and belongs to nobody."""
    strategy: str = ""
    """Write this run strategy into the spec."""
    create: Object | None = None
    stop: str = ""
    """uid of the instance to delete gracefully."""
    ask_start: bool = False
    """Remember in the status that it is to be started again."""
    bump: bool = False
    """Tell the instance that it runs the VM's present generation."""
    let_go: bool = False
    """Take our finalizer off the instance, once the status tells how it ended."""
    release: bool = False
    """Take our finalizer off the VM."""
    wake_at: float | None = None
    """POSIX seconds at which a back-off ends."""
    problem: str = ""
    """Why nothing can be done (condition Failure)."""


def run_strategy(vm: Mapping[str, Any]) -> str:
    """spec.runStrategy, or what the deprecated spec.running means; Halted when neither says anything."""
    spec = vm.get("spec") or {}
    if spec.get("runStrategy"):
        return str(spec["runStrategy"])
    return "Always" if spec.get("running") else "Halted"


def phase(vmi: Mapping[str, Any] | None) -> str:
    return str(((vmi or {}).get("status") or {}).get("phase") or "")


def is_final(vmi: Mapping[str, Any]) -> bool:
    return has_ended(vmi)


def is_over(vmi: Mapping[str, Any]) -> bool:
    """Whether nothing of it is left to wait for: it ended, or its deletion waits for finalizers only."""
    meta = vmi.get("metadata") or {}
    return is_final(vmi) or (metadata.is_deleting(vmi) and not meta.get("deletionGracePeriodSeconds"))


def is_preempted(vmi: Mapping[str, Any] | None) -> bool:
    """Whether quota takes it back."""
    target = metadata.condition(vmi, "DisruptionTarget") if vmi else None
    return bool(target and target.get("status") == "True" and target.get("reason") == "PreemptedByQuota")


def is_suspended(vm: Mapping[str, Any]) -> bool:
    suspended = metadata.condition(vm, SUSPENDED)
    return suspended is not None and suspended.get("status") == "True"


def owned(vm: Mapping[str, Any], vmi: Mapping[str, Any] | None) -> bool:
    owner = metadata.controller_of(vmi) if vmi is not None else None
    return owner is not None and owner.get("uid") == metadata.uid(vm)


def has_finalizer(obj: Mapping[str, Any], finalizer: str = FINALIZER) -> bool:
    return finalizer in ((obj.get("metadata") or {}).get("finalizers") or ())


def requests(vm: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list((vm.get("status") or {}).get("stateChangeRequests") or ())


def start_requested(vm: Mapping[str, Any]) -> bool:
    """Whether the first request, the only one looked at, is to start."""
    pending = requests(vm)
    return bool(pending) and pending[0].get("action") == "Start"


def stop_requested(vm: Mapping[str, Any], vmi: Mapping[str, Any]) -> bool:
    """Whether the first request is to stop this very instance."""
    pending = requests(vm)
    return bool(pending) and pending[0].get("action") == "Stop" and pending[0].get("uid") == metadata.uid(vmi)


def template_hash(vm: Mapping[str, Any]) -> str:
    """Which template spec this is, short enough for an annotation."""
    spec = ((vm.get("spec") or {}).get("template") or {}).get("spec") or {}
    return hashlib.sha256(json.dumps(spec, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def template_changed(vm: Mapping[str, Any], vmi: Mapping[str, Any]) -> bool:
    """Whether the instance was made from another template spec than the VM has now."""
    made_from = metadata.annotations_of(vmi).get(TEMPLATE)
    return made_from is not None and made_from != template_hash(vm)


def decide(vm: Mapping[str, Any], vmi: Mapping[str, Any] | None, now: float) -> Plan:
    """The plan for a VM and the instance of its name (None: there is none). ``now`` is POSIX seconds."""
    if vmi is not None and not owned(vm, vmi):
        return _strange(vm, vmi)
    let_go = vmi is not None and is_over(vmi) and has_finalizer(vmi)
    if metadata.is_deleting(vm):
        if vmi is None or has_finalizer(vm, ORPHAN):
            return Plan(release=True, let_go=vmi is not None)
        return Plan(stop=_stopping(vmi), let_go=let_go)
    hold = not has_finalizer(vm)
    if vmi is None:
        return _without(vm, now, hold)
    return _with(vm, vmi, hold, let_go)


def _strange(vm: Mapping[str, Any], vmi: Mapping[str, Any]) -> Plan:
    """An instance of our name that is not ours: taken over when it is nobody's, else told and left alone.

    Nobody's is what was set free by an orphaning deletion of an earlier VM, and what somebody made by hand.
    """
    alone = metadata.controller_of(vmi) is None
    free = alone and has_finalizer(vmi)
    if metadata.is_deleting(vm):
        return Plan(release=True, let_go=free)
    hold = not has_finalizer(vm)
    if alone and not metadata.is_deleting(vmi):
        return Plan(hold=hold, adopt=metadata.uid(vmi))
    why = "is not owned by this VirtualMachine: delete it, or give the VirtualMachine another name"
    return Plan(hold=hold, let_go=free, problem=f"the VirtualMachineInstance {metadata.key(vmi)} {why}")


def _stopping(vmi: Mapping[str, Any]) -> str:
    return "" if metadata.is_deleting(vmi) else metadata.uid(vmi)


def _without(vm: Mapping[str, Any], now: float, hold: bool) -> Plan:
    """There is no instance: start one, now or after a back-off, or leave it at that."""
    strategy = run_strategy(vm)
    asked = start_requested(vm)
    if strategy not in STRATEGIES:
        return Plan(hold, problem=f"spec.runStrategy {strategy!r} is not one of {', '.join(STRATEGIES)}")
    if strategy == "Halted" and asked:
        return Plan(hold, strategy="Always")
    # The status tells the strategy that was last acted on: another one than now means that this one never started it.
    # A crash is remembered too, in case it happened under another strategy.
    status = vm.get("status") or {}
    entered = status.get("runStrategy") != strategy or bool(status.get("startFailure"))
    wanted = {
        "Always": True,
        "Once": True,
        "RerunOnFailure": asked or entered or is_suspended(vm),
        "Manual": asked or is_suspended(vm),
    }
    if not wanted.get(strategy, False):
        return Plan(hold)
    retry_at = 0.0 if strategy == "Manual" else start_after(vm)
    if retry_at > now:
        return Plan(hold, wake_at=retry_at)
    return Plan(hold, create=instance_of(vm))


def _with(vm: Mapping[str, Any], vmi: Mapping[str, Any], hold: bool, let_go: bool) -> Plan:
    """There is an instance: keep it, or stop it (its successor is the next look's affair)."""
    strategy = run_strategy(vm)
    stop_asked, final = stop_requested(vm, vmi), is_final(vmi)
    ends = {
        "Always": stop_asked or final,
        "RerunOnFailure": stop_asked or final,
        "Manual": stop_asked or (final and (start_requested(vm) or is_preempted(vmi))),
        "Once": stop_asked or (final and is_preempted(vmi)),
        "Halted": True,
    }.get(strategy, False)
    if ends:
        failed = strategy == "RerunOnFailure" and phase(vmi) == "Failed" and not stop_asked
        again = failed and not metadata.is_deleting(vmi) and not start_requested(vm)
        return Plan(hold, stop=_stopping(vmi), ask_start=again, let_go=let_go)
    known = metadata.annotations_of(vmi).get(GENERATION)
    behind = known is not None and known != _generation(vm)
    return Plan(hold, bump=behind and not metadata.is_deleting(vmi) and not template_changed(vm, vmi), let_go=let_go)


def start_after(vm: Mapping[str, Any]) -> float:
    """POSIX seconds before which a VM that failed is not started again; 0 when it did not fail."""
    failure = (vm.get("status") or {}).get("startFailure") or {}
    return metadata.posix(failure.get("retryAfterTimestamp")) or 0.0


def _generation(vm: Mapping[str, Any]) -> str:
    return str((vm.get("metadata") or {}).get("generation") or 1)


def instance_of(vm: Mapping[str, Any]) -> Object:
    """The instance that a VM starts: its template, named and owned by it."""
    template = (vm.get("spec") or {}).get("template") or {}
    own = template.get("metadata") or {}
    spec = deepcopy(dict(template.get("spec") or {}))
    annotations = {**(own.get("annotations") or {}), GENERATION: _generation(vm), TEMPLATE: template_hash(vm)}
    pending = requests(vm)
    if pending and (pending[0].get("data") or {}).get("paused") == "true":
        spec["startStrategy"] = "Paused"
    if spec.get("startStrategy") == "Paused":
        annotations[PAUSED_ANNOTATION] = "true"
    domain = {**(spec.get("domain") or {})}
    # A guest finds the same machine at every start: the firmware's identity is the VM's own.
    domain["firmware"] = {"uuid": metadata.uid(vm), **(domain.get("firmware") or {})}
    spec["domain"] = domain
    meta: dict[str, Any] = {
        "name": metadata.name(vm),
        "namespace": metadata.namespace(vm),
        "annotations": annotations,
        "ownerReferences": [metadata.owner_reference(vm)],
        "finalizers": [FINALIZER],
    }
    if own.get("labels"):
        meta["labels"] = dict(own["labels"])
    return {
        "apiVersion": VIRTUALMACHINEINSTANCES.api_version,
        "kind": VIRTUALMACHINEINSTANCES.kind,
        "metadata": meta,
        "spec": spec,
    }
