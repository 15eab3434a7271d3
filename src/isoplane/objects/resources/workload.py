"""Workload: the list in which Pods and machines stand side by side. Computed."""

from __future__ import annotations

from typing import Any

from isoplane.objects import metadata
from isoplane.objects.columns.printer import AGE, NAME, NONE, Cell, Column, Printer, age, amounts_text
from isoplane.objects.metadata import Object
from isoplane.objects.resource import READ_VERBS, Resource


def _row(obj: Object, now: float) -> list[Cell]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    revision = status.get("policyRevision")
    reachable = status.get("reachable", True)
    return [
        metadata.name(obj),
        spec.get("kind") or "",
        # A node that cannot be heard leaves the stage as it was last seen; the list says that nobody knows.
        (status.get("stage") or "") if reachable else "Unknown",
        str(bool(status.get("ready")) and reachable),
        age(obj, now),
        status.get("node") or NONE,
        status.get("ip") or NONE,
        spec.get("priority") or 0,
        _asked(spec) or NONE,
        transitions_text(status.get("transitions")) or NONE,
        _reason(status),
        NONE if revision is None else str(revision),
        spec.get("uid") or "",
    ]


def _asked(spec: Object) -> str:
    """``cpu: 105m, memory: 1.3Gi: guest 1Gi + overhead 306Mi``: what it asks for, a machine's memory with what it consists of.

    What is overhead and nothing else (the storage of a machine that asks for none) is left to the object itself.
    """
    guest, overhead = (spec.get("guest") or {}).get("memory"), spec.get("overhead") or {}
    request = {name: text for name, text in (spec.get("request") or {}).items() if text != overhead.get(name)}
    if guest and "memory" in overhead and "memory" in request:
        request["memory"] = f"{request['memory']}: guest {guest} + overhead {overhead['memory']}"
    return amounts_text(request)


def _reason(status: dict[str, Any]) -> str:
    """The reason; of one that only waits for room also its place, if any, and the message, which says what is missing."""
    reason, message = str(status.get("reason") or ""), str(status.get("message") or "")
    if reason not in ("Unschedulable", "Gated") or not message:
        return reason
    position = status.get("queuePosition") or 0
    return f"{reason}: {_ordinal(position)} in the queue, {message}" if position else f"{reason}: {message}"


def _ordinal(number: int) -> str:
    """``1st``, ``2nd``, ``3rd``, ``4th`` … ``11th`` … ``21st``."""
    teens = number % 100 in (11, 12, 13)
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def transitions_text(entries: Any) -> str:
    """``Placed 12ms, Preparing 4ms, Running 1.9s``: how long the way to each stage took, the first (accepted) aside."""
    told = []
    for entry in list(entries or ())[1:]:
        seconds = entry.get("seconds")
        if seconds is not None:
            told.append(
                f"{entry.get('stage')} {seconds * 1000:.0f}ms"
                if seconds < 1
                else f"{entry.get('stage')} {seconds:.1f}s"
            )
    return ", ".join(told)


WORKLOADS = Resource(
    group="view.isoplane.io",
    version="v1alpha1",
    plural="workloads",
    kind="Workload",
    short_names=("wl",),
    verbs=READ_VERBS,
    computed=True,
    custom=True,
    printer=Printer(
        (
            NAME,
            Column("Kind", "What declares it: a Pod or a VirtualMachineInstance."),
            Column("Stage", "The stage of its life."),
            Column("Ready", "Whether it serves."),
            AGE,
            Column("Node", "The node it is placed on."),
            Column("IP", "Its address."),
            Column("Priority", "Its priority, resolved.", "integer"),
            Column("Request", "What it asks of a node."),
            Column("Transitions", "How long the way to each stage took."),
            Column("Reason", "What keeps it from running well."),
            Column("Policy", "The revision of the network policies enforced for it.", wide=True),
            Column("UID", "The uid of the object that declares it.", wide=True),
        ),
        _row,
    ),
)
