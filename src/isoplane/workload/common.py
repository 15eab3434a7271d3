"""What both adapters say in the same words: identity, priority, desired state, probes, transitions, conditions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from isoplane.objects import metadata
from isoplane.objects.metadata import Object
from isoplane.workload.adapters import (
    PAUSED_ANNOTATION,
    PRIORITY_ANNOTATION,
    PRIORITY_HANDLE,
    TRANSITIONS_ANNOTATION,
    Report,
    Waiting,
)
from isoplane.workload.shape import GrpcHealth, HttpGet, Probe, RunState, Stage

GATED = "Gated"
"""The reason of a workload that quota holds back, whatever its kind calls it."""


def desired(obj: Mapping[str, Any]) -> RunState:
    """What the owner wants, from the metadata that both kinds have."""
    if metadata.is_deleting(obj):
        return RunState.STOP
    return RunState.PAUSE if is_paused(obj) else RunState.RUN


def is_paused(obj: Mapping[str, Any]) -> bool:
    """Whether its owner wants it to stand still: as was last said, or as it is to start where nobody said anything yet."""
    said = metadata.annotations_of(obj).get(PAUSED_ANNOTATION)
    return said == "true" if said else (obj.get("spec") or {}).get("startStrategy") == "Paused"


def grace(obj: Mapping[str, Any]) -> tuple[int, float | None]:
    """(grace period in seconds, POSIX deadline or None). deletionTimestamp already includes the grace, as upstream."""
    meta, spec = obj.get("metadata") or {}, obj.get("spec") or {}
    declared = spec.get("terminationGracePeriodSeconds")
    seconds = int(declared) if declared is not None else 30
    if meta.get("deletionGracePeriodSeconds") is not None:
        seconds = int(meta["deletionGracePeriodSeconds"])
    return seconds, metadata.posix(meta.get("deletionTimestamp"))


def node_affinity(spec: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The nodeSelectorTerms that placement has to obey; both kinds declare them alike."""
    declared = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = declared.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    return tuple(required.get("nodeSelectorTerms") or ())


def priority_class(obj: Mapping[str, Any]) -> str:
    """spec.priorityClassName, else the common annotation, else ''."""
    named = (obj.get("spec") or {}).get("priorityClassName")
    return str(named or metadata.annotations_of(obj).get(PRIORITY_HANDLE) or "")


def recorded_priority(obj: Mapping[str, Any]) -> int:
    """The resolved integer: spec.priority where the kind has it, else the annotation; 0 before it is resolved."""
    value = (obj.get("spec") or {}).get("priority")
    return int(metadata.annotations_of(obj).get(PRIORITY_ANNOTATION) or 0) if value is None else int(value)


def is_resolved(obj: Mapping[str, Any]) -> bool:
    """Whether the integer is recorded: then it stands, whatever became of its class."""
    return (obj.get("spec") or {}).get("priority") is not None or PRIORITY_ANNOTATION in metadata.annotations_of(obj)


def probe(declared: Mapping[str, Any] | None, ports: Mapping[str, int]) -> Probe | None:
    """A declared probe with its port names resolved. Raises ValueError on a name that no port has."""
    if not declared:
        return None
    http, tcp, command = declared.get("httpGet"), declared.get("tcpSocket"), declared.get("exec")
    grpc = declared.get("grpc")
    own_grace = declared.get("terminationGracePeriodSeconds")
    return Probe(
        command=tuple(command.get("command") or ()) if command else (),
        http=HttpGet(
            port=_port(http.get("port"), ports),
            path=str(http.get("path") or "/"),
            scheme=str(http.get("scheme") or "HTTP"),
            host=str(http.get("host") or ""),
            headers=tuple((str(h["name"]), str(h.get("value", ""))) for h in http.get("httpHeaders") or ()),
        )
        if http
        else None,
        grpc=GrpcHealth(int(grpc.get("port") or 0), str(grpc.get("service") or "")) if grpc else None,
        tcp_port=_port(tcp.get("port"), ports) if tcp else None,
        tcp_host=str(tcp.get("host") or "") if tcp else "",
        guest_ping="guestAgentPing" in declared,
        initial_delay=float(declared.get("initialDelaySeconds") or 0),
        period=float(declared.get("periodSeconds") or 10),
        timeout=float(declared.get("timeoutSeconds") or 1),
        success_threshold=int(declared.get("successThreshold") or 1),
        failure_threshold=int(declared.get("failureThreshold") or 3),
        grace_seconds=None if own_grace is None else int(own_grace),
    )


