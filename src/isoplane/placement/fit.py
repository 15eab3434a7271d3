"""Which node a workload fits on, why it fits on none, and which of several is best. Pure.

Stands between the shape and the scheduler: a :class:`Node` is read once from its object, what is in use is kept by
:mod:`~isoplane.placement.usage`.  Placement never evicts; who has to leave is quota's decision.
Source of the rules and words: kube-scheduler's NodeResourcesFit, NodeAffinity, TaintToleration and NodeUnschedulable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from isoplane.objects import metadata, quantity
from isoplane.workload.shape import Workload

UNSCHEDULABLE_TAINT = "node.kubernetes.io/unschedulable"
PLACES = "pods"
"""The resource of which every workload takes one."""
_HARD = ("NoSchedule", "NoExecute")


@dataclass(frozen=True, slots=True)
class Taint:
    key: str
    value: str
    effect: str


@dataclass(frozen=True, slots=True)
class Node:
    """A node as placement sees it. ``allocatable``: resource → amount (cpu in millicores)."""

    name: str
    allocatable: Mapping[str, int] = field(hash=False)
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    taints: tuple[Taint, ...] = ()
    ready: bool = True


@dataclass(frozen=True, slots=True)
class Choice:
    """Where to place a workload; ``node`` '' when nowhere, and then ``message`` says why."""

    node: str
    message: str = ""


def node_of(obj: Mapping[str, Any]) -> Node:
    """Read a Node object. A cordoned node bears the taint that says so, as upstream's node controller gives it."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    taints = [
        Taint(str(t.get("key") or ""), str(t.get("value") or ""), str(t.get("effect") or ""))
        for t in spec.get("taints") or ()
    ]
    if spec.get("unschedulable") and not any(t.key == UNSCHEDULABLE_TAINT for t in taints):
        taints.append(Taint(UNSCHEDULABLE_TAINT, "", "NoSchedule"))
    allocatable = status.get("allocatable") or status.get("capacity") or {}
    ready = metadata.condition(obj, "Ready")
    return Node(
        name=metadata.name(obj),
        allocatable={name: quantity.amount(name, value) for name, value in allocatable.items()},
        labels=metadata.labels(obj),
        taints=tuple(taints),
        ready=ready is not None and ready.get("status") == "True",
    )


def demand(workload: Workload) -> dict[str, int]:
    """What it takes of a node: its request, and one of the node's places."""
    return {**workload.request, PLACES: 1}


def misfits(workload: Workload, node: Node, used: Mapping[str, int]) -> tuple[str, ...]:
    """Why a workload cannot go on a node where ``used`` is taken already; empty when it can."""
    if not node.ready:
        return ("node(s) were not ready",)
    untolerated = next((t for t in node.taints if t.effect in _HARD and not tolerates(workload.tolerations, t)), None)
    if untolerated is not None:
        if untolerated.key == UNSCHEDULABLE_TAINT:
            return ("node(s) were unschedulable",)
        return (f"node(s) had untolerated taint {{{untolerated.key}: {untolerated.value}}}",)
    if not selected(workload, node):
        return ("node(s) didn't match Pod's node affinity/selector",)
    short: list[str] = []
    for name, amount in demand(workload).items():
        room = node.allocatable.get(name, 0) - used.get(name, 0)
        if amount > 0 and amount > room:
            short.append("Too many pods" if name == PLACES else f"Insufficient {name}")
    return tuple(short)


def tolerates(tolerations: Iterable[Mapping[str, Any]], taint: Taint) -> bool:
    """Whether one of the tolerations bears the taint. An empty key with Exists bears everything."""
    for toleration in tolerations:
        effect, key = toleration.get("effect") or "", toleration.get("key") or ""
        if effect and effect != taint.effect:
            continue
        if key and key != taint.key:
            continue
        exists = toleration.get("operator") == "Exists"
        if exists or (key and (toleration.get("value") or "") == taint.value):
            return True
    return False


def selected(workload: Workload, node: Node) -> bool:
    """Whether the workload's nodeSelector and required node affinity accept the node."""
    if any(node.labels.get(key) != value for key, value in workload.node_selector.items()):
        return False
    terms = workload.node_affinity
    return not terms or any(_term(term, node) for term in terms)


def _term(term: Mapping[str, Any], node: Node) -> bool:
    """All of its expressions hold; a term without any matches nothing, as upstream."""
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    return all(_holds(e, node.labels) for e in expressions) and all(
        _holds(e, {"metadata.name": node.name}) for e in fields
    )


def _holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(str(expression.get("key")))
    values = [str(v) for v in expression.get("values") or ()]
    match expression.get("operator"):
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt" as operator if value is not None and len(values) == 1:
            try:
                number, bound = int(value), int(values[0])
            except ValueError:
                return False
            return number > bound if operator == "Gt" else number < bound
    return False


def score(workload: Workload, node: Node, used: Mapping[str, int]) -> float:
    """The share of cpu and memory that stays free with the workload on it (kube-scheduler's LeastAllocated), 0 to 1."""
    shares: list[float] = []
    for name in ("cpu", "memory"):
        allocatable = node.allocatable.get(name, 0)
        if allocatable > 0:
            free = allocatable - used.get(name, 0) - workload.request.get(name, 0)
            shares.append(max(free, 0) / allocatable)
    return sum(shares) / len(shares) if shares else 0.0


def choose(workload: Workload, nodes: Iterable[Node], used: Mapping[str, Mapping[str, int]]) -> Choice:
    """The best node with room, ties by name; or the reasons of all, counted, in kube-scheduler's words."""
    best: tuple[float, str] | None = None
    reasons: Counter[str] = Counter()
    total = 0
    nothing: Mapping[str, int] = {}
    for node in nodes:
        total += 1
        taken = used.get(node.name, nothing)
        why = misfits(workload, node, taken)
        if why:
            reasons.update(why)
            continue
        rank = (-score(workload, node, taken), node.name)
        if best is None or rank < best:
            best = rank
    if best is not None:
        return Choice(best[1])
    if not total:
        return Choice("", "no nodes available to schedule pods")
    told = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    return Choice("", f"0/{total} nodes are available: {told}.")
