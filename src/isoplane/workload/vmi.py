"""The VirtualMachineInstance adapter: everything that is so only of virtual machines.

Source: kubevirt.io/api/core/v1 (VirtualMachineInstanceSpec, -Status, phases and conditions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isoplane.objects import metadata
from isoplane.objects.kinds import CONFIGMAPS, SECRETS, VIRTUALMACHINEINSTANCES, Resource
from isoplane.objects.metadata import Object
from isoplane.objects.phase import ENDED
from isoplane.workload import common, impossible, networked
from isoplane.workload.accounting import DEFAULT_ACCOUNTING, Accounting
from isoplane.workload.adapters import (
    ACCELERATOR_ANNOTATION,
    PREEMPTION_ANNOTATION,
    PRIORITY_ANNOTATION,
    QUOTA_GATE,
    Report,
    Waiting,
    Write,
)
from isoplane.workload.fields import machine as fields
from isoplane.workload.health import Health
from isoplane.workload.limits import vmi_violations
from isoplane.workload.machine import MachineAsks, machine_asks, scopes
from isoplane.workload.machine_offer import MachineOffer
from isoplane.workload.networked import Networked, Port
from isoplane.workload.shape import (
    Claim,
    InterfaceType,
    Reference,
    RestartRule,
    Stage,
    Unit,
    UnitObserved,
    UnitState,
    Workload,
)
from isoplane.workload.wording import MachineWording, Wording

UNIT = "machine"
"""The one unit of a virtual machine."""

ADMITTED = "QuotaAdmitted"
"""Condition of a VMI that waits for quota; absent or True when it does not."""

POWER_BUTTON_RESEND = 5.0
"""Seconds between two presses: a booting guest misses the first."""

PHASES: dict[Stage, str] = {
    Stage.ACCEPTED: "Pending",
    Stage.GATED: "Pending",
    Stage.PLACED: "Scheduling",
    Stage.PREPARING: "Scheduled",
    Stage.RUNNING: "Running",
    Stage.SUCCEEDED: "Succeeded",
    Stage.FAILED: "Failed",
}
"""Stage → VMI phase. Stopping keeps whatever phase the VMI has."""
_STAGES: dict[str, Stage] = {
    "Scheduling": Stage.PLACED,
    "Scheduled": Stage.PREPARING,
    "Running": Stage.RUNNING,
    "Succeeded": Stage.SUCCEEDED,
    "Failed": Stage.FAILED,
}


class MachineAdapter:
    """VMIs as workloads: one unit, a tap as the interface, the ACPI power button as the graceful stop."""

    resource: Resource = VIRTUALMACHINEINSTANCES
    wording: Wording = MachineWording()

    def claim(self, obj: Mapping[str, Any], accounting: Accounting) -> Claim:
        return Claim(**_claim(obj, _asks(obj, accounting)))

    def networked(self, obj: Mapping[str, Any]) -> Networked:
        return networked.machine(obj)

    def project(self, obj: Mapping[str, Any]) -> Workload:
        spec, meta = obj.get("spec") or {}, obj.get("metadata") or {}
        seconds, deadline = common.grace(obj)
        asks, seen = _asks(obj, DEFAULT_ACCOUNTING), self.networked(obj)
        return Workload(
            **_claim(obj, asks),
            generation=int(meta.get("generation") or 1),
            labels=seen.labels,
            annotations=metadata.annotations_of(obj),
            desired=common.desired(obj),
            grace_seconds=seconds,
            stop_deadline=deadline,
            restart=RestartRule.NEVER,
            graceful_resend=POWER_BUTTON_RESEND,
            runtime="qemu",
            interface=InterfaceType.TAP,
            units=(_machine(spec, asks, seen.ports),),
            recipe=spec,
            volumes=tuple(spec.get("volumes") or ()),
            references=_references(spec),
            ports=seen.ports,
            exposed=seen.exposed,
            hostname=str(spec.get("hostname") or metadata.name(obj))[:63],
            service_account="default",
            node=seen.node,
            node_selector=spec.get("nodeSelector") or {},
            tolerations=tuple(spec.get("tolerations") or ()),
            node_affinity=common.node_affinity(spec),
            scheduler=str(spec.get("schedulerName") or ""),
            transitions=common.transitions(obj),
            addresses=seen.addresses,
        )

    def place(self, obj: Mapping[str, Any], node: str, now: float) -> Write:
        new = common.copy(obj)
        new["status"]["nodeName"] = node
        self._phase(new, Stage.PLACED, now)
        common.remove_condition(new, "PodScheduled")
        common.remove_condition(new, "Synchronized")
        common.with_transitions(new, {Stage.PLACED: now})
        return Write(new, "status")

    def unplaceable(self, obj: Mapping[str, Any], message: str, now: float) -> Object:
        new = common.copy(obj)
        self._phase(new, Stage.ACCEPTED, now)
        common.put_condition(new, now, "PodScheduled", "False", "Unschedulable", message)
        return new

    def nominate(self, obj: Mapping[str, Any], node: str) -> Object:
        return dict(obj)  # KubeVirt has no field for it

    def gate(self, obj: Mapping[str, Any], message: str, now: float) -> Object:
        new = common.copy(obj)
        self._phase(new, Stage.GATED, now)
        common.put_condition(new, now, ADMITTED, "False", "WaitingForQuota", message)
        common.with_transitions(new, {Stage.GATED: now})
        return new

    def ungate(self, obj: Mapping[str, Any], now: float) -> Object:
        new = common.copy(obj)
        common.put_condition(new, now, ADMITTED, "True", "QuotaReserved", "its quota is charged")
        return new

    def mark_victim(self, obj: Mapping[str, Any], reason: str, message: str, now: float) -> Object:
        return common.victim(obj, reason, message, now)

    def set_priority(self, obj: Mapping[str, Any], class_name: str, value: int, preemption_policy: str) -> Object:
        meta = dict(obj.get("metadata") or {})
        meta["annotations"] = {
            **(meta.get("annotations") or {}),
            PRIORITY_ANNOTATION: str(value),
            PREEMPTION_ANNOTATION: preemption_policy,
        }
        spec = dict(obj.get("spec") or {})
        if class_name:
            spec["priorityClassName"] = class_name
        return {**obj, "metadata": meta, "spec": spec}

    def fill_limits(self, obj: Mapping[str, Any], ranges: Sequence[Mapping[str, Any]]) -> tuple[Object, list[str]]:
        return dict(obj), []

    def limit_violations(self, obj: Mapping[str, Any], limit_range: Mapping[str, Any]) -> list[str]:
        return vmi_violations(obj.get("spec") or {}, limit_range)

    def trouble(self, obj: Mapping[str, Any], unit: str = "") -> Waiting | None:
        status = obj.get("status") or {}
        for type_, reason in ((ADMITTED, common.GATED), ("Synchronized", "")):
            told = metadata.condition(obj, type_) or {}
            if told.get("status") == "False":
                return Waiting(reason or str(told.get("reason") or ""), str(told.get("message") or ""))
        if (unplaced := common.unplaced(obj)) is not None:
            return unplaced
        return Waiting(str(status["reason"])) if status.get("phase") == "Failed" and status.get("reason") else None

    def ineffective(self, obj: Mapping[str, Any]) -> list[str]:
        return [f"{where}: has no effect: {why}" for where, why in fields.WARNED.found(obj)]

    def impossible(self, obj: Mapping[str, Any], offer: MachineOffer) -> list[tuple[str, str]]:
        return list(impossible.machine(obj.get("spec") or {}, offer))

    def report(self, obj: Mapping[str, Any], report: Report, now: float) -> Object:
        new, spec = common.copy(obj), obj.get("spec") or {}
        status = new["status"]
        seen = report.observed.unit(UNIT) if report.observed else UnitObserved(UNIT, UnitState.ABSENT)
        self._phase(new, report.stage, now)
        if report.node:
            status["nodeName"] = report.node
        if report.addresses:
            networks = spec.get("networks") or ({"name": "default"},)
            status["interfaces"] = [
                {
                    "name": networks[0].get("name", "default"),
                    "ipAddress": report.addresses[0],
                    "ipAddresses": list(report.addresses),
                    **({"mac": seen.details["mac"]} if seen.details.get("mac") else {}),
                }
            ]
        status["qosClass"] = status.get("qosClass") or "Burstable"
        if accelerator := seen.details.get("accelerator"):
            common.annotate(new, ACCELERATOR_ANNOTATION, str(accelerator))
        status.pop("accelerator", None)  # earlier versions wrote it there, where KubeVirt's schema has no such field
        if report.reason or seen.reason:
            status["reason"] = report.reason or seen.reason
        _conditions(new, report, seen, now)
        common.with_transitions(new, report.transitions)
        return new

    @staticmethod
    def _phase(obj: Object, stage: Stage, now: float) -> None:
        status = obj.setdefault("status", {})
        phase = PHASES.get(stage) or status.get("phase") or "Pending"
        if stage is Stage.STOPPING and not status.get("phase"):
            phase = "Pending"
        status["phase"] = phase
        stamps = status.get("phaseTransitionTimestamps") or []
        if phase not in {entry.get("phase") for entry in stamps}:
            stamp = {"phase": phase, "phaseTransitionTimestamp": metadata.rfc3339(now)}
            status["phaseTransitionTimestamps"] = [*stamps, stamp]


def _asks(obj: Mapping[str, Any], accounting: Accounting) -> MachineAsks:
    return machine_asks(obj.get("spec") or {}, accounting, metadata.annotations_of(obj))


def _claim(obj: Mapping[str, Any], asks: MachineAsks) -> dict[str, Any]:
    """The fields of a Claim."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    gated = _is_gated(obj)
    return {
        "resource": VIRTUALMACHINEINSTANCES,
        "namespace": metadata.namespace(obj),
        "name": metadata.name(obj),
        "uid": metadata.uid(obj),
        "created": str((obj.get("metadata") or {}).get("creationTimestamp") or ""),
        "priority": common.recorded_priority(obj),
        "priority_class": common.priority_class(obj),
        "preemption_policy": metadata.annotations_of(obj).get(PREEMPTION_ANNOTATION, "PreemptLowerPriority"),
        "request": asks.requests,
        "limits": asks.limits,
        "unspecified": asks.unspecified,
        "guest": asks.guest,
        "overhead": asks.overhead,
        "disruption_cost": 10,
        "gates": (QUOTA_GATE,) if gated else (),
        "stage": _stage(obj, status, gated),
        "deleting": metadata.is_deleting(obj),
        "owned_by_tenant": metadata.controller_of(obj) is not None,
        "scopes": scopes(spec),
    }


