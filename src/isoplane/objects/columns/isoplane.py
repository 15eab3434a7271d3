"""The columns of isoplane's own kinds; Workload is the list in which pods and machines stand side by side."""

from __future__ import annotations

from typing import Any

from isoplane.objects import metadata
from isoplane.objects.columns.printer import AGE, NAME, NONE, Cell, Column, Printer, age, amounts_text
from isoplane.objects.metadata import Object


def _workload(obj: Object, now: float) -> list[Cell]:
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


def _quotapolicy(obj: Object, now: float) -> list[Cell]:
    spec = obj.get("spec") or {}
    threshold = spec.get("evictionThreshold")
    return [
        metadata.name(obj), NONE if threshold is None else str(threshold), amounts_text(spec.get("guaranteed")) or NONE,
        spec.get("cohort") or NONE, age(obj, now), spec.get("vmAccounting") or "",
        amounts_text(spec.get("borrowingLimit")) or NONE, amounts_text(spec.get("lendingLimit")) or NONE,
    ]  # fmt: skip


def _cohort(obj: Object, now: float) -> list[Cell]:
    return [metadata.name(obj), amounts_text((obj.get("spec") or {}).get("overcommit")) or NONE, age(obj, now)]


def _quotausage(obj: Object, now: float) -> list[Cell]:
    status = obj.get("status") or {}
    hard, used = status.get("hard") or {}, status.get("used") or {}
    # What no quota limits is told only where nothing is limited; there cpu is requests.cpu.
    names = hard or [name for name in used if name.startswith(("requests.", "limits.")) or name == "pods"]
    parts = [f"{name}: {used.get(name, '0')}/{hard.get(name, '-')}" for name in sorted(names)]
    return [
        metadata.name(obj), ", ".join(parts), len(status.get("charges") or ()), len(status.get("holds") or ()),
        amounts_text(status.get("evicting")) or NONE, amounts_text(status.get("held")) or NONE,
    ]  # fmt: skip


def _quotadecision(obj: Object, now: float) -> list[Cell]:
    status = obj.get("status") or {}
    workload = status.get("workload") or {}
    told = []
    if short := status.get("short"):
        told.append("short of " + ", ".join(f"{s['amount']} {s['resource']} ({s['limit']})" for s in short))
    if victims := status.get("victims"):
        told.append(f"{', '.join(victims)} {'leaves' if len(victims) == 1 else 'leave'}")
    if preemptor := status.get("preemptor"):
        told.append(f"for {preemptor}")
    return [
        metadata.name(obj), age(obj, now), status.get("decision") or "",
        f"{str(workload.get('kind') or '').lower()}/{workload.get('name') or ''}", status.get("priority") or 0,
        status.get("rule") or "", "; ".join(told) or NONE, status.get("reason") or "",
    ]  # fmt: skip


PRINTERS = {
    ("isoplane.io", "Workload"): Printer(
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
        _workload,
    ),
    ("isoplane.io", "QuotaPolicy"): Printer(
        (
            NAME,
            Column("Threshold", "Only workloads with a priority above it may have others evicted."),
            Column("Guaranteed", "What no other tenant can take."),
            Column("Cohort", "Whose unused quota may be borrowed."),
            AGE,
            Column("Accounting", "What a virtual machine is charged.", wide=True),
            Column("Borrowing", "The most that may be borrowed.", wide=True),
            Column("Lending", "The most that may be lent.", wide=True),
        ),
        _quotapolicy,
    ),
    ("isoplane.io", "Cohort"): Printer((NAME, Column("Overcommit", "Promised over allocatable."), AGE), _cohort),
    ("isoplane.io", "QuotaDecision"): Printer(
        (
            NAME,
            AGE,
            Column("Decision", "What was decided."),
            Column("Workload", "Whom it concerns."),
            Column("Priority", "Its priority.", "integer"),
            Column("Rule", "The rule that decided."),
            Column("Details", "What was missing, who leaves, and for whom."),
            Column("Reason", "The rule in words.", wide=True),
        ),
        _quotadecision,
    ),
    ("isoplane.io", "QuotaUsage"): Printer(
        (
            NAME,
            Column("Used", "What is charged, and the ceilings."),
            Column("Charges", "The number of charged objects.", "integer"),
            Column("Holds", "The number of workloads that wait for victims.", "integer"),
            Column("Evicting", "What the victims now stopping give back.", wide=True),
            Column("Held", "What is held for waiting workloads.", wide=True),
        ),
        _quotausage,
    ),
}
