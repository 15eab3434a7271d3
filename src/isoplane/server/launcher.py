"""The launcher Pod that clients of KubeVirt and of ``kubectl drain`` expect behind every machine that has a node.

``virt-launcher-NAME`` is computed from the VirtualMachineInstance on every read and is never stored: it charges nothing, is
placed by nobody and is no endpoint.  Clients over HTTP see it among the Pods; the plane's own controllers read without it.
What may be done to it is ``launcher_writes``' affair.

Source: KubeVirt's template service (labels, annotations, owner, containers of a launcher Pod).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from isoplane.http import apierrors
from isoplane.objects import metadata
from isoplane.objects.errors import ApiError, Cause, Forbidden
from isoplane.objects.kinds import PODS, VIRTUALMACHINEINSTANCES, Resource
from isoplane.objects.metadata import Object
from isoplane.objects.phase import ENDED
from isoplane.objects.quantity import render
from isoplane.objects.validation import invalid
from isoplane.store import ReadView, Record
from isoplane.store.mirror import Mirror
from isoplane.store.record import snapshot
from isoplane.workload.bodies import CREATED_BY, LAUNCHER, LAUNCHER_LABEL, NAME_PREFIX
from isoplane.workload.registry import adapter_for
from isoplane.workload.shape import Stage, Workload

COMPUTE = "compute"
CONSOLE = "guest-console-log"
CONTAINERS = (COMPUTE, CONSOLE)
"""Both have one log here: the machine's serial console."""

_PHASES = {"Running": "Running", "Succeeded": "Succeeded", "Failed": "Failed", "Unknown": "Unknown"}
_CARRIED = ("kubevirt.io/vm-generation",)
"""Annotations of the machine that its launcher bears too."""
_SHOWN = 8192
"""Launchers kept ready to be served, each of a few kB; the others are made again when they are read."""


def machine_name(pod_name: str) -> str:
    """The machine that a launcher's name stands for; '' for any other name."""
    return pod_name.removeprefix(NAME_PREFIX) if pod_name.startswith(NAME_PREFIX) else ""


def machine_of(view: ReadView, resource: Resource, namespace: str, name: str) -> Record | None:
    """The VMI behind a launcher Pod; None for anything else, and where a stored Pod has the name."""
    if resource is not PODS or not name.startswith(NAME_PREFIX) or view.get(PODS, namespace, name) is not None:
        return None
    machine = view.get(VIRTUALMACHINEINSTANCES, namespace, machine_name(name))
    return machine if machine is not None and launcher_pod(machine) is not None else None


def absent(view: ReadView, resource: Resource, namespace: str, name: str) -> ApiError:
    """Why an object that is not stored cannot be written: it is a machine's launcher, or there is none."""
    if machine_of(view, resource, namespace, name) is None:
        return apierrors.not_found(resource, name)
    machine = machine_name(name)
    return Forbidden(
        f'{PODS.qualified} "{name}" is forbidden: it is shown for the virtual machine {machine} and cannot be written; '
        f"change the VirtualMachine {machine}, or delete or evict this Pod to stop it",
        details=apierrors.details(PODS, name),
    )


def check_new(view: ReadView, resource: Resource, namespace: str, name: str) -> None:
    """Keep the launchers' names free: a Pod that took one would hide a machine from whoever drains its node."""
    if resource is not PODS or not name.startswith(NAME_PREFIX):
        return
    if machine_of(view, resource, namespace, name) is not None:
        raise absent(view, resource, namespace, name)
    why = f"names that begin with {NAME_PREFIX} are kept for the Pods that are shown for virtual machines"
    raise invalid(resource, name, [Cause("metadata.name", f'Invalid value: "{name}": {why}', "FieldValueInvalid")])


@lru_cache(maxsize=_SHOWN)
def launcher_pod(machine: Record) -> Record | None:
    """The Pod that is shown of a machine; None while it has no node."""
    vmi = machine.object()
    adapter = adapter_for(VIRTUALMACHINEINSTANCES)
    assert adapter is not None
    workload = adapter.project(vmi)
    if not workload.node:
        return None
    meta = vmi["metadata"]
    pod: Object = {
        "apiVersion": PODS.api_version,
        "kind": PODS.kind,
        "metadata": {
            "name": NAME_PREFIX + machine.name,
            "namespace": machine.namespace,
            "uid": pod_uid(machine.uid),
            "creationTimestamp": meta.get("creationTimestamp"),
            **{key: meta[key] for key in ("deletionTimestamp", "deletionGracePeriodSeconds") if key in meta},
            "labels": {
                **workload.labels,
                LAUNCHER_LABEL: LAUNCHER,
                CREATED_BY: machine.uid,
                "vm.kubevirt.io/name": machine.name,
                "vmi.kubevirt.io/id": machine.name,
            },
            "annotations": {
                "kubectl.kubernetes.io/default-container": COMPUTE,
                "kubevirt.io/domain": machine.name,
                **{key: workload.annotations[key] for key in _CARRIED if key in workload.annotations},
            },
            "ownerReferences": [metadata.owner_reference(vmi)],
        },
        "spec": _spec(workload),
        "status": _status(workload, vmi),
    }
    return snapshot(PODS, pod, machine.revision)