def _is_gated(obj: Mapping[str, Any]) -> bool:
    admitted = metadata.condition(obj, ADMITTED)
    return admitted is not None and admitted.get("status") == "False"


def _stage(obj: Mapping[str, Any], status: Mapping[str, Any], gated: bool) -> Stage:
    phase = str(status.get("phase") or "")
    if phase in ENDED:
        return Stage(phase)
    if metadata.is_deleting(obj):
        return Stage.STOPPING
    if gated:
        return Stage.GATED
    return _STAGES.get(phase, Stage.ACCEPTED)


def _machine(spec: Mapping[str, Any], asks: MachineAsks, declared: tuple[Port, ...]) -> Unit:
    domain = spec.get("domain") or {}
    kernel = ((domain.get("firmware") or {}).get("kernelBoot") or {}).get("container") or {}
    disks = [v["containerDisk"].get("image") for v in spec.get("volumes") or () if v.get("containerDisk")]
    ports = {p.name: p.number for p in declared if p.name}
    return Unit(
        name=UNIT,
        restart=RestartRule.NEVER,
        image=str(kernel.get("image") or next(iter(disks), "") or ""),
        recipe=spec,
        cpu_limit=asks.own_limits.get("cpu", 0),
        memory_limit=asks.own_limits.get("memory", 0),
        cpu_request=asks.own_requests.get("cpu", 0),
        memory_request=asks.own_requests.get("memory", 0),
        storage_limit=asks.own_limits.get("ephemeral-storage", 0),
        readiness=common.probe(spec.get("readinessProbe"), ports),
        liveness=common.probe(spec.get("livenessProbe"), ports),
    )


