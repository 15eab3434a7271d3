"""Resource requests and limits of containers and virtual machines."""

from __future__ import annotations

from typing import Any

from isoplane.objects import effective, names, quantity
from isoplane.objects.rules.report import Report


def check(path: str, resources: dict[str, Any] | None, report: Report) -> None:
    """Names, quantities, and requests at most limits."""
    if not resources:
        return
    limits = _amounts(f"{path}.limits", resources.get("limits"), report)
    requests = _amounts(f"{path}.requests", resources.get("requests"), report)
    for name, request in requests.items():
        limit = limits.get(name)
        if limit is None:
            if _extended(name):
                report.required(f"{path}.limits", f"Limit must be set for non overcommitable resources ({name})")
            continue
        text = f"must be less than or equal to {name} limit of {resources['limits'][name]}"
        if request > limit:
            report.invalid(f"{path}.requests", str(resources["requests"][name]), text)
        elif _extended(name) and request != limit:
            text = f"must be equal to {name} limit of {resources['limits'][name]}"
            report.invalid(f"{path}.requests", str(resources["requests"][name]), text)


def check_pod(spec: dict[str, Any], report: Report) -> None:
    """What a Pod asks for as a whole: its own resources against its containers', overhead, and sums that fit 64 bits."""
    if spec.get("overhead"):
        text = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
        report.forbidden("spec.overhead", text)
    level = spec.get("resources")
    if not level and len(spec.get("containers") or ()) + len(spec.get("initContainers") or ()) < 2:
        return
    sums = {side: _sum(spec, side) for side in ("requests", "limits")}
    for side, total in sums.items():
        for name, value in total.items():
            if value > quantity.MAX_AMOUNT:
                report.invalid("spec.containers", name, f"the sum of the {side} does not fit into 64 bits")
    if not level:
        return
    if level.get("claims"):
        report.forbidden("spec.resources.claims", "claims may not be set for Resources at pod-level")
    check("spec.resources", level, report)
    for side in ("requests", "limits"):
        for name in level.get(side) or ():
            if name not in ("cpu", "memory") and not name.startswith("hugepages-"):
                report.unsupported(f"spec.resources.{side}[{name}]", name, ("cpu", "memory", "hugepages-<size>"))
    requests, limits = _quiet(level.get("requests")), _quiet(level.get("limits"))
    for name, amount in sums["requests"].items():
        if name in requests and amount > requests[name]:
            text = f"must be greater than or equal to aggregate container requests of {quantity.render(name, amount)}"
            report.invalid(f"spec.resources.requests[{name}]", level["requests"][name], text)
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field) or ()):
            for name, amount in _quiet((container.get("resources") or {}).get("limits")).items():
                if 0 < limits.get(name, 0) < amount:
                    text = f"must be less than or equal to pod limits of {level['limits'][name]}"
                    shown = container["resources"]["limits"][name]
                    report.invalid(f"spec.{field}[{index}].resources.limits[{name}]", shown, text)


def _sum(spec: dict[str, Any], side: str) -> dict[str, int]:
    """The effective sum of what the containers state, a limit standing in for a request that is not stated."""

    def own(container: dict[str, Any]) -> dict[str, int]:
        stated = container.get("resources") or {}
        found = _quiet(stated.get(side))
        return {**_quiet(stated.get("limits")), **found} if side == "requests" else found

    total: dict[str, int] = {}
    for container in spec.get("containers") or ():
        effective.add(total, own(container))
    inits = spec.get("initContainers") or ()
    effective.with_steps(total, [(c.get("restartPolicy") == "Always", own(c)) for c in inits])
    return total


def _quiet(quantities: dict[str, Any] | None) -> dict[str, int]:
    """The amounts that can be read; what is wrong with the others is noted where they stand."""
    silent = Report()
    found = {n: silent.quantity("", n, value) for n, value in (quantities or {}).items() if value is not None}
    return {name: amount for name, amount in found.items() if amount is not None}


def _amounts(path: str, quantities: dict[str, Any] | None, report: Report) -> dict[str, int]:
    result = {}
    for name, value in (quantities or {}).items():
        where = f"{path}[{name}]"
        if name not in ("cpu", "memory", "ephemeral-storage") and not name.startswith("hugepages-"):
            if (problem := names.qualified(name)) is not None:
                report.invalid(path, name, problem)
            elif "/" not in name:
                report.invalid(where, name, "must be a standard resource for containers")
        if value is None:
            continue
        amount = report.quantity(where, name, value, whole=_extended(name))
        if amount is not None:
            result[name] = amount
    return result


def _extended(name: str) -> bool:
    """Counted devices and huge pages: whole, and the limit is the request."""
    return "/" in name or name.startswith("hugepages-")
