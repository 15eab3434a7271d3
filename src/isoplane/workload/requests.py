"""What a Pod asks for: its effective requests and limits.

The Pod adapter puts these into ``Workload.request`` and ``Workload.limits``; quota, placement and the unified view read
only those.  What the API would default (a request from its limit) is defaulted here too, so that offline manifests and
stored objects count alike.  Machines: :mod:`~isoplane.workload.machine`.

Amounts follow ``objects.quantity.amount``: cpu in millicores, everything else in whole units.  Malformed quantities
raise ValueError.  Sources: k8s.io/component-helpers/resource (PodRequests, PodLimits), the core quota evaluator.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from isoplane.objects.effective import add, with_steps
from isoplane.objects.quantity import amount

COMPUTE = ("cpu", "memory")
_SCOPES = {
    (ends, asks): frozenset({"Terminating" if ends else "NotTerminating", "NotBestEffort" if asks else "BestEffort"})
    for ends in (False, True)
    for asks in (False, True)
}
"""(has a deadline, asks for cpu or memory) → scopes."""


def amounts(quantities: Mapping[str, Any] | None) -> dict[str, int]:
    """Quantities as amounts."""
    return {name: amount(name, value) for name, value in quantities.items()} if quantities else {}


def _container(container: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, int]]:
    """(requests, limits) of a container; a limit stands in for a request that is not stated."""
    resources = container.get("resources")
    if not resources:
        return {}, {}
    limits = amounts(resources.get("limits"))
    return {**limits, **amounts(resources.get("requests"))}, _set(limits)


def stated_limits(quantities: Mapping[str, Any] | None) -> dict[str, int]:
    """The limits that limit something: a cgroup takes 0 for none, so 0 counts as not stated."""
    return _set(amounts(quantities))


def _set(limits: Mapping[str, int]) -> dict[str, int]:
    return {name: value for name, value in limits.items() if value}


def _pod_level(name: str) -> bool:
    return name in COMPUTE or name.startswith("hugepages-")


class PodAsks(NamedTuple):
    """What a Pod asks for. ``requests`` and ``limits``: init steps, sidecars, pod-level resources (they win), overhead."""

    requests: dict[str, int]
    limits: dict[str, int]
    scopes: frozenset[str]
    """The ResourceQuota scopes it is in, PriorityClass aside (that one compares a value)."""
    unspecified: dict[str, tuple[str, ...]]
    """``limits.cpu`` → the containers that leave it open.

    A quota on such a resource refuses the Pod (``must specify limits.cpu for: web``), since it could not count it.
    """


def pod_asks(spec: Mapping[str, Any]) -> PodAsks:
    """All of it in one walk over the containers, for every create asks. Raises ValueError on a malformed quantity."""
    containers, inits = spec.get("containers") or (), spec.get("initContainers") or ()
    mains, steps = [_container(c) for c in containers], [_container(c) for c in inits]
    requests: dict[str, int] = {}
    limits: dict[str, int] = {}
    for own, most in mains:
        add(requests, own)
        add(limits, most)
    if steps:
        sidecars = [c.get("restartPolicy") == "Always" for c in inits]
        with_steps(requests, zip(sidecars, (own for own, _ in steps), strict=True))
        with_steps(limits, zip(sidecars, (most for _, most in steps), strict=True))
    asks = any(side.get(name, 0) > 0 for pair in (*mains, *steps) for side in pair for name in COMPUTE)
    level = spec.get("resources")
    unspecified = _unspecified((*inits, *containers), (*steps, *mains), level or {})
    scopes = _SCOPES[spec.get("activeDeadlineSeconds") is not None, asks or _asks_compute(level)]
    if "affinity" in spec and crosses_namespaces(spec["affinity"] or {}):
        scopes |= {"CrossNamespacePodAffinity"}
    if level or spec.get("overhead"):
        _of_the_pod(spec, requests, limits)
    return PodAsks(requests, limits, scopes, unspecified)


def _unspecified(
    containers: Sequence[Mapping[str, Any]],
    amounts: Sequence[tuple[dict[str, int], dict[str, int]]],
    level: Mapping[str, Any],
) -> dict[str, tuple[str, ...]]:
    stated = level.get("limits") or {}
    # Whoever states something for the Pod as a whole need not state requests for each container (KEP-2837); a limit that
    # stands nowhere still limits nothing, so that one is insisted on as ever, which upstream lets pass.
    whole = any(_pod_level(name) for side in ("limits", "requests") for name in level.get(side) or ())
    missing: dict[str, list[str]] = {}
    for container, (own, most) in zip(containers, amounts, strict=True):
        for name in COMPUTE:
            if name in most or (name in stated and amount(name, stated[name])):
                continue
            missing.setdefault(f"limits.{name}", []).append(str(container.get("name", "")))
            if name not in own and not whole:
                missing.setdefault(f"requests.{name}", []).append(str(container.get("name", "")))
    return {name: tuple(sorted(lacking)) for name, lacking in missing.items()}


def _of_the_pod(spec: Mapping[str, Any], requests: dict[str, int], limits: dict[str, int]) -> None:
    """What is stated for the Pod as a whole, put into the sums over its containers."""
    level = spec.get("resources") or {}
    stated = {name: value for name, value in amounts(level.get("limits")).items() if _pod_level(name)}
    # A pod-level limit without a request stands in for it only where no container asks for that resource.
    for name, value in stated.items():
        requests.setdefault(name, value)
    requests.update({name: value for name, value in amounts(level.get("requests")).items() if _pod_level(name)})
    limits.update(_set(stated))
    overhead = amounts(spec.get("overhead"))
    add(requests, overhead)
    # Overhead is added to a limit only where there is one.
    add(limits, {name: value for name, value in overhead.items() if limits.get(name)})


def _asks_compute(resources: Mapping[str, Any] | None) -> bool:
    """Whether any cpu or memory is requested or limited: such a Pod is not of the quality of service BestEffort."""
    if not resources:
        return False
    for side in (resources.get("requests"), resources.get("limits")):
        if side and any(name in side and amount(name, side[name]) > 0 for name in COMPUTE):
            return True
    return False


def crosses_namespaces(affinity: Mapping[str, Any]) -> bool:
    """Whether an affinity term looks into other namespaces (by name or by selector)."""
    terms: list[Mapping[str, Any]] = []
    for side in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(side) or {}
        terms += rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
        preferred: Iterable[Mapping[str, Any]] = rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        terms += [weighted.get("podAffinityTerm") or {} for weighted in preferred]
    return any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms)