def _references(spec: Mapping[str, Any]) -> tuple[Reference, ...]:
    found: dict[tuple[str, str], Reference] = {}
    for volume in spec.get("volumes") or ():
        wanted: list[tuple[Resource, Any, bool]] = []
        if config := volume.get("configMap"):
            wanted.append((CONFIGMAPS, config.get("name"), bool(config.get("optional"))))
        if secret := volume.get("secret"):
            wanted.append((SECRETS, secret.get("secretName"), bool(secret.get("optional"))))
        for source in ("cloudInitNoCloud", "cloudInitConfigDrive"):
            for field in ("secretRef", "networkDataSecretRef"):
                if ref := (volume.get(source) or {}).get(field):
                    wanted.append((SECRETS, ref.get("name"), False))
        for resource, name, optional in wanted:
            if name:
                found[(resource.plural, str(name))] = Reference(resource, str(name), optional)
    return tuple(found.values())


def _conditions(obj: Object, report: Report, seen: UnitObserved, now: float) -> None:
    health = report.health.get(UNIT) or Health()
    waiting = report.waiting.get(UNIT)
    running = seen.state in (UnitState.RUNNING, UnitState.PAUSED) and report.stage in (Stage.RUNNING, Stage.STOPPING)
    if not report.reachable:
        common.put_condition(obj, now, "Ready", "Unknown", "NodeUnresponsive", "the node does not report")
    elif running and seen.state is UnitState.RUNNING and health.ready:
        common.put_condition(obj, now, "Ready", "True")
    else:
        ended = report.stage in (Stage.SUCCEEDED, Stage.FAILED)
        reason = "PodTerminating" if ended else "GuestNotReady" if running else "GuestNotRunning"
        message = seen.message or (waiting.message if waiting else "")
        common.put_condition(obj, now, "Ready", "False", reason, message)
    if seen.state is UnitState.PAUSED:
        common.put_condition(obj, now, "Paused", "True", "PausedByUser", "VMI was paused by user")
    else:
        common.remove_condition(obj, "Paused")
    if waiting is not None and not running:
        common.put_condition(obj, now, "Synchronized", "False", waiting.reason, waiting.message)
    else:
        common.remove_condition(obj, "Synchronized")
    common.put_condition(obj, now, "LiveMigratable", "False", "SingleNode", "one machine: nowhere to go")
    common.policy_condition(obj, report, now)
