"""The Pod adapter: everything that is so only of Pods.

Source: k8s.io/api/core/v1 and the kubelet's status manager.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isoplane.objects import metadata, quantity
from isoplane.objects.kinds import CONFIGMAPS, PODS, SECRETS, Resource
from isoplane.objects.metadata import Object
from isoplane.objects.phase import ENDED
from isoplane.workload import common, impossible, limits, networked, requests
from isoplane.workload.accounting import Accounting
from isoplane.workload.adapters import QUOTA_GATE, Report, Waiting, Write
from isoplane.workload.container_status import container_status
from isoplane.workload.fields import pod as fields
from isoplane.workload.machine_offer import MachineOffer
from isoplane.workload.networked import Networked
from isoplane.workload.shape import (
    Claim,
    InterfaceType,
    Reference,
    RestartRule,
    Stage,
    Unit,
    UnitRole,
    Workload,
)
from isoplane.workload.wording import ContainerWording, Wording

PHASES: dict[Stage, str] = {
    Stage.ACCEPTED: "Pending",
    Stage.GATED: "Pending",
    Stage.PLACED: "Pending",
    Stage.PREPARING: "Pending",
    Stage.RUNNING: "Running",
    Stage.SUCCEEDED: "Succeeded",
    Stage.FAILED: "Failed",
}
"""Stage → Pod phase. Stopping keeps whatever phase the Pod has."""

_ON_THE_WAY = ("ContainerCreating", "PodInitializing")
"""Reasons for waiting that are no trouble."""


class PodAdapter:
    """Pods as workloads: containers are the units, a veth is the interface, SIGTERM is the graceful stop."""

    resource: Resource = PODS
    wording: Wording = ContainerWording()

    def claim(self, obj: Mapping[str, Any], accounting: Accounting) -> Claim:
        return Claim(**_claim(obj))

    def networked(self, obj: Mapping[str, Any]) -> Networked:
        return networked.pod(obj)

    def project(self, obj: Mapping[str, Any]) -> Workload:
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        seconds, deadline = common.grace(obj)
        restart = RestartRule(spec.get("restartPolicy") or "Always")
        containers = spec.get("containers") or ()
        inits = spec.get("initContainers") or ()
        meta = obj.get("metadata") or {}
        claim, seen = _claim(obj), self.networked(obj)
        return Workload(
            **claim,
            generation=int(meta.get("generation") or 1),
            labels=seen.labels,
            annotations=metadata.annotations_of(obj),
            desired=common.desired(obj),
            grace_seconds=seconds,
            stop_deadline=deadline,
            restart=restart,
            graceful_resend=0,
            runtime="oci",
            interface=InterfaceType.HOST if seen.host_network else InterfaceType.VETH,
            units=(*(_init(c, restart) for c in inits), *(_unit(c, UnitRole.MAIN, restart) for c in containers)),
            recipe=spec,
            cpu_limit=_whole_limit("cpu", spec, claim["limits"]),
            memory_limit=_whole_limit("memory", spec, claim["limits"]),
            volumes=tuple(spec.get("volumes") or ()),
            references=_references(spec),
            ports=seen.ports,
            hostname=str(spec.get("hostname") or metadata.name(obj))[:63],
            service_account=str(spec.get("serviceAccountName") or "default"),
            node=seen.node,
            node_selector=spec.get("nodeSelector") or {},
            tolerations=tuple(spec.get("tolerations") or ()),
            node_affinity=common.node_affinity(spec),
            scheduler=str(spec.get("schedulerName") or ""),
            transitions=common.transitions(obj),
            addresses=seen.addresses,
            expires_at=_expires_at(spec, status),
        )

    def place(self, obj: Mapping[str, Any], node: str, now: float) -> Write:
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": metadata.name(obj), "namespace": metadata.namespace(obj), "uid": metadata.uid(obj)},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        return Write(body, "binding", action=True)

    def unplaceable(self, obj: Mapping[str, Any], message: str, now: float) -> Object:
        new = common.copy(obj)
        common.put_condition(new, now, "PodScheduled", "False", "Unschedulable", message)
        return new

    def nominate(self, obj: Mapping[str, Any], node: str) -> Object:
        new = common.copy(obj)
        if node:
            new["status"]["nominatedNodeName"] = node
        else:
            new["status"].pop("nominatedNodeName", None)
        return new

    def gate(self, obj: Mapping[str, Any], message: str, now: float) -> Object:
        new = common.copy(obj)
        spec = dict(new.get("spec") or {})
        gates = [g for g in spec.get("schedulingGates") or () if g.get("name") != QUOTA_GATE]
        spec["schedulingGates"] = [*gates, {"name": QUOTA_GATE}]
        new["spec"] = spec
        new["status"]["phase"] = "Pending"
        common.put_condition(new, now, "PodScheduled", "False", "SchedulingGated", message)
        common.with_transitions(new, {Stage.GATED: now})
        return new

    def ungate(self, obj: Mapping[str, Any], now: float) -> Object:
        new = common.copy(obj)
        spec = dict(new.get("spec") or {})
        gates = [g for g in spec.get("schedulingGates") or () if g.get("name") != QUOTA_GATE]
        spec.pop("schedulingGates", None)
        if gates:
            spec["schedulingGates"] = gates
        else:
            common.remove_condition(new, "PodScheduled")
        new["spec"] = spec
        return new

    def mark_victim(self, obj: Mapping[str, Any], reason: str, message: str, now: float) -> Object:
        return common.victim(obj, reason, message, now)

    def set_priority(self, obj: Mapping[str, Any], class_name: str, value: int, preemption_policy: str) -> Object:
        spec = {**(obj.get("spec") or {}), "priority": value, "preemptionPolicy": preemption_policy}
        if class_name:
            spec["priorityClassName"] = class_name
        return {**obj, "spec": spec}

    def fill_limits(self, obj: Mapping[str, Any], ranges: Sequence[Mapping[str, Any]]) -> tuple[Object, list[str]]:
        spec, told = limits.fill_in(obj.get("spec") or {}, ranges)
        return {**obj, "spec": spec}, told

    def limit_violations(self, obj: Mapping[str, Any], limit_range: Mapping[str, Any]) -> list[str]:
        return limits.pod_violations(obj.get("spec") or {}, limit_range)

    def trouble(self, obj: Mapping[str, Any], unit: str = "") -> Waiting | None:
        status = obj.get("status") or {}
        told = [s for k in ("initContainerStatuses", "containerStatuses") for s in status.get(k) or ()]
        if unit:
            waiting = next(((s.get("state") or {}).get("waiting") for s in told if s.get("name") == unit), None)
            return Waiting(str(waiting.get("reason") or ""), str(waiting.get("message") or "")) if waiting else None
        if status.get("phase") == "Succeeded":
            return None
        if status.get("reason"):
            return Waiting(str(status["reason"]), str(status.get("message") or ""))
        if (unplaced := common.unplaced(obj)) is not None:
            return unplaced
        for state in (s.get("state") or {} for s in told):
            waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
            if waiting.get("reason") not in (None, "", *_ON_THE_WAY):
                return Waiting(str(waiting["reason"]), str(waiting.get("message") or ""))
            if ended.get("exitCode"):
                return Waiting(str(ended.get("reason") or "Error"), str(ended.get("message") or ""))
        return None

    def ineffective(self, obj: Mapping[str, Any]) -> list[str]:
        return [f"{where}: has no effect: {why}" for where, why in fields.WARNED.found(obj)]

    def impossible(self, obj: Mapping[str, Any], offer: MachineOffer) -> list[tuple[str, str]]:
        return list(impossible.pod(obj.get("spec") or {}))

    def report(self, obj: Mapping[str, Any], report: Report, now: float) -> Object:
        new, spec = common.copy(obj), obj.get("spec") or {}
        status = new["status"]
        status["phase"] = PHASES.get(report.stage) or status.get("phase") or "Pending"
        _put(status, "reason", report.reason)
        _put(status, "message", report.message)
        if report.node_addresses:
            status["hostIP"] = report.node_addresses[0]
            status["hostIPs"] = [{"ip": address} for address in report.node_addresses]
        if report.addresses:
            status["podIP"] = report.addresses[0]
            status["podIPs"] = [{"ip": address} for address in report.addresses]
        if report.observed is not None or report.waiting:
            if not status.get("startTime"):
                status["startTime"] = metadata.rfc3339(now)
            old = {s["name"]: s for k in ("containerStatuses", "initContainerStatuses") for s in status.get(k) or ()}
            for field, entries in (("initContainerStatuses", "initContainers"), ("containerStatuses", "containers")):
                declared = spec.get(entries) or ()
                if declared:
                    status[field] = [
                        container_status(c, old.get(c["name"]), report, init=field != "containerStatuses")
                        for c in declared
                    ]
        status["qosClass"] = status.get("qosClass") or qos_class(spec)
        _conditions(new, report, now)
        common.with_transitions(new, report.transitions)
        return new


def _claim(obj: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a Claim."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    meta = obj.get("metadata") or {}
    asks = requests.pod_asks(spec)
    return {
        "resource": PODS,
        "namespace": str(meta.get("namespace") or ""),
        "name": str(meta.get("name") or ""),
        "uid": str(meta.get("uid") or ""),
        "created": str(meta.get("creationTimestamp") or ""),
        "priority": common.recorded_priority(obj),
        "priority_class": common.priority_class(obj),
        "preemption_policy": str(spec.get("preemptionPolicy") or "PreemptLowerPriority"),
        "request": asks.requests,
        "limits": asks.limits,
        "disruption_cost": 1,
        "gates": tuple(str(g.get("name")) for g in spec.get("schedulingGates") or ()),
        "stage": _stage(obj, spec, status),
        "deleting": metadata.is_deleting(obj),
        "owned_by_tenant": metadata.controller_of(obj) is not None,
        "scopes": asks.scopes,
        "unspecified": asks.unspecified,
    }


def _whole_limit(name: str, spec: Mapping[str, Any], charged: Mapping[str, int]) -> int:
    """What the Pod as a whole may use where spec.resources says so: what is charged, overhead included."""
    stated = (spec.get("resources") or {}).get("limits") or {}
    return charged.get(name, 0) if quantity.amount(name, stated.get(name, 0)) else 0


def _expires_at(spec: Mapping[str, Any], status: Mapping[str, Any]) -> float | None:
    started, seconds = metadata.posix(status.get("startTime")), spec.get("activeDeadlineSeconds")
    return None if started is None or seconds is None else started + seconds


def _put(status: dict[str, Any], field: str, value: str) -> None:
    if value:
        status[field] = value


def _stage(obj: Mapping[str, Any], spec: Mapping[str, Any], status: Mapping[str, Any]) -> Stage:
    phase = status.get("phase")
    if phase in ENDED:
        return Stage(str(phase))
    if metadata.is_deleting(obj):
        return Stage.STOPPING
    if phase == "Running":
        return Stage.RUNNING
    if spec.get("schedulingGates"):
        return Stage.GATED
    if not spec.get("nodeName"):
        return Stage.ACCEPTED
    return Stage.PREPARING if status.get("containerStatuses") else Stage.PLACED


def _init(container: Mapping[str, Any], restart: RestartRule) -> Unit:
    if container.get("restartPolicy") == "Always":
        return _unit(container, UnitRole.SIDECAR, RestartRule.ALWAYS)
    # A Pod that always restarts still retries a failed init container, and does not repeat a successful one.
    return _unit(
        container, UnitRole.INIT, RestartRule.NEVER if restart is RestartRule.NEVER else RestartRule.ON_FAILURE
    )


def _unit(container: Mapping[str, Any], role: UnitRole, restart: RestartRule) -> Unit:
    resources = container.get("resources") or {}
    limits, wanted = resources.get("limits") or {}, resources.get("requests") or {}
    ports = {p.name: p.number for p in networked.container_ports(container) if p.name}
    return Unit(
        name=str(container.get("name") or ""),
        role=role,
        restart=restart,
        image=str(container.get("image") or ""),
        recipe=container,
        cpu_limit=quantity.milli(limits.get("cpu", 0)),
        memory_limit=quantity.whole(limits.get("memory", 0)),
        cpu_request=quantity.milli(wanted.get("cpu", limits.get("cpu", 0))),
        memory_request=quantity.whole(wanted.get("memory", limits.get("memory", 0))),
        storage_limit=quantity.whole(limits.get("ephemeral-storage", 0)),
        start_hook=bool((container.get("lifecycle") or {}).get("postStart")),
        startup=common.probe(container.get("startupProbe"), ports),
        readiness=common.probe(container.get("readinessProbe"), ports),
        liveness=common.probe(container.get("livenessProbe"), ports),
    )


def _references(spec: Mapping[str, Any]) -> tuple[Reference, ...]:
    found: dict[tuple[str, str], Reference] = {}

    def add(resource: Resource, name: Any, optional: Any) -> None:
        key = (resource.plural, str(name or ""))
        if key[1] and (key not in found or found[key].optional):
            found[key] = Reference(resource, key[1], bool(optional))

    def volume_source(source: Mapping[str, Any]) -> None:
        if config := source.get("configMap"):
            add(CONFIGMAPS, config.get("name"), config.get("optional"))
        if secret := source.get("secret"):
            add(SECRETS, secret.get("secretName") or secret.get("name"), secret.get("optional"))

    for volume in spec.get("volumes") or ():
        volume_source(volume)
        for source in (volume.get("projected") or {}).get("sources") or ():
            volume_source(source)
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        for source in container.get("envFrom") or ():
            for field, resource in (("configMapRef", CONFIGMAPS), ("secretRef", SECRETS)):
                if ref := source.get(field):
                    add(resource, ref.get("name"), ref.get("optional"))
        for entry in container.get("env") or ():
            value_from = entry.get("valueFrom") or {}
            for field, resource in (("configMapKeyRef", CONFIGMAPS), ("secretKeyRef", SECRETS)):
                if ref := value_from.get(field):
                    add(resource, ref.get("name"), ref.get("optional"))
    return tuple(found.values())


def qos_class(spec: Mapping[str, Any]) -> str:
    """Guaranteed, Burstable or BestEffort, as the kubelet computes it."""
    level = spec.get("resources") or {}
    if any(level.get(side) for side in ("limits", "requests")):
        asking = [level]  # What is stated for the Pod as a whole counts instead of its containers (KEP-2837).
    else:
        containers = (*(spec.get("initContainers") or ()), *(spec.get("containers") or ()))
        asking = [container.get("resources") or {} for container in containers]
    guaranteed, any_set = True, False
    for resources in asking:
        limits, wanted = (_qos_amounts(resources.get(side)) for side in ("limits", "requests"))
        any_set = any_set or bool(limits) or bool(wanted)
        if any(name not in limits or wanted.get(name, limits[name]) != limits[name] for name in ("cpu", "memory")):
            guaranteed = False
    if not any_set:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


def _qos_amounts(amounts: Mapping[str, Any] | None) -> dict[str, int]:
    """The CPU and memory that are asked for; others do not count, and 0 is not asked for. Source: kubelet qos.go."""
    found = {name: quantity.amount(name, (amounts or {}).get(name, 0)) for name in ("cpu", "memory")}
    return {name: value for name, value in found.items() if value > 0}


def _conditions(obj: Object, report: Report, now: float) -> None:
    common.put_condition(obj, now, "PodScheduled", "True")
    finished = report.stage in (Stage.SUCCEEDED, Stage.FAILED)
    if report.initialized:
        common.put_condition(obj, now, "Initialized", "True", "PodCompleted" if report.stage is Stage.SUCCEEDED else "")
    else:
        common.put_condition(obj, now, "Initialized", "False", "ContainersNotInitialized")
    sidecars = {c["name"] for c in obj["spec"].get("initContainers") or () if c.get("restartPolicy") == "Always"}
    helpers = [s for s in obj["status"].get("initContainerStatuses") or () if s["name"] in sidecars]
    mains = obj["status"].get("containerStatuses") or ()
    statuses = [*helpers, *mains] if mains else []
    unready = [s["name"] for s in statuses if not s["ready"]]
    ready = bool(statuses) and not unready and not finished and report.reachable
    if ready:
        common.put_condition(obj, now, "ContainersReady", "True")
        common.put_condition(obj, now, "Ready", "True")
    elif not report.reachable:
        common.put_condition(obj, now, "Ready", "Unknown", "NodeLost", "the node does not report")
    else:
        reason = (
            ("PodCompleted" if report.stage is Stage.SUCCEEDED else "PodFailed") if finished else "ContainersNotReady"
        )
        message = f"containers with unready status: [{' '.join(unready)}]" if unready and not finished else ""
        for type_ in ("ContainersReady", "Ready"):
            common.put_condition(obj, now, type_, "False", reason, message)
    common.policy_condition(obj, report, now)