def _port(value: Any, ports: Mapping[str, int]) -> int:
    if isinstance(value, int):
        return value
    text = str(value or "")
    if text.isdigit():
        return int(text)
    if text in ports:
        return ports[text]
    raise ValueError(f"probe port {text!r} is not declared")


def transitions(obj: Mapping[str, Any]) -> dict[str, float]:
    """The recorded transitions; Accepted comes from creationTimestamp when nothing more precise is known."""
    text = metadata.annotations_of(obj).get(TRANSITIONS_ANNOTATION)
    found: dict[str, float] = {}
    if text:
        try:
            found = {str(k): float(v) for k, v in json.loads(text).items()}
        except (ValueError, AttributeError, TypeError):
            found = {}
    if Stage.ACCEPTED not in found:
        created = metadata.posix((obj.get("metadata") or {}).get("creationTimestamp"))
        if created is not None:
            found = {str(Stage.ACCEPTED): created, **found}
    return found


def with_transitions(obj: Object, new: Mapping[str, float]) -> None:
    """Record stages first reached, keeping what is recorded already."""
    known = transitions(obj)
    added = {str(stage): round(at, 3) for stage, at in new.items() if str(stage) not in known}
    if not added:
        return
    merged = dict(sorted({**known, **added}.items(), key=lambda item: item[1]))
    annotate(obj, TRANSITIONS_ANNOTATION, json.dumps(merged, separators=(",", ":")))


def annotate(obj: Object, name: str, value: str) -> None:
    """Set an annotation of an object made by :func:`copy`."""
    meta = obj.setdefault("metadata", {})
    meta["annotations"] = {**(meta.get("annotations") or {}), name: value}


def copy(obj: Mapping[str, Any]) -> Object:
    """A copy that may be changed in metadata and status; spec is shared and never written."""
    return {
        **obj,
        "metadata": deepcopy(dict(obj.get("metadata") or {})),
        "status": deepcopy(dict(obj.get("status") or {})),
    }


def put_condition(obj: Object, now: float, type_: str, status: str, reason: str = "", message: str = "") -> None:
    """Set one condition of an object being written."""
    entry = {"type": type_, "status": status}
    if reason:
        entry["reason"] = reason
    if message:
        entry["message"] = message
    state = obj.setdefault("status", {})
    state["conditions"] = metadata.set_condition(state.get("conditions") or (), entry, metadata.rfc3339(now))


def remove_condition(obj: Object, type_: str) -> None:
    state = obj.get("status") or {}
    if state.get("conditions"):
        state["conditions"] = metadata.drop_condition(state["conditions"], type_)


def unplaced(obj: Mapping[str, Any]) -> Waiting | None:
    """Why it has no node yet, where its condition says so; both kinds have the same one."""
    scheduled = metadata.condition(obj, "PodScheduled") or {}
    if scheduled.get("status") != "False":
        return None
    reason = str(scheduled.get("reason") or "")
    return Waiting(GATED if reason == "SchedulingGated" else reason, str(scheduled.get("message") or ""))


def victim(obj: Mapping[str, Any], reason: str, message: str, now: float) -> Object:
    """Both kinds are told alike that they are preempted, and by what (``reason``)."""
    new = copy(obj)
    put_condition(new, now, "DisruptionTarget", "True", reason, message)
    return new


def policy_condition(obj: Object, report: Report, now: float) -> None:
    """NetworkPolicyEnforced: True with the revision that the engines have loaded for it, False while they cannot."""
    if report.not_enforced:
        stands = "its port stays closed" if report.enforced is None else f"revision {report.enforced} stays in force"
        message = f"{stands}: {report.not_enforced}"
        put_condition(obj, now, "NetworkPolicyEnforced", "False", "EngineFailure", message)
    elif report.enforced is not None:
        put_condition(obj, now, "NetworkPolicyEnforced", "True", "RulesLoaded", f"revision {report.enforced}")
