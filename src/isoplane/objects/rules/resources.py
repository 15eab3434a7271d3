"""Resource requests and limits of containers and virtual machines."""

from __future__ import annotations

from typing import Any

from isoplane.objects import names
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
