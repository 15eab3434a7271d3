"""Which workloads a ResourceQuota counts: ``spec.scopes`` and ``spec.scopeSelector``.

Source: the core quota evaluator (podMatchesScopeFunc).  A quota without scopes counts everything; one with scopes counts
workloads only, and never other objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from isoplane.quota.model import Charge, Quota, ScopeTerm

PRIORITY_CLASS = "PriorityClass"
VOLUMES = "VolumeAttributesClass"
"""A scope of volume claims: a quota with it counts no workload."""
SCOPES = frozenset(
    {
        "Terminating",
        "NotTerminating",
        "BestEffort",
        "NotBestEffort",
        PRIORITY_CLASS,
        "CrossNamespacePodAffinity",
        VOLUMES,
    }
)
_OPERATORS = frozenset({"In", "NotIn", "Exists", "DoesNotExist"})


def terms(spec: Mapping[str, Any]) -> tuple[ScopeTerm, ...]:
    """The scope terms of a ResourceQuota spec. Raises ValueError with the field that is wrong."""
    found = [ScopeTerm(str(scope)) for scope in spec.get("scopes") or ()]
    for i, raw in enumerate((spec.get("scopeSelector") or {}).get("matchExpressions") or ()):
        where = f"spec.scopeSelector.matchExpressions[{i}]"
        operator, values = str(raw.get("operator", "")), frozenset(str(v) for v in raw.get("values") or ())
        if operator not in _OPERATORS:
            raise ValueError(f"{where}.operator: {operator!r} is none of In, NotIn, Exists, DoesNotExist")
        if (operator in ("In", "NotIn")) != bool(values):
            raise ValueError(f"{where}.values: In and NotIn need values, Exists and DoesNotExist take none")
        found.append(ScopeTerm(str(raw.get("scopeName", "")), operator, values))
    for term in found:
        if term.scope not in SCOPES:
            raise ValueError(f"spec.scopes: {term.scope!r} is none of {', '.join(sorted(SCOPES))}")
        if term.scope not in (PRIORITY_CLASS, VOLUMES) and term.operator != "Exists":
            raise ValueError(f"spec.scopeSelector: scope {term.scope} takes the operator Exists only")
    return tuple(found)


def counts(quota: Quota, charge: Charge) -> bool:
    """Whether the quota counts the workload: every term matches."""
    return not quota.scopes or all(_matches(term, charge) for term in quota.scopes)


def _matches(term: ScopeTerm, charge: Charge) -> bool:
    if term.scope != PRIORITY_CLASS:
        return term.scope in charge.scopes
    match term.operator:
        case "Exists":
            return bool(charge.priority_class)
        case "DoesNotExist":
            return not charge.priority_class
        case "In":
            return charge.priority_class in term.values
    return charge.priority_class not in term.values
