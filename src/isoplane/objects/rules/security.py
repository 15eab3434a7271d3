"""User and group numbers of a Pod and of its containers. Source: pkg/apis/core/validation and apimachinery's IsValidUserID.

The runtime checks the same bounds again for what only it sees: the user that an image names.
"""

from __future__ import annotations

from typing import Any

from isoplane.objects.rules.report import Report

LARGEST_ID = 2**31 - 1
"""4294967295 means "leave it as it is" to the kernel, so that whoever asked for it would stay root."""
_NUMBERS = ("runAsUser", "runAsGroup")


def check_container(path: str, container: dict[str, Any], report: Report) -> None:
    """A container's own securityContext; ``path`` is the container's."""
    security, path = container.get("securityContext") or {}, f"{path}.securityContext"
    _numbers(path, security, _NUMBERS, report)
    _seccomp(f"{path}.seccompProfile", security.get("seccompProfile"), report)


def check_pod(spec: dict[str, Any], report: Report) -> None:
    """``spec.securityContext`` of a Pod."""
    security, path = spec.get("securityContext") or {}, "spec.securityContext"
    _numbers(path, security, (*_NUMBERS, "fsGroup"), report)
    _seccomp(f"{path}.seccompProfile", security.get("seccompProfile"), report)
    for index, group in enumerate(security.get("supplementalGroups") or ()):
        _number(f"{path}.supplementalGroups[{index}]", group, report)


def _seccomp(path: str, profile: dict[str, Any] | None, report: Report) -> None:
    if profile is None:
        return
    kind, name = profile.get("type"), profile.get("localhostProfile")
    if not kind:
        report.required(f"{path}.type", "type is required when seccompProfile is set")
    report.one_of(f"{path}.type", kind, ("Localhost", "RuntimeDefault", "Unconfined"))
    if kind == "Localhost" and not name:
        report.required(f"{path}.localhostProfile", "must be set when seccomp type is Localhost")
    elif kind and kind != "Localhost" and name is not None:
        report.invalid(f"{path}.localhostProfile", name, "can only be set when seccomp type is Localhost")


def _numbers(path: str, security: dict[str, Any], fields: tuple[str, ...], report: Report) -> None:
    for field in fields:
        if (number := security.get(field)) is not None:
            _number(f"{path}.{field}", number, report)


def _number(path: str, number: Any, report: Report) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number <= LARGEST_ID:
        report.invalid(path, number, f"must be between 0 and {LARGEST_ID}, inclusive")