def pod_uid(machine_uid: str) -> str:
    """The launcher's own identity: another one for every instance, so that a client sees when one took another's place."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{NAME_PREFIX}{machine_uid}"))


def _spec(workload: Workload) -> dict[str, Any]:
    unit = workload.units[0]
    resources = {
        side: {name: render(name, value) for name, value in sorted(amounts.items()) if value}
        for side, amounts in (("requests", workload.request), ("limits", workload.limits))
    }
    image = unit.image or "virtual-machine"
    compute: dict[str, Any] = {
        "name": COMPUTE,
        "image": image,
        "resources": {side: amounts for side, amounts in resources.items() if amounts},
    }
    if workload.ports:
        compute["ports"] = [
            {"containerPort": port.number, "protocol": port.protocol, **({"name": port.name} if port.name else {})}
            for port in workload.ports
        ]
    return {
        "nodeName": workload.node,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": workload.grace_seconds,
        "automountServiceAccountToken": False,
        "serviceAccountName": workload.service_account,
        "schedulerName": workload.scheduler or "default-scheduler",
        "hostname": workload.hostname,
        "priority": workload.priority,
        **({"priorityClassName": workload.priority_class} if workload.priority_class else {}),
        **({"nodeSelector": dict(workload.node_selector)} if workload.node_selector else {}),
        **({"tolerations": [dict(one) for one in workload.tolerations]} if workload.tolerations else {}),
        "initContainers": [{"name": CONSOLE, "image": image, "restartPolicy": "Always"}],
        "containers": [compute],
    }


def _status(workload: Workload, vmi: Mapping[str, Any]) -> dict[str, Any]:
    told = vmi.get("status") or {}
    phase = _PHASES.get(str(told.get("phase") or ""), "Pending")
    ready = dict(metadata.condition(vmi, "Ready") or {"status": "False"})
    placed = workload.transitions.get(Stage.PLACED)
    conditions: list[dict[str, Any]] = [{**ready, "type": type_} for type_ in ("Ready", "ContainersReady")]
    conditions.append({"type": "Initialized", "status": "False" if phase == "Pending" else "True"})
    scheduled = {"type": "PodScheduled", "status": "True"}
    conditions.append({**scheduled, **({"lastTransitionTime": metadata.rfc3339(placed)} if placed else {})})
    for type_ in ("DisruptionTarget", "NetworkPolicyEnforced"):
        if own := metadata.condition(vmi, type_):
            conditions.append(dict(own))
    started = workload.transitions.get(Stage.RUNNING)
    state = _state(phase, None if started is None else metadata.rfc3339(started))
    serves = phase == "Running" and ready.get("status") == "True"
    status: dict[str, Any] = {
        "phase": phase,
        "conditions": conditions,
        "qosClass": told.get("qosClass") or "Burstable",
        "startTime": metadata.rfc3339(placed) if placed else (vmi["metadata"].get("creationTimestamp")),
        "initContainerStatuses": [_container(CONSOLE, state, phase == "Running")],
        "containerStatuses": [_container(COMPUTE, state, serves)],
    }
    if workload.addresses:
        status["podIP"] = workload.address
        status["podIPs"] = [{"ip": address} for address in workload.addresses]
    for field in ("reason", "message"):
        if told.get(field):
            status[field] = told[field]
    return status


def _state(phase: str, started: str | None) -> dict[str, Any]:
    since = {"startedAt": started} if started else {}
    if phase == "Pending":
        return {"waiting": {"reason": "ContainerCreating"}}
    if phase in ENDED:
        ended = ("Completed", 0) if phase == "Succeeded" else ("Error", 1)
        return {"terminated": {"reason": ended[0], "exitCode": ended[1], **since}}
    return {"running": since}


def _container(name: str, state: Mapping[str, Any], ready: bool) -> dict[str, Any]:
    return {
        "name": name,
        "image": "",
        "imageID": "",
        "ready": ready,
        "started": "running" in state,
        "restartCount": 0,
        "state": dict(state),
    }


LAUNCHERS = Mirror(PODS, VIRTUALMACHINEINSTANCES, launcher_pod, machine_name, {"spec.nodeName": "status.nodeName"})
"""What clients see among the Pods."""
