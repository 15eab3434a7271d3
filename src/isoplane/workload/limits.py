"""LimitRanges: what they fill in for a Pod, and what they hold against a Pod or a VMI.

Server admission applies them before quota counts, so that quota counts what was filled in.  Wording and order are
kube-apiserver's LimitRanger's.  Types beside Container and Pod concern kinds that are not served.

**Virtual machines.** ``min`` and ``max`` of a Container are held against the guest with its overhead, those of a Pod against
all that quota counts for the machine: ``min`` against its request, ``max`` against its limit, and where none is stated
against what a guest can take at most: its vCPUs and its memory.  Nothing is filled in, since a machine's own size says
what it needs, and no ratio is held, since its request is derived from that size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from isoplane.objects.quantity import parse, render
from isoplane.workload.machine import machine_asks
from isoplane.workload.requests import pod_asks

ANNOTATION = "kubernetes.io/limit-ranger"
"""On a Pod: what was filled in."""
Amounts = Mapping[str, Any]
"""Resource name → quantity."""


@dataclass(frozen=True, slots=True)
class _Held:
    """What the constraints of one type are held against."""

    requests: Amounts
    limits: Amounts


def fill_in(spec: Mapping[str, Any], ranges: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """A pod spec with the default requests and limits of its containers, and what was set, in words. Pure.

    The first LimitRange that says something about a resource wins; resources that the author stated stay.
    """
    spec = dict(spec)
    told: list[str] = []
    for limit_range in ranges:
        requests, limits = _defaults(limit_range)
        if not requests and not limits:
            continue
        for field, kind in (("containers", "container"), ("initContainers", "init container")):
            if spec.get(field):
                spec[field] = [_filled(c, kind, requests, limits, told) for c in spec[field]]
    return spec, told


def _defaults(limit_range: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    requests: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    for item in _items(limit_range):
        if item.get("type") == "Container":
            requests.update(item.get("defaultRequest") or {})
            limits.update(item.get("default") or {})
    return requests, limits


def _filled(
    container: Mapping[str, Any], kind: str, requests: Amounts, limits: Amounts, told: list[str]
) -> dict[str, Any]:
    resources = dict(container.get("resources") or {})
    for side, defaults, word in (("requests", requests, "request"), ("limits", limits, "limit")):
        given = resources.get(side) or {}
        missing = {name: value for name, value in defaults.items() if name not in given}
        if missing:
            resources[side] = {**given, **missing}
            told.append(f"{', '.join(sorted(missing))} {word} for {kind} {container.get('name')}")
    return {**container, "resources": resources} if resources else dict(container)


def pod_violations(spec: Mapping[str, Any], limit_range: Mapping[str, Any]) -> list[str]:
    """What a pod spec, defaults filled in, breaks of one LimitRange; each once, in the order of its items."""
    found: list[str] = []
    for item in _items(limit_range):
        if item.get("type") == "Container":
            for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
                resources = container.get("resources") or {}
                found += _broken(item, _Held(resources.get("requests") or {}, resources.get("limits") or {}))
        elif item.get("type") == "Pod":
            # Overhead is the runtime's, not the author's: it is not held against the Pod.
            bare = {key: value for key, value in spec.items() if key != "overhead"}
            found += _broken(item, _Held(*map(_rendered, pod_asks(bare)[:2])))
    return list(dict.fromkeys(found))


def vmi_violations(spec: Mapping[str, Any], limit_range: Mapping[str, Any]) -> list[str]:
    """What a VMI spec breaks of one LimitRange; see the module about machines."""
    asks = machine_asks(spec)
    stated = ((spec.get("domain") or {}).get("resources") or {}).get("limits") or {}
    found: list[str] = []
    for kind, requests, limits in (
        ("Container", asks.own_requests, asks.own_limits),
        ("Pod", asks.requests, asks.limits),
    ):
        most = {**requests, "cpu": max(asks.guest["cpu"], requests["cpu"])}
        most.update({name: value for name, value in limits.items() if name in stated})
        held = _Held(_rendered(requests), _rendered(most))
        for item in _items(limit_range):
            if item.get("type") == kind:
                known = {side: _known(item.get(side) or {}, held.requests) for side in ("min", "max")}
                found += _broken({"type": kind, **known}, held)
    return list(dict.fromkeys(found))


def refusal(violations: list[str]) -> str:
    """Several violations in one message, as Kubernetes aggregates errors."""
    return violations[0] if len(violations) == 1 else f"[{', '.join(violations)}]"


def _items(limit_range: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    return (limit_range.get("spec") or {}).get("limits") or ()


def _rendered(amounts: Mapping[str, int]) -> dict[str, str]:
    return {name: render(name, value) for name, value in amounts.items()}


def _known(constraint: Amounts, counted: Amounts) -> dict[str, Any]:
    return {name: value for name, value in constraint.items() if name in counted}


def _broken(item: Mapping[str, Any], held: _Held) -> Iterator[str]:
    kind = item["type"]
    for name, bound in sorted((item.get("min") or {}).items()):
        yield from _below(name, kind, bound, held)
    for name, bound in sorted((item.get("max") or {}).items()):
        yield from _above(name, kind, bound, held)
    for name, bound in sorted((item.get("maxLimitRequestRatio") or {}).items()):
        yield from _ratio(name, kind, bound, held)


def _below(name: str, kind: str, bound: Any, held: _Held) -> Iterator[str]:
    request, limit = held.requests.get(name), held.limits.get(name)
    said = f"minimum {name} usage per {kind} is {bound}"
    if request is None:
        yield f"{said}.  No request is specified"
    elif parse(request) < parse(bound):
        yield f"{said}, but request is {request}"
    elif limit is not None and parse(limit) < parse(bound):
        yield f"{said}, but limit is {limit}"


def _above(name: str, kind: str, bound: Any, held: _Held) -> Iterator[str]:
    request, limit = held.requests.get(name), held.limits.get(name)
    said = f"maximum {name} usage per {kind} is {bound}"
    if limit is None:
        yield f"{said}.  No limit is specified"
    elif parse(limit) > parse(bound):
        yield f"{said}, but limit is {limit}"
    elif request is not None and parse(request) > parse(bound):
        yield f"{said}, but request is {request}"


def _ratio(name: str, kind: str, bound: Any, held: _Held) -> Iterator[str]:
    request, limit = held.requests.get(name), held.limits.get(name)
    said = f"{name} max limit to request ratio per {kind} is {bound}"
    if request is None or not parse(request):
        yield f"{said}, but no request is specified or request is 0"
    elif limit is None or not parse(limit):
        yield f"{said}, but no limit is specified or limit is 0"
    elif (ratio := Fraction(parse(limit), parse(request))) > parse(bound):
        yield f"{said}, but provided ratio is {float(ratio):.6f}"
