"""Whether one Pod may be evicted on request, and what that leaves of its PodDisruptionBudget.

The eviction subresource asks in the transaction that also marks the Pod; quota's own preemption weighs budgets in
``victims``, and the disruption controller counts them anew.  Source: policy/v1 and kube-apiserver's eviction handler.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from isoplane.objects import metadata
from isoplane.objects.selectors import Selector, from_object
from isoplane.quota.model import Budget

PROCESSING_RETRY = 10
"""Seconds after which to ask again when the budget's status lags behind its spec."""
MAX_DISRUPTED = 2000
"""Evictions that may wait for the disruption controller to see them, by budget."""
DELETION_TIMEOUT = 120.0
"""Seconds after which an evicted Pod that nobody deleted counts as serving again."""
_UNPROTECTED = ("Succeeded", "Failed", "Pending")


class Verdict(Enum):
    """What comes of an eviction."""

    FREE = "free"
    """No budget is concerned."""
    SPEND = "spend"
    """Allowed, and one disruption of the budget is spent."""
    WAIT = "wait"
    """Not now: the budget is used up or not yet counted."""
    FORBIDDEN = "forbidden"
    """The budget's status does not allow a decision."""
    AMBIGUOUS = "ambiguous"
    """Several budgets select the Pod."""


@dataclass(frozen=True, slots=True)
class Eviction:
    """The decision. ``budget`` and ``why`` name and explain what refuses; ``status`` is what SPEND leaves."""

    verdict: Verdict
    budget: str = ""
    why: str = ""
    retry_after: int = 0
    """Seconds; 0 leaves it to the client."""
    status: Mapping[str, Any] | None = None


_FREE = Eviction(Verdict.FREE)


def selector_of(budget: Mapping[str, Any]) -> Selector:
    """Whom a PodDisruptionBudget protects, in its namespace. Raises ValueError on a bad selector."""
    return from_object((budget.get("spec") or {}).get("selector"))


def allowed_by(budget: Mapping[str, Any]) -> int:
    """How many of those it protects may leave now; below zero only where somebody wrote nonsense into its status."""
    return int((budget.get("status") or {}).get("disruptionsAllowed") or 0)


def as_budget(budget: Mapping[str, Any], bearers: Iterable[tuple[str, Mapping[str, str]]]) -> Budget:
    """A PodDisruptionBudget as victims are weighed by it. ``bearers``: uid and labels of whoever may be protected."""
    selector = selector_of(budget)
    members = frozenset(uid for uid, labels in bearers if selector.matches(labels))
    return Budget(metadata.name(budget), members, allowed_by(budget))


def decide_eviction(pod: Mapping[str, Any], budgets: Sequence[Mapping[str, Any]], now: str) -> Eviction:
    """Decide on a Pod with the budgets of its namespace; ``now`` is a metav1.Time. Raises ValueError on a bad selector.

    Pods that serve nobody (waiting, ended, already leaving) need no budget.  One that is not ready goes freely under
    AlwaysAllow, or while the others suffice.
    """
    if (pod.get("status") or {}).get("phase", "Pending") in _UNPROTECTED or pod["metadata"].get("deletionTimestamp"):
        return _FREE
    labels = metadata.labels(pod)
    concerned = [budget for budget in budgets if selector_of(budget).matches(labels)]
    if not concerned:
        return _FREE
    if len(concerned) > 1:
        why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        return Eviction(Verdict.AMBIGUOUS, why=why)
    budget = concerned[0]
    status = budget.get("status") or {}
    if not _ready(pod):
        healthy, desired = int(status.get("currentHealthy") or 0), int(status.get("desiredHealthy") or 0)
        always = (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow"
        if always or (healthy >= desired and desired > 0):
            return _FREE
    return _spend(metadata.name(pod), budget, status, now)


def _ready(pod: Mapping[str, Any]) -> bool:
    return (metadata.condition(pod, "Ready") or {}).get("status") == "True"


def _spend(pod: str, budget: Mapping[str, Any], status: Mapping[str, Any], now: str) -> Eviction:
    name = metadata.name(budget)
    if int(status.get("observedGeneration") or 0) < int(budget["metadata"].get("generation") or 0):
        why = f"The disruption budget {name} is still being processed by the server."
        return Eviction(Verdict.WAIT, name, why, PROCESSING_RETRY)
    allowed = allowed_by(budget)
    if allowed < 0:
        return Eviction(Verdict.FORBIDDEN, name, "pdb disruptions allowed is negative")
    disrupted = status.get("disruptedPods") or {}
    if len(disrupted) > MAX_DISRUPTED:
        why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        return Eviction(Verdict.FORBIDDEN, name, why)
    if allowed == 0:
        return Eviction(Verdict.WAIT, name, _exhausted(name, budget, status))
    left: dict[str, Any] = {**status, "disruptionsAllowed": allowed - 1, "disruptedPods": {**disrupted, pod: now}}
    if allowed == 1:
        condition = {
            "type": "DisruptionAllowed",
            "status": "False",
            "reason": "InsufficientPods",
            "message": "",
            "observedGeneration": int(status.get("observedGeneration") or 0),
        }
        left["conditions"] = metadata.set_condition(status.get("conditions") or (), condition, now)
    return Eviction(Verdict.SPEND, name, status=left)


def _exhausted(name: str, budget: Mapping[str, Any], status: Mapping[str, Any]) -> str:
    condition = metadata.condition(budget, "DisruptionAllowed") or {}
    told = str(condition.get("message") or "") if condition.get("status") == "False" else ""
    reason = condition.get("reason")
    denied = f"The disruption budget {name} does not allow evicting pods currently"
    if told and reason == "SyncFailed":
        return f"{denied} because it failed sync: {told}"
    healthy, desired = int(status.get("currentHealthy") or 0), int(status.get("desiredHealthy") or 0)
    if healthy <= desired:
        return f"The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
    return f"{denied} ({reason}): {told}" if told else denied


def still_disrupted(status: Mapping[str, Any], leaving: Mapping[str, bool], now: float) -> dict[str, str]:
    """``disruptedPods`` without those that are gone, leaving (they are counted by that) or overdue.

    ``leaving``: of every Pod that the budget selects, by name, whether it is being deleted. ``now`` in POSIX seconds.
    """
    kept: dict[str, str] = {}
    for name, since in (status.get("disruptedPods") or {}).items():
        evicted = metadata.posix(since)
        if leaving.get(name, True) or evicted is None or evicted + DELETION_TIMEOUT < now:
            continue
        kept[name] = since
    return kept
